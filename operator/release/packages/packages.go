// SPDX-License-Identifier: Apache-2.0

// Package packages makes packages for Debian and for distributions with RPM of the program:
// with a unit for systemd, pages, completion and /etc/blixt. nfpm writes them; its
// configuration is generated. Equal input gives equal bytes.
package packages

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/mod/semver"

	"github.com/kubernetes-sigs/blixt/operator/release"
)

// Options say what to package.
type Options struct {
	// Source is what the program was made of. Its Dir has the unit, the licence and the
	// changelog.
	release.Source
	// Binary is the program.
	Binary *release.Binary
	// Man is a directory of pages, *.1.
	Man string
	// Completions is a directory with blixt.bash, blixt.zsh and blixt.fish.
	Completions string
	// Nfpm is the path of nfpm.
	Nfpm string
	// Out is the directory to write into.
	Out string
}

// Formats are the kinds of packages.
var Formats = []string{"deb", "rpm"}

// rpmArchitectures are RPM's names for Go's and Debian's.
var rpmArchitectures = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// Name returns the name of the file of a package. It has the version as it is tagged:
// GitHub renames what has a ~, which is how versions of packages begin what comes before a
// release.
func Name(format, number, arch string) string {
	if format == "rpm" {
		return fmt.Sprintf("blixt-%s-1.%s.rpm", number, rpmArchitectures[arch])
	}
	return fmt.Sprintf("blixt_%s_%s.deb", number, arch)
}

// Build writes both packages, and returns their files.
func Build(ctx context.Context, o Options) (files []string, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp("", "packages")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	for _, format := range Formats {
		path := filepath.Join(o.Out, Name(format, o.Number(), o.Binary.Arch))
		dir := filepath.Join(work, format)
		if err := o.build(ctx, dir, format, path); err != nil {
			return nil, fmt.Errorf("package %s: %w", filepath.Base(path), err)
		}
		files = append(files, path)
	}
	return files, nil
}

func (o *Options) check() error {
	if v := o.Version; v == "" || semver.Canonical(v)+semver.Build(v) != v {
		return fmt.Errorf("version %q: want one such as v1.2.3 or v1.2.3-rc.1", v)
	}
	if o.Time.IsZero() {
		return errors.New("time: want that of the commit")
	}
	if rpmArchitectures[o.Binary.Arch] == "" {
		return fmt.Errorf("architecture %q: want amd64 or arm64", o.Binary.Arch)
	}
	return nil
}

// build prepares everything in a directory, and has nfpm make the package of it.
func (o *Options) build(ctx context.Context, dir, format, path string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	config, err := o.prepare(&folder{dir: dir}, format)
	if err != nil {
		return err
	}
	text, err := json.Marshal(config) // which is YAML, too
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "nfpm.yaml")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return err
	}
	// nfpm reads passphrases and times from the environment: it gets none.
	c := exec.CommandContext(ctx, o.Nfpm, "package", "--config", file, "--packager", format, "--target", path)
	c.Env = []string{"TZ=UTC", "HOME=" + dir, "PATH=/nonexistent"}
	if out, err := c.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("nfpm: %w\n%s", err, strings.TrimSpace(string(out))), remove(path))
	}
	return nil
}

// remove removes half of a package, as a full disk leaves it.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

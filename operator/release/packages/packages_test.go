// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/manifest"
	"github.com/kubernetes-sigs/blixt/operator/release"
)

// source is this checkout.
const source = "../../.."

func options(t *testing.T) Options {
	t.Helper()
	o := Options{
		Source: release.Source{Dir: source, Version: "v1.2.3-rc.1", Time: time.Unix(1800000000, 0)},
		Binary: &release.Binary{Path: "/nonexistent/blixt", Arch: "arm64"}, Man: t.TempDir(), Completions: "/nonexistent", Out: t.TempDir(),
	}
	if err := os.WriteFile(filepath.Join(o.Man, "blixt.1"), []byte(".TH"), 0o644); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestExampleServesNothingUntilItIsEdited(t *testing.T) {
	set, err := manifest.Parse("example.yaml", example)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(set.Defined()); n != 0 {
		t.Errorf("it defines %d objects as it stands", n)
	}
	edited := ""
	for line := range strings.Lines(string(example)) {
		edited += strings.TrimPrefix(line, "#") // as its own words tell
	}
	if set, err = manifest.Parse("example.yaml", []byte(edited)); err != nil {
		t.Fatal(err)
	}
	if n := len(set.Defined()); n != 5 {
		t.Errorf("without the first # it defines %d objects, want 5: %v", n, set.Defined())
	}
}

// TestExampleStaysAsItIs since dpkg asks everybody who has edited it what to do when a new
// version has another one, and an upgrade that nobody watches ends there.
func TestExampleStaysAsItIs(t *testing.T) {
	const released = "611a5c8daeeb7a0061dd5d69220f0873891ecaf8d268252a90f802cce4f603dc"
	if sum := sha256.Sum256(example); hex.EncodeToString(sum[:]) != released {
		t.Errorf("example.yaml has another sum, %x. Before the first release write that here; afterwards leave the file as it is", sum)
	}
}

func TestUnitDiffersFromTheExampleInThePathAlone(t *testing.T) {
	o := options(t)
	packaged, err := o.unit()
	if err != nil {
		t.Fatal(err)
	}
	byHand, err := os.ReadFile(filepath.Join(source, "examples/standalone/blixt.service"))
	if err != nil {
		t.Fatal(err)
	}
	a, b := strings.Split(string(byHand), "\n"), strings.Split(string(packaged), "\n")
	if len(a) != len(b) {
		t.Fatalf("%d and %d lines", len(a), len(b))
	}
	var different []string
	for i := range a {
		if a[i] != b[i] {
			different = append(different, b[i])
		}
	}
	if want := []string{"ExecStart=/usr/bin/blixt run --filename /etc/blixt"}; !slices.Equal(different, want) {
		t.Errorf("lines %q differ, want %q", different, want)
	}
}

func TestPackagesHaveWhatTheirDistributionsExpect(t *testing.T) {
	for format, want := range map[string][]string{
		"deb": {"/usr/bin/blixt", "/etc/blixt", "/etc/blixt/example.yaml config|noreplace", "/usr/lib/systemd/system/blixt.service", "/usr/share/man/man1/blixt.1.gz",
			"/usr/share/bash-completion/completions/blixt", "/usr/share/fish/vendor_completions.d/blixt.fish", "/usr/share/zsh/vendor-completions/_blixt",
			"/usr/share/doc/blixt/copyright", "/usr/share/doc/blixt/changelog.gz", "/usr/share/lintian/overrides/blixt"},
		"rpm": {"/usr/bin/blixt", "/etc/blixt", "/etc/blixt/example.yaml config|noreplace", "/usr/lib/systemd/system/blixt.service", "/usr/share/man/man1/blixt.1.gz doc",
			"/usr/share/bash-completion/completions/blixt", "/usr/share/fish/vendor_completions.d/blixt.fish", "/usr/share/zsh/site-functions/_blixt",
			"/usr/share/licenses/blixt", "/usr/share/licenses/blixt/LICENSE license"},
	} {
		o := options(t)
		c, err := o.prepare(&folder{dir: t.TempDir()}, format)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range c.Contents {
			line := f.Dst
			if f.Type != "" && f.Type != "dir" {
				line += " " + f.Type
			}
			got = append(got, line)
			if mode := f.Info.Mode; f.Info.Owner != "root" || f.Info.Group != "root" || mode&0o022 != 0 {
				t.Errorf("%s: %s is of %s:%s, mode %o", format, f.Dst, f.Info.Owner, f.Info.Group, mode)
			}
		}
		slices.Sort(got)
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Errorf("%s has\n%s\nwant\n%s", format, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestScriptsThatRemoveUnloadWhatIsLeft(t *testing.T) {
	f := &folder{dir: t.TempDir()}
	for name, unloads := range map[string]bool{"postinst": false, "prerm": true, "postrm": false, "post": false, "preun": true, "postun": false, "posttrans": false} {
		text, err := os.ReadFile(f.script(name))
		if f.err != nil || err != nil {
			t.Fatal(f.err, err)
		}
		if strings.Contains(string(text), "@") || strings.Contains(string(text), "blixt unload") != unloads {
			t.Errorf("%s is\n%s", name, text)
		}
	}
}

// What cannot be removed, as what another file system is mounted on, is no reason to fail: dpkg
// would never be done with the package.
func TestPurgeEndsIfAFolderStays(t *testing.T) {
	f := &folder{dir: t.TempDir()}
	script, bin := f.script("postrm"), t.TempDir()
	called := filepath.Join(bin, "called")
	for name, text := range map[string]string{"rm": "exit 1", "deb-systemd-helper": "echo $* >" + called} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	purge := exec.Command("/bin/sh", script, "purge")
	purge.Env = []string{"PATH=" + bin}
	out, err := purge.CombinedOutput()
	if text, _ := os.ReadFile(called); f.err != nil || err != nil || string(text) != "purge blixt.service\n" {
		t.Errorf("it says %q, and calls deb-systemd-helper %q: %v, %v", out, text, err, f.err)
	}
}

func TestCompressedFilesAreWhole(t *testing.T) {
	f := &folder{dir: t.TempDir()}
	file, err := os.Open(f.compress("page.gz", []byte("text"), nil))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); string(text) != "text" || err != nil || r.Name != "" || !r.ModTime.IsZero() {
		t.Errorf("it has %q, name %q, time %s: %v", text, r.Name, r.ModTime, err)
	}
}

func TestVersionsOfPackages(t *testing.T) {
	for version, want := range map[string][3]string{
		"v1.2.3":          {"1.2.3", "blixt_1.2.3_arm64.deb", "blixt-1.2.3-1.aarch64.rpm"},
		"v1.2.3-rc.1":     {"1.2.3~rc.1", "blixt_1.2.3-rc.1_arm64.deb", "blixt-1.2.3-rc.1-1.aarch64.rpm"},
		"v1.2.3-alpha-b1": {"1.2.3~alpha-b1", "blixt_1.2.3-alpha-b1_arm64.deb", "blixt-1.2.3-alpha-b1-1.aarch64.rpm"},
	} {
		o := options(t)
		o.Version = version
		got := [3]string{o.packageVersion(), Name("deb", o.Number(), "arm64"), Name("rpm", o.Number(), "arm64")}
		if got != want {
			t.Errorf("%s: %q, want %q", version, got, want)
		}
	}
}

func TestDebiansChangelogHasTheFormThatToolsRead(t *testing.T) {
	o := options(t)
	text, err := o.debianChangelog()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if first := "blixt (1.2.3~rc.1) stable; urgency=medium"; lines[0] != first {
		t.Errorf("it begins with %q, want %q", lines[0], first)
	}
	if last := " -- " + maintainer + "  Fri, 15 Jan 2027 08:00:00 +0000"; lines[len(lines)-1] != last {
		t.Errorf("it ends with %q, want %q", lines[len(lines)-1], last)
	}
	for _, line := range lines[2 : len(lines)-2] {
		if !strings.HasPrefix(line, "  * ") && !strings.HasPrefix(line, "    ") {
			t.Errorf("line %q is neither an entry nor its continuation", line)
		}
	}
}

func TestWhatCannotBePackagedIsRefused(t *testing.T) {
	for want, spoil := range map[string]func(*Options){
		"version":                    func(o *Options) { o.Version = "1.2.3" },
		"v1.2.3":                     func(o *Options) { o.Version = "v1.2" },
		"time":                       func(o *Options) { o.Time = time.Time{} },
		"amd64":                      func(o *Options) { o.Binary.Arch = "riscv64" },
		"blixt.service":              func(o *Options) { o.Dir = "/nonexistent" },
		"/nonexistent/man":           func(o *Options) { o.Man = "/nonexistent/man" },
		"/nonexistent/nfpm":          func(o *Options) { o.Nfpm = "/nonexistent/nfpm" },
		"blixt_1.2.3-rc.1_arm64.deb": func(o *Options) { o.Nfpm = "/bin/false" },
	} {
		o := options(t)
		o.Nfpm = "/bin/true"
		spoil(&o)
		if _, err := Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestHalfAPackageIsRemoved has something fail that has written a part, as with a full disk.
func TestHalfAPackageIsRemoved(t *testing.T) {
	o := options(t)
	o.Nfpm = filepath.Join(t.TempDir(), "nfpm")
	if err := os.WriteFile(o.Nfpm, []byte("#!/bin/sh\necho half >\"$7\"\necho no space left >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("the error is %v", err)
	}
	if left, err := os.ReadDir(o.Out); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

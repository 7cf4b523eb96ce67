// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/changelog"
)

var (
	//go:embed scripts
	scriptFiles embed.FS
	//go:embed example.yaml
	example []byte
	//go:embed copyright
	copyright []byte
	//go:embed lintian-overrides
	overrides []byte
)

// folder is a directory for files that are made. After the first error it writes nothing
// more, and err is that error.
type folder struct {
	dir string
	err error
}

func (f *folder) try(err error) { f.err = errors.Join(f.err, err) }

// write writes a file, unless there was an error, and returns its path.
func (f *folder) write(name string, text []byte, err error) string {
	path := filepath.Join(f.dir, name)
	if f.try(err); f.err == nil {
		f.try(os.WriteFile(path, text, 0o644))
	}
	return path
}

// compress writes a file as gzip -9n does.
func (f *folder) compress(name string, text []byte, err error) string {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // the level is valid
	_, failed := w.Write(text)
	err = errors.Join(err, failed, w.Close())
	return f.write(name, b.Bytes(), err)
}

// script writes a script of the package. Those that remove share a part.
func (f *folder) script(name string) string {
	text, err := scriptFiles.ReadFile("scripts/" + name + ".sh")
	unload, failed := scriptFiles.ReadFile("scripts/unload.sh")
	return f.write(name, bytes.ReplaceAll(text, []byte("@unload@\n"), unload), errors.Join(err, failed))
}

// changes returns what the version changes, one paragraph for each.
func (o *Options) changes() (all []string, err error) {
	text, err := os.ReadFile(filepath.Join(o.Dir, "CHANGELOG.md"))
	if err != nil {
		return nil, err
	}
	section, err := changelog.Of(text, o.Version)
	if err != nil {
		return nil, err
	}
	for _, c := range section.Changes {
		all = append(all, c.Kind+": "+c.Text)
	}
	return all, nil
}

// packageVersion returns the version as packages have it: what comes before a release has a
// ~, which sorts before everything.
func (o *Options) packageVersion() string { return strings.Replace(o.Number(), "-", "~", 1) }

// debianChangelog returns the changelog in Debian's format, of this version alone.
func (o *Options) debianChangelog() ([]byte, error) {
	all, err := o.changes()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "blixt (%s) stable; urgency=medium\n\n", o.packageVersion())
	for _, change := range all {
		b.WriteString(wrap("  * ", "    ", change, 79))
	}
	fmt.Fprintf(&b, "\n -- %s  %s\n", maintainer, o.Time.UTC().Format(time.RFC1123Z))
	return b.Bytes(), nil
}

// rpmChangelog returns the changelog in the format of which nfpm makes RPM's.
func (o *Options) rpmChangelog() ([]byte, error) {
	type note struct {
		Note string `json:"note"`
	}
	entry := map[string]any{"semver": o.packageVersion() + "-1", "date": o.Time.UTC(), "packager": maintainer}
	entry["changes"] = []note{{"See " + release.Home + "/releases/tag/" + o.Version}}
	return json.Marshal([]any{entry})
}

// wrap breaks a text into lines of a width, as far as its words allow. The first line begins
// with one prefix, the others with another.
func wrap(first, others, text string, width int) string {
	var b strings.Builder
	line := first
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
			line += word
		case len(line)+1+len(word) <= width:
			line += " " + word
		default:
			b.WriteString(line + "\n")
			line = others + word
		}
	}
	return b.String() + line + "\n"
}

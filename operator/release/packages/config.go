// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/release"
)

const (
	// maintainer is whom packages name: Debian wants an address, and SIG Network's list is
	// the public one.
	maintainer = "The authors of Blixt <kubernetes-sig-network@googlegroups.com>"

	summary = "layer-4 load balancer for Gateway API, in eBPF"
	about   = `Blixt balances TCP and UDP in the kernel, by objects of Gateway API that
it reads from the files in /etc/blixt. A change of backends resets the
connections of those that are gone, and no others; neither a restart nor
an upgrade of this package resets any.
.
It needs Linux 6.6 or newer.`
)

// config is the configuration of nfpm, as far as it is used.
type config struct {
	Name            string    `json:"name"`
	Arch            string    `json:"arch"`
	Platform        string    `json:"platform"`
	Version         string    `json:"version"`
	Section         string    `json:"section,omitempty"`
	Priority        string    `json:"priority,omitempty"`
	Maintainer      string    `json:"maintainer"`
	Vendor          string    `json:"vendor"`
	Homepage        string    `json:"homepage"`
	License         string    `json:"license"`
	Description     string    `json:"description"`
	Changelog       string    `json:"changelog,omitempty"`
	MTime           time.Time `json:"mtime"`
	DisableGlobbing bool      `json:"disable_globbing"`
	Contents        []content `json:"contents"`
	Scripts         scripts   `json:"scripts"`
	RPM             *rpm      `json:"rpm,omitempty"`
}

type content struct {
	Src  string   `json:"src,omitempty"`
	Dst  string   `json:"dst"`
	Type string   `json:"type,omitempty"`
	Info fileInfo `json:"file_info"`
}

type fileInfo struct {
	Mode  int    `json:"mode"`
	Owner string `json:"owner"`
	Group string `json:"group"`
}

type scripts struct {
	PostInstall string `json:"postinstall"`
	PreRemove   string `json:"preremove"`
	PostRemove  string `json:"postremove"`
}

type rpm struct {
	// BuildHost would be the name of this machine.
	BuildHost string `json:"buildhost"`
	Summary   string `json:"summary"`
	Group     string `json:"group"`
	Scripts   struct {
		PostTrans string `json:"posttrans"`
	} `json:"scripts"`
}

// documentation is what marks documents, which some leave out when they install.
var documentation = map[string]string{"rpm": "doc"}

// prepare writes the files that a package has and the source does not into a folder, and
// returns the configuration.
func (o *Options) prepare(f *folder, format string) (*config, error) {
	c := &config{
		Name: "blixt", Arch: o.Binary.Arch, Platform: "linux", Version: o.Number(), MTime: o.Time.UTC(),
		Maintainer: maintainer, Vendor: "The authors of Blixt", Homepage: release.Home,
		License: "Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)", DisableGlobbing: true,
	}
	c.add(o.Binary.Path, "/usr/bin/blixt", 0o755)
	unit, err := o.unit()
	c.add(f.write("blixt.service", unit, err), "/usr/lib/systemd/system/blixt.service", 0o644)
	c.Contents = append(c.Contents, content{Dst: "/etc/blixt", Type: "dir", Info: root(0o755)})
	c.add(f.write("example.yaml", example, nil), "/etc/blixt/example.yaml", 0o644).Type = "config|noreplace"
	pages, err := os.ReadDir(o.Man)
	f.try(err)
	for _, page := range pages {
		text, err := os.ReadFile(filepath.Join(o.Man, page.Name()))
		c.add(f.compress(page.Name()+".gz", text, err), "/usr/share/man/man1/"+page.Name()+".gz", 0o644).Type = documentation[format]
	}
	c.add(filepath.Join(o.Completions, "blixt.bash"), "/usr/share/bash-completion/completions/blixt", 0o644)
	c.add(filepath.Join(o.Completions, "blixt.fish"), "/usr/share/fish/vendor_completions.d/blixt.fish", 0o644)
	if format == "deb" {
		o.debian(c, f)
	} else {
		o.redHat(c, f)
	}
	return c, f.err
}

// debian adds what only packages for Debian have.
func (o *Options) debian(c *config, f *folder) {
	c.Section, c.Priority = "net", "optional"
	c.Description = summary + "\n" + about
	c.add(filepath.Join(o.Completions, "blixt.zsh"), "/usr/share/zsh/vendor-completions/_blixt", 0o644)
	c.add(f.write("copyright", copyright, nil), "/usr/share/doc/blixt/copyright", 0o644)
	text, err := o.debianChangelog()
	c.add(f.compress("changelog.gz", text, err), "/usr/share/doc/blixt/changelog.gz", 0o644)
	c.add(f.write("overrides", overrides, nil), "/usr/share/lintian/overrides/blixt", 0o644)
	c.Scripts = scripts{f.script("postinst"), f.script("prerm"), f.script("postrm")}
}

// redHat adds what only packages of RPM have.
func (o *Options) redHat(c *config, f *folder) {
	c.Description = strings.ReplaceAll(about, "\n.\n", "\n\n")
	c.RPM = &rpm{BuildHost: "localhost", Summary: "L" + summary[1:], Group: "System Environment/Daemons"}
	c.RPM.Scripts.PostTrans = f.script("posttrans")
	c.add(filepath.Join(o.Completions, "blixt.zsh"), "/usr/share/zsh/site-functions/_blixt", 0o644)
	c.Contents = append(c.Contents, content{Dst: "/usr/share/licenses/blixt", Type: "dir", Info: root(0o755)}) // or it would stay
	c.add(filepath.Join(o.Dir, "LICENSE"), "/usr/share/licenses/blixt/LICENSE", 0o644).Type = "license"
	text, err := o.rpmChangelog()
	c.Changelog = f.write("changelog.yaml", text, err)
	c.Scripts = scripts{f.script("post"), f.script("preun"), f.script("postun")}
}

func root(mode int) fileInfo { return fileInfo{Mode: mode, Owner: "root", Group: "root"} }

// add adds a file.
func (c *config) add(src, dst string, mode int) *content {
	c.Contents = append(c.Contents, content{Src: src, Dst: dst, Info: root(mode)})
	return &c.Contents[len(c.Contents)-1]
}

// unit returns the unit of the source, with the program where packages have it.
func (o *Options) unit() ([]byte, error) {
	const byHand, packaged = "ExecStart=/usr/local/bin/blixt ", "ExecStart=/usr/bin/blixt "
	path := filepath.Join(o.Dir, "examples/standalone/blixt.service")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if n := strings.Count(string(text), byHand); n != 1 {
		return nil, fmt.Errorf("%s has %d lines that begin with %q, want one", path, n, byHand)
	}
	return []byte(strings.Replace(string(text), byHand, packaged, 1)), nil
}

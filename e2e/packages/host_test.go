//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/e2e/lib/machine"
)

// limit is how long a command may take, on a busy machine.
const limit = 2 * time.Minute

// host is the load balancer of a world, with a systemd of its own. Its files are those of a
// distribution; what is written stays in memory.
type host struct {
	*labtest.World
	machine *machine.Machine
	cgroup  string
	before  []string // files of others that are named like ours
}

// cgroups returns where the hierarchy of cgroup v2 is mounted.
func cgroups() string {
	const mixed = "/sys/fs/cgroup/unified" // beside those of v1
	if _, err := os.Stat(mixed); err == nil {
		return mixed
	}
	return "/sys/fs/cgroup"
}

// becomeSystemd has the first process of a machine become systemd, which starts nothing of
// the distribution's.
const becomeSystemd = `
rm -f /etc/fstab /usr/sbin/policy-rc.d
mkdir -p /etc/systemd/system
printf '[Unit]\nRequires=sysinit.target\nWants=dbus.socket\nAfter=sysinit.target\n' >/etc/systemd/system/test.target
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --show-status=0 systemd.unit=test.target </dev/null`

// boot starts a network of that name, and systemd on its load balancer.
func boot(t *testing.T, name string) *host {
	t.Helper()
	h := &host{World: labtest.New(t, name, 2, 0)}
	h.start(t, h.Balancer, name)
	h.before = h.named()
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := h.try("sh", "-c", "systemctl status --no-pager blixt; journalctl --no-pager -o cat -u blixt -u hand -u other | tail -n 80")
			t.Logf("the unit:\n%s", out)
		}
	})
	return h
}

// start has a node run systemd. The name is that of its cgroup.
func (h *host) start(t *testing.T, n *lab.Node, name string) {
	t.Helper()
	h.cgroup = filepath.Join(cgroups(), "blixt-e2e-"+name)
	h.removeCgroup(t) // of a killed run
	if err := os.Mkdir(h.cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.removeCgroup(t) })
	var err error
	h.machine, err = machine.Start(n, machine.Options{
		Root: *rootDir, Dir: t.TempDir(), Name: "host", Cgroup: h.cgroup,
		Init: []string{"unshare", "--cgroup", "sh", "-c", becomeSystemd},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = h.machine.Close()
		if t.Failed() {
			t.Logf("systemd said:\n%s", h.machine.Console())
		}
	})
	err = lab.Eventually(limit, func() error {
		out, err := h.try("systemctl", "is-system-running")
		if state := strings.TrimSpace(out); state == "running" || state == "degraded" {
			return nil
		}
		return fmt.Errorf("systemd is not up: %s, %w", out, cmp.Or(err, errors.New("not yet")))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// removeCgroup kills all that is in the cgroup, and removes it.
func (h *host) removeCgroup(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.cgroup, "cgroup.kill"), []byte("1"), 0); errors.Is(err, fs.ErrNotExist) {
		return
	}
	err := lab.Eventually(limit, func() error {
		var dirs []string
		_ = filepath.WalkDir(h.cgroup, func(path string, d fs.DirEntry, err error) error { // it changes meanwhile
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) {
			if err := os.Remove(dir); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// try runs a command on the host, with the environment of a login.
func (h *host) try(name string, args ...string) (string, error) {
	return h.machine.Run(limit, name, args...)
}

// run runs a command on the host that succeeds.
func (h *host) run(name string, args ...string) string {
	h.Helper()
	out, err := h.try(name, args...)
	h.Check(err)
	return out
}

// path returns a file of the host.
func (h *host) path(name string) string { return h.machine.Path(name) }

// put copies files into /tmp of the host, and returns their paths there.
func (h *host) put(files ...string) (there []string) {
	h.Helper()
	for _, file := range files {
		text, err := os.ReadFile(file)
		h.Check(err)
		path := filepath.Join("/tmp", filepath.Base(file))
		h.Check(os.WriteFile(h.path(path), text, 0o644))
		there = append(there, path)
	}
	return there
}

// property returns one of the unit.
func (h *host) property(name string) string {
	h.Helper()
	return strings.TrimSpace(h.run("systemctl", "show", "--property="+name, "--value", "blixt"))
}

// wants fails the test unless properties of the unit have these values, given as Name=value.
func (h *host) wants(what string, properties ...string) {
	h.Helper()
	for _, p := range properties {
		name, want, _ := strings.Cut(p, "=")
		if got := h.property(name); got != want {
			h.Errorf("%s: %s is %q, want %q", what, name, got, want)
		}
	}
}

// serve writes what to serve into /etc/blixt, and waits until it is served.
func (h *host) serve() {
	h.Helper()
	h.Check(labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, h.Backends...)}).Write(h.path("etc/blixt")))
	h.awaitServed()
}

func (h *host) awaitServed() { h.Helper(); h.awaitAnswer(labtest.VIP(4, 80)) }

// awaitAnswer waits until a server answers at an address.
func (h *host) awaitAnswer(address string) {
	h.Helper()
	h.Check(lab.Eventually(limit, func() error {
		c, err := h.Client.Dial("tcp", "", address, labtest.Patience)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = lab.Ask(c, "hello", labtest.Patience)
		return err
	}))
}

// traffic is flows of both protocols and families.
type traffic []*labtest.Clients

func (h *host) traffic() traffic {
	h.Helper()
	return traffic{
		h.StartClients(20, "tcp", labtest.VIP(4, 80), labtest.VIP(6, 80)),
		h.StartClients(10, "udp", labtest.VIP(4, 80), labtest.VIP(6, 80)),
	}
}

func (t traffic) unharmed(what string) {
	for _, c := range t {
		c.World.Helper()
		c.CheckUnharmed(what)
	}
}

func (t traffic) stop() {
	for _, c := range t {
		c.Stop()
	}
}

// nothingServed fails the test if anything of a load balancer is in the kernel, or in the
// directory of what is on this host.
func (h *host) nothingServed(what string) {
	h.Helper()
	for _, dev := range []string{"lo", "eth0", "eth1", "pods"} {
		if ids := h.Programs(dev); len(ids) > 0 {
			h.Errorf("%s: %s has programs %v", what, dev, ids)
		}
	}
	if out := h.run("ip", "address"); strings.Contains(out, lab.VIP4) || strings.Contains(out, lab.VIP6) {
		h.Errorf("%s: the host has an address of a Gateway:\n%s", what, out)
	}
	for _, dir := range []string{"sys/fs/bpf/blixt", "run/blixt"} {
		if entries, err := os.ReadDir(h.path(dir)); err == nil && (len(entries) > 0 || dir != "run/blixt") {
			h.Errorf("%s: %s is left, with %v", what, dir, entries)
		}
	}
}

// nothingLeft fails the test if files of a package are left, or of what it has run, but for
// the notes of package managers.
func (h *host) nothingLeft(what string) {
	h.Helper()
	for _, path := range h.named() {
		if !slices.Contains(h.before, path) {
			h.Errorf("%s: %s is left", what, path)
		}
	}
}

// named returns the files that have the name in theirs, but for notes of others.
func (h *host) named() []string {
	h.Helper()
	return strings.Fields(h.run("find", "/etc", "/usr", "/var", "/run", "/sys/fs/bpf", "/opt", "-xdev", "-ignore_readdir_race", "-name", "*blixt*",
		"-not", "-path", "/var/log/*", "-not", "-path", "/var/lib/rpm/*", "-not", "-path", "/run/systemd/*"))
}

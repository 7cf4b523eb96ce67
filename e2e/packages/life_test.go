//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// manager is a manager of packages, by its commands. A package follows the first two.
type manager struct{ format, install, upgrade, version, remove, purge string }

var (
	dpkg = manager{"deb", "dpkg --install", "dpkg --install", "dpkg-query --show --showformat=${Version} blixt", "dpkg --remove blixt", "dpkg --purge blixt"}
	// On a Debian, RPM wants to be told that it is meant. It knows no purge.
	rpm = manager{"rpm", "rpm --force-debian --install", "rpm --force-debian --upgrade --oldpackage", "rpm --query --queryformat=%{VERSION} blixt",
		"rpm --force-debian --erase blixt", "rm -rf /etc/blixt /var/lib/blixt"}
)

// do runs a command that is given in one line.
func (h *host) do(command string, more ...string) string {
	h.Helper()
	words := append(strings.Fields(command), more...)
	return h.run(words[0], words[1:]...)
}

func TestDebServesThroughItsLife(t *testing.T) { life(t, dpkg) }
func TestRPMServesThroughItsLife(t *testing.T) { life(t, rpm) }

// life installs, configures, upgrades, downgrades and removes a package. Flows break when the
// service is stopped, and never before.
func life(t *testing.T, m manager) {
	h := boot(t, m.format)
	files := h.put(file(m.format, "0.9.0"), file(m.format, "0.9.1"))
	if out := h.do(m.install, files[0]); !strings.Contains(out, "systemctl enable --now blixt") {
		t.Errorf("an installation says nothing of what comes next:\n%s", out)
	}
	h.wants("installed", "ActiveState=inactive", "UnitFileState=disabled")
	h.unitIsSound()
	h.run("systemctl", "enable", "--now", "blixt")
	h.wants("started without configuration", "ActiveState=active", "NRestarts=0", "StatusText=serving: frontends 0, backends 0")

	h.serve()
	flows := h.traffic()
	h.run("systemctl", "restart", "blixt")
	flows.unharmed("systemctl restart")
	h.run("systemctl", "reload", "blixt")
	flows.unharmed("systemctl reload")
	h.run("systemctl", "kill", "--signal=KILL", "blixt")
	flows.unharmed("kill -9")
	h.awaitRestarts("1")

	edited := "# edited by the administrator\n"
	h.Check(os.WriteFile(h.path("etc/blixt/example.yaml"), []byte(edited), 0o644))
	for _, step := range []struct{ what, file, version string }{{"upgrade", files[1], "0.9.1"}, {"downgrade", files[0], "0.9.0"}} {
		before := h.property("MainPID")
		h.do(m.upgrade, step.file)
		flows.unharmed(step.what)
		h.wants(step.what, "ActiveState=active", "UnitFileState=enabled")
		if after := h.property("MainPID"); after == before {
			t.Errorf("%s: process %s is still that of the version before", step.what, after)
		}
		if v := h.do(m.version); v != step.version {
			t.Errorf("%s: version %s is installed, want %s", step.what, v, step.version)
		}
		if text, err := os.ReadFile(h.path("etc/blixt/example.yaml")); string(text) != edited {
			t.Errorf("%s: example.yaml is %q (%v)", step.what, text, err)
		}
	}

	h.run("systemctl", "stop", "blixt")
	flows.stop()
	h.nothingServed("systemctl stop")
	h.run("systemctl", "start", "blixt")
	h.awaitServed()
	h.do(m.remove)
	h.nothingServed(m.remove)
	if files, err := os.ReadDir(h.path("etc/blixt")); len(files) == 0 {
		t.Errorf("what was configured is gone before %s: %v", m.purge, err)
	}
	h.do(m.purge)
	h.nothingLeft(m.purge)
}

// awaitRestarts waits until systemd has started the unit again so many times.
func (h *host) awaitRestarts(n string) {
	h.Helper()
	h.Check(lab.Eventually(limit, func() error {
		if got, state := h.property("NRestarts"), h.property("ActiveState"); got != n || state != "active" {
			return fmt.Errorf("the unit is %s after %s restarts, want it active after %s", state, got, n)
		}
		return nil
	}))
}

// unitIsSound fails the test unless systemd finds nothing wrong with the unit, and scores it
// as well as the documents promise.
func (h *host) unitIsSound() {
	h.Helper()
	if out := h.run("systemd-analyze", "verify", "--man=no", "blixt.service"); strings.Contains(out, "blixt") {
		h.Errorf("systemd-analyze verify: %s", out)
	}
	if out := h.run("systemd-analyze", "--version"); strings.HasPrefix(out, "systemd 247") || strings.HasPrefix(out, "systemd 249") {
		return // it cannot do so for a unit that does not run
	}
	h.run("systemd-analyze", "security", "--offline=true", "--threshold=25", "--no-pager", "blixt.service")
}

//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestUpgradeThatGoesWrongBreaksNoFlow.
func TestUpgradeThatGoesWrongBreaksNoFlow(t *testing.T) {
	h := boot(t, "trouble")
	debs := h.put(file("deb", "0.9.0"), file("deb", "0.9.1"))
	h.run("dpkg", "--install", debs[0])
	h.run("systemctl", "start", "blixt")
	h.serve()
	flows := h.traffic()

	// dpkg is killed while it unpacks.
	c := h.machine.Command(t.Context(), "dpkg", "--install", debs[1])
	h.Check(c.Start())
	h.Check(lab.Eventually(limit, func() error {
		_, err := os.Stat(h.path("usr/bin/blixt.dpkg-new"))
		return err
	}))
	h.run("pkill", "-KILL", "-x", "dpkg")
	_ = c.Wait() // it was killed
	flows.unharmed("dpkg is killed")
	h.wants("dpkg is killed", "ActiveState=active", "NRestarts=0")
	h.run("systemctl", "restart", "blixt")
	flows.unharmed("a restart with half a package")
	h.run("dpkg", "--install", debs[1])
	flows.unharmed("the upgrade once more")

	// The disk is full.
	h.run("sh", "-c", "dd if=/dev/zero of=/var/tmp/full bs=1M 2>/dev/null || true")
	if out, err := h.try("dpkg", "--install", debs[0]); err == nil {
		t.Errorf("on a full disk dpkg says\n%s", out)
	}
	flows.unharmed("a full disk")
	h.run("rm", "/var/tmp/full")
	h.run("dpkg", "--install", debs[0])
	flows.unharmed("the upgrade with room")

	// Whoever decides about services does not want them to be touched.
	before := h.property("MainPID")
	h.Check(os.WriteFile(h.path("usr/sbin/policy-rc.d"), []byte("#!/bin/sh\nexit 101\n"), 0o755))
	h.run("dpkg", "--install", debs[1])
	if after := h.property("MainPID"); after != before {
		t.Errorf("process %s became %s against policy-rc.d", before, after)
	}
	h.Check(os.Remove(h.path("usr/sbin/policy-rc.d")))
	h.run("systemctl", "restart", "blixt")
	flows.unharmed("an upgrade that may not restart")

	// The files are gone: what was good last goes on.
	h.run("mv", "/etc/blixt", "/etc/away")
	h.run("dpkg", "--install", debs[0])
	flows.unharmed("an upgrade without files")
	h.run("mv", "/etc/away", "/etc/blixt")
	h.awaitUnit("active")

	// The new version does not start.
	h.dropIn("[Service]\nExecStart=\nExecStart=/usr/bin/blixt run --no-such-flag\n")
	h.run("dpkg", "--install", debs[1])
	flows.unharmed("a version that does not start")
	if state := h.property("ActiveState"); state == "active" {
		t.Error("a version that does not start is active")
	}
	h.dropIn("")
	h.awaitUnit("active")
	flows.unharmed("a version that does start again")

	// A process that nobody starts again has left the kernel serving.
	h.dropIn("[Service]\nRestart=no\n")
	h.run("systemctl", "kill", "--signal=KILL", "blixt")
	h.awaitUnit("failed")
	flows.unharmed("kill -9")
	flows.stop()
	h.run("dpkg", "--purge", "blixt")
	h.nothingServed("a purge after kill -9")
	h.run("rm", "-rf", "/etc/systemd/system/blixt.service.d")
	h.nothingLeft("a purge after kill -9")
}

// dropIn has the unit say something else.
func (h *host) dropIn(text string) {
	h.Helper()
	dir := h.path("etc/systemd/system/blixt.service.d")
	h.Check(os.MkdirAll(dir, 0o755))
	h.Check(os.WriteFile(dir+"/test.conf", []byte(text), 0o644))
	h.run("systemctl", "daemon-reload")
}

// TestPackageLivesWithProcessesThatPeopleHaveStarted: one of the same name, which the unit
// takes over from, and one of another name, which a removal does not touch.
func TestPackageLivesWithProcessesThatPeopleHaveStarted(t *testing.T) {
	h := boot(t, "hand")
	deb := h.put(file("deb", "0.9.0"))[0]
	byHand := "/usr/local/bin/blixt"
	h.run("mkdir", "-p", "/etc/blixt", "/srv/other")
	text, err := os.ReadFile(options.Binary.Path)
	h.Check(err)
	h.Check(os.WriteFile(h.path(byHand), text, 0o755))
	h.Check(labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, h.Backends...)}).Write(h.path("etc/blixt")))
	h.run("systemd-run", "--unit=hand", byHand, "run", "--keep", "--filename", "/etc/blixt")
	h.awaitServed()
	flows := h.traffic()

	h.run("dpkg", "--install", deb)
	out, err := h.try("systemctl", "start", "blixt")
	log := h.run("journalctl", "--no-pager", "--output=cat", "--unit=blixt")
	if want := "stop that one first"; err == nil || !strings.Contains(log, want) {
		t.Errorf("a second start says %s, %v, and the log has no %q:\n%s", out, err, want, log)
	}
	flows.unharmed("a start beside one by hand")
	h.run("systemctl", "stop", "hand")
	h.awaitUnit("active")
	flows.unharmed("the unit takes over")

	other := labtest.ConfigOf(map[int][]lab.Endpoint{90: lab.Endpoints(8080, h.Backends...)})
	other.Gateways[0].Addresses = []string{lab.Outside4}
	h.Check(other.Write(h.path("srv/other")))
	h.run("systemd-run", "--unit=other", byHand, "run", "--name", "other", "--snat-ports", "30001-30999", "--filename", "/srv/other")
	h.awaitAnswer(labtest.At(lab.Outside4, 90))
	others := h.StartClients(10, "tcp", labtest.At(lab.Outside4, 90))
	flows.stop()
	if out := h.run("dpkg", "--remove", "blixt"); !strings.Contains(out, `"other"`) {
		t.Errorf("a removal does not name the other load balancer, which goes on:\n%s", out)
	}
	others.CheckUnharmed("a removal of the package")
	if _, err := os.Stat(h.path("sys/fs/bpf/blixt/default")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins of the package's own load balancer: %v", err)
	}
	h.run("systemctl", "stop", "other")
	h.nothingServed("the other one is stopped, too")
}

// awaitUnit waits until the unit is in a state.
func (h *host) awaitUnit(state string) {
	h.Helper()
	h.Check(lab.Eventually(limit, func() error {
		if got := h.property("ActiveState"); got != state {
			return fmt.Errorf("the unit is %s, want %s", got, state)
		}
		return nil
	}))
}

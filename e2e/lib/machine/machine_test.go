// SPDX-License-Identifier: Apache-2.0

package machine_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/machine"
)

const limit = 20 * time.Second

func start(t *testing.T, name string) *machine.Machine {
	t.Helper()
	l, err := lab.New("blixt-e2e-machine-" + name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	n := l.Node("host")
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	m, err := machine.Start(n, machine.Options{Root: "/", Dir: t.TempDir(), Name: "lb-1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// What root does there changes nothing here.
func TestNothingLeavesAMachine(t *testing.T) {
	m := start(t, "hostile")
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(t.TempDir(), "mine")
	if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.Run(limit, "sh", "-c", `
		hostname
		hostname evil
		echo evil >/etc/evil; echo evil >/root/evil; echo evil >/var/evil; mkdir -p /run/evil /tmp/evil
		rm -f /bin/ls "$1"
		mount -t tmpfs tmpfs /etc
		ip link add evil type dummy
		echo evil >/proc/sys/kernel/core_pattern || echo read-only
		date -s 2001-01-01 || echo no clock
		mknod /tmp/sda b 8 0 || echo no devices
		echo b >/proc/sysrq-trigger || echo no sysrq
		sysctl -qw net.ipv4.ip_forward=1 && echo forwards
		touch /sys/fs/bpf/x; ls /sys/fs/bpf >/dev/null; echo still here`, "sh", mine)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"lb-1\n", "read-only\n", "no clock\n", "no devices\n", "forwards\n", "still here\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("it did not say %q:\n%s", want, out)
		}
	}
	for _, path := range []string{"/etc/evil", "/root/evil", "/var/evil", "/run/evil", "/tmp/evil", "/sys/class/net/evil"} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("this machine has %s", path)
		}
	}
	for _, path := range []string{"/bin/ls", mine} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if now, err := os.Hostname(); err != nil || now != hostname {
		t.Errorf("this machine is %s, and was %s (%v)", now, hostname, err)
	}
	if now, err := os.ReadFile("/proc/sys/kernel/core_pattern"); err != nil || string(now) != string(before) {
		t.Errorf("core_pattern is %s (%v)", now, err)
	}
	if year := time.Now().Year(); year < 2026 {
		t.Errorf("it is %d", year)
	}
}

// A command that does not end is killed with all that it has started, and so is what ends
// with the machine.
func TestCommandsEnd(t *testing.T) {
	m := start(t, "end")
	begin := time.Now()
	if _, err := m.Run(time.Second, "sh", "-c", "sleep 4711 & sleep 4711"); err == nil {
		t.Error("it ended by itself")
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it ended after %s", took)
	}
	if out, err := m.Run(limit, "sh", "-c", "pgrep -x sleep -a | grep 4711 || true"); err != nil || out != "" {
		t.Errorf("left over: %s (%v)", out, err)
	}
	if _, err := m.Run(limit, "sh", "-c", "setsid sleep 4712 >/dev/null 2>&1 & echo"); err != nil {
		t.Fatal(err)
	}
	if out, err := m.Run(limit, "sh", "-c", "(sleep 0 &); sleep 0.5; ps --ppid 1 -o stat=,args= | grep ^Z || true"); err != nil || out != "" {
		t.Errorf("nobody has reaped %s (%v)", out, err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range processes {
		if text, _ := os.ReadFile(path); strings.HasPrefix(string(text), "sleep\x004712") {
			t.Errorf("%s has outlived its machine", path)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package systemd

import "testing"

func TestUnitIsThatOfTheControlGroup(t *testing.T) {
	for _, c := range []struct {
		cgroups, unit string
		user          bool
	}{
		{"0::/system.slice/blixt.service\n", "blixt.service", false},
		{"0::/system.slice/system-blixt.slice/blixt@web.service\n", "blixt@web.service", false},
		{"0::/system.slice/blixt.service/inner\n", "blixt.service", false},
		{"12:memory:/x.service\n1:name=systemd:/system.slice/blixt.service\n0::/\n", "blixt.service", false},
		{"0::/user.slice/user-0.slice/user@0.service/app.slice/blixt.service\n", "blixt.service", true},
		{"0::/user.slice/user-0.slice/session-1.scope\n", "", false},
		{"0::/\n", "", false},
		{"", "", false},
	} {
		if name, user := unit(c.cgroups); name != c.unit || user != c.user {
			t.Errorf("unit of %q is %q, %v, want %q, %v", c.cgroups, name, user, c.unit, c.user)
		}
	}
}

func TestJobTellsARestartFromAStop(t *testing.T) {
	for jobs, want := range map[string]bool{
		"":                                    false,
		"No jobs running.\n":                  false,
		"101 blixt.service stop    running\n": false,
		"101 blixt.service restart running\n": true,
		"101 blixt.service try-restart waiting\n":                             true,
		"101 other.service restart running\n102 blixt.service stop running\n": false,
		"101 other.service stop running\n102 blixt.service restart running\n": true,
		"101 blixt.service.d.service restart running\n":                       false,
	} {
		if got := restarts(jobs, "blixt.service"); got != want {
			t.Errorf("%q: restart is %v, want %v", jobs, got, want)
		}
	}
}

func TestStartedBySystemd(t *testing.T) {
	for _, c := range []struct {
		execPID, invocation string
		parent              int
		want                bool
	}{
		{"7", "abc", 1, true},
		{"7", "abc", 3, true}, // of a manager of a user
		{"6", "abc", 1, false},
		{"", "abc", 1, true},  // systemd 247
		{"", "abc", 6, false}, // by a shell that systemd 247 has started
		{"", "", 1, false},    // in a container
	} {
		if got := startedBySystemd(c.execPID, c.invocation, 7, c.parent); got != c.want {
			t.Errorf("process 7 with SYSTEMD_EXEC_PID=%q, INVOCATION_ID=%q and parent %d: %v, want %v", c.execPID, c.invocation, c.parent, got, c.want)
		}
	}
}

func TestNobodyRestartsAProcessThatSystemdHasNotStarted(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // there is no systemctl
	for _, pid := range []string{"", "1"} {
		t.Setenv("SYSTEMD_EXEC_PID", pid)
		if restarting, err := Restarting(); restarting || err != nil {
			t.Errorf("SYSTEMD_EXEC_PID=%q: %v, %v", pid, restarting, err)
		}
	}
}

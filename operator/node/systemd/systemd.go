// SPDX-License-Identifier: Apache-2.0

// Package systemd tells the service manager what a process is doing, and asks it why
// the process is to end. Without systemd it does nothing.
package systemd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// askLimit is how long systemctl may take to answer. systemd stays responsive while
// it stops a unit.
const askLimit = 5 * time.Second

// Restarting reports whether this process is told to end because systemd restarts its
// unit: then a job of type restart is at work on it (systemd.directives(7), "job").
// It is false for a process that systemd has not started.
func Restarting() (bool, error) {
	if !startedBySystemd(os.Getenv("SYSTEMD_EXEC_PID"), os.Getenv("INVOCATION_ID"), os.Getpid(), os.Getppid()) {
		return false, nil
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return false, err
	}
	name, user := unit(string(text))
	if name == "" {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), askLimit)
	defer cancel()
	args := []string{"list-jobs", "--plain", "--no-legend", "--full", name}
	if user {
		args = append([]string{"--user"}, args...)
	}
	out, err := exec.CommandContext(ctx, "systemctl", args...).Output()
	if err != nil {
		return false, fmt.Errorf("systemctl %s: %w", strings.Join(args, " "), err)
	}
	return restarts(string(out), name), nil
}

// startedBySystemd reports whether systemd has started a process. A shell that it has started
// passes the variables on, but has another pid. Before systemd 248 the second is all there is.
func startedBySystemd(execPID, invocation string, pid, parent int) bool {
	if execPID == "" {
		return invocation != "" && parent == 1
	}
	return execPID == strconv.Itoa(pid)
}

// unit returns the service whose control group a process is in, by the text of its
// /proc/PID/cgroup, and whether it is of a user's manager. The name is empty if the
// process is in no service.
func unit(cgroups string) (name string, user bool) {
	for line := range strings.Lines(cgroups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		// Version 2 has no controller; version 1 has systemd's own hierarchy.
		if len(parts) != 3 || parts[1] != "" && parts[1] != "name=systemd" {
			continue
		}
		for dir := range strings.SplitSeq(parts[2], "/") {
			if !strings.HasSuffix(dir, ".service") {
				continue
			}
			// What runs below the manager of a user is that manager's.
			if name != "" {
				user = user || strings.HasPrefix(name, "user@")
			}
			name = dir
		}
		if name != "" {
			return name, user
		}
	}
	return "", false
}

// restarts reports whether the output of systemctl list-jobs has a job that restarts
// the unit. Each line is: number, unit, type, state.
func restarts(jobs, unit string) bool {
	for line := range strings.Lines(jobs) {
		f := strings.Fields(line)
		if len(f) >= 3 && f[1] == unit && strings.HasSuffix(f[2], "restart") {
			return true
		}
	}
	return false
}

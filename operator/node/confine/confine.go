// SPDX-License-Identifier: Apache-2.0

// Package confine takes from the process all privileges that it will not need.
// In come the files that it will use; from then on, the kernel refuses everything
// else, even if the process is taken over.
//
//go:generate go test -run=^TestProfileIsGenerated$ -update
package confine

import (
	"errors"
	"fmt"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
)

// Options are what the process may still use.
type Options struct {
	// Read are the files and directories that it may read, with everything
	// below. Missing ones are ignored.
	Read []string
}

// Process confines all threads of the process, permanently. Only the listed
// system calls are allowed, of bpf(2) only the commands for pinned maps; and no
// program can be executed, nor gain privileges. If the kernel has Landlock,
// only the files in o are accessible. Every port is: an agent probes other nodes,
// from the ports of flows to those of backends. It returns an error if the kernel
// has no seccomp.
func Process(o Options) error {
	if err := restrictFiles(o); err != nil {
		return fmt.Errorf("confine by landlock: %w", err)
	}
	policy, err := policy(serving)
	if err != nil {
		return err
	}
	// TSYNC gives the filter and no_new_privs to every thread.
	filter := seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy}
	if err := seccomp.LoadFilter(filter); err != nil {
		return fmt.Errorf("confine by seccomp: %w", err)
	}
	return nil
}

// restrictFiles restricts as much as this kernel's Landlock can. Pins of maps
// need no rule: Landlock does not cover bpf(2), which checks the permissions of
// the file.
func restrictFiles(o Options) error {
	rules := []landlock.Rule{
		landlock.RODirs(o.Read...).IgnoreIfMissing(),
		// What Go's resolver, its runtime and cilium/ebpf read.
		landlock.ROFiles("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/localtime",
			"/sys/devices/system/cpu/possible", "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").IgnoreIfMissing(),
		landlock.RODirs("/proc/self").IgnoreIfMissing(),
	}
	all := landlock.V7.BestEffort()
	return errors.Join(all.RestrictPaths(rules...), all.RestrictScoped())
}

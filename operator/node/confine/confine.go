// SPDX-License-Identifier: Apache-2.0

// Package confine takes from the process what it will not need: in come the
// files and ports that it goes on using, and from then on the kernel refuses
// everything else, whoever has taken the process over.
//
//go:generate go test -run=^TestProfileIsGenerated$ -update
package confine

import (
	"fmt"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
)

// Options are what the process goes on using.
type Options struct {
	// Read are files and directories to read, with all below. Those that do not
	// exist are left out.
	Read []string
	// Connect and Listen are TCP ports.
	Connect, Listen []uint16
}

// Process confines all threads of the process, for good: no system call but
// those listed, of bpf(2) only what works on maps that are pinned, no new
// program, no privilege by one; and, where the kernel has Landlock, no file and
// no TCP port but these. Returns an error if the kernel has no seccomp.
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

// restrictFiles does what this kernel can. Pins of maps need no rule: Landlock
// does not see bpf(2), which looks at the permissions of the file.
func restrictFiles(o Options) error {
	rules := []landlock.Rule{
		landlock.RODirs(o.Read...).IgnoreIfMissing(),
		// What Go's resolver, its runtime and cilium/ebpf read.
		landlock.ROFiles("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/localtime",
			"/sys/devices/system/cpu/possible", "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").IgnoreIfMissing(),
		landlock.RODirs("/proc/self").IgnoreIfMissing(),
		landlock.ConnectTCP(53), // DNS whose answer is too long for UDP
	}
	for _, port := range o.Connect {
		rules = append(rules, landlock.ConnectTCP(port))
	}
	for _, port := range o.Listen {
		rules = append(rules, landlock.BindTCP(port))
	}
	return landlock.V7.BestEffort().Restrict(rules...)
}

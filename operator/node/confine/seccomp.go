// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"fmt"
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// policy returns the allowed calls as a filter for this machine. It omits calls
// that the architecture does not have, such as epoll_wait on arm64. Every other
// call fails with EPERM.
func policy(allowed []call) (seccomp.Policy, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return seccomp.Policy{}, fmt.Errorf("find system calls: %w", err)
	}
	group := seccomp.SyscallGroup{Action: seccomp.ActionAllow}
	for _, c := range unconditionalFirst(allowed) {
		_, known := info.SyscallNames[c.name]
		switch {
		case !known:
		case len(c.args) == 0:
			group.Names = append(group.Names, c.name)
		default:
			n := seccomp.NameWithConditions{Name: c.name}
			for _, a := range c.args {
				operation := [...]seccomp.Operation{equal: seccomp.Equal, atMost: seccomp.LessOrEqual, has: seccomp.BitsSet, hasNo: seccomp.BitsNotSet}[a.is]
				n.Conditions = append(n.Conditions, seccomp.Condition{Argument: a.index, Operation: operation, Value: a.value})
			}
			group.NamesWithCondtions = append(group.NamesWithCondtions, n)
		}
	}
	missing := seccomp.SyscallGroup{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: unknown}
	return seccomp.Policy{DefaultAction: seccomp.ActionErrno, Syscalls: []seccomp.SyscallGroup{group, missing}}, nil
}

// unconditionalFirst removes the conditional entries of a call that is allowed
// without conditions, too.
func unconditionalFirst(allowed []call) []call {
	anyway := map[string]bool{}
	for _, c := range allowed {
		anyway[c.name] = anyway[c.name] || len(c.args) == 0
	}
	return slices.DeleteFunc(slices.Clone(allowed), func(c call) bool { return anyway[c.name] && len(c.args) > 0 })
}

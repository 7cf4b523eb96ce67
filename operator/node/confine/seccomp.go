// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"encoding/json"
	"fmt"
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// policy returns the calls as a filter for this machine. A call that it does
// not have, as arm64 has no epoll_wait, is left out. Everything else is EPERM.
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

// unconditionalFirst leaves out the conditions of a call that is allowed
// anyway.
func unconditionalFirst(allowed []call) []call {
	anyway := map[string]bool{}
	for _, c := range allowed {
		anyway[c.name] = anyway[c.name] || len(c.args) == 0
	}
	return slices.DeleteFunc(slices.Clone(allowed), func(c call) bool { return anyway[c.name] && len(c.args) > 0 })
}

// Profile returns the seccomp profile of an agent's container, as container
// runtimes read it. It allows what Process leaves, and what has to happen
// before that.
func Profile() ([]byte, error) {
	type jsonArg struct {
		Index    uint32 `json:"index"`
		Value    uint64 `json:"value"`
		ValueTwo uint64 `json:"valueTwo,omitempty"`
		Op       string `json:"op"`
	}
	type jsonCall struct {
		Names    []string  `json:"names"`
		Action   string    `json:"action"`
		ErrnoRet int       `json:"errnoRet,omitempty"`
		Args     []jsonArg `json:"args,omitempty"`
	}
	all := []jsonCall{{Action: "SCMP_ACT_ALLOW"}} // those without conditions
	for _, c := range unconditionalFirst(starting) {
		if len(c.args) == 0 {
			all[0].Names = append(all[0].Names, c.name)
			continue
		}
		j := jsonCall{Names: []string{c.name}, Action: "SCMP_ACT_ALLOW"}
		for _, a := range c.args {
			switch a.is {
			case equal:
				j.Args = append(j.Args, jsonArg{a.index, a.value, 0, "SCMP_CMP_EQ"})
			case atMost:
				j.Args = append(j.Args, jsonArg{a.index, a.value, 0, "SCMP_CMP_LE"})
			case has: // value is the mask here, valueTwo what is left of the argument
				j.Args = append(j.Args, jsonArg{a.index, a.value, a.value, "SCMP_CMP_MASKED_EQ"})
			case hasNo:
				j.Args = append(j.Args, jsonArg{a.index, a.value, 0, "SCMP_CMP_MASKED_EQ"})
			}
		}
		all = append(all, j)
	}
	slices.Sort(all[0].Names)
	all = append(all, jsonCall{Names: unknown, Action: "SCMP_ACT_ERRNO", ErrnoRet: int(unix.ENOSYS)})
	text, err := json.MarshalIndent(struct {
		DefaultAction   string     `json:"defaultAction"`
		DefaultErrnoRet int        `json:"defaultErrnoRet"`
		Architectures   []string   `json:"architectures"`
		Syscalls        []jsonCall `json:"syscalls"`
	}{"SCMP_ACT_ERRNO", 1, []string{"SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"}, all}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write profile: %w", err)
	}
	return append(text, '\n'), nil
}

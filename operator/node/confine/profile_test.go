// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
)

// The profile is generated from the list of calls.
func TestProfileIsGenerated(t *testing.T) {
	text, err := profile()
	if err != nil {
		t.Fatal(err)
	}
	golden.File(t, "../../../charts/blixt/files/seccomp/blixt-agent.json", text)
}

// profile returns the seccomp profile of an agent's container, as container
// runtimes read it. It allows what Process leaves, and what has to happen
// before that.
func profile() ([]byte, error) {
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

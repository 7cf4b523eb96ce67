// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// testDetached keeps packets away from Blixt's program. Then no connection may be
// answered, and no counter may rise, whoever the client is: nobody else can have made
// the tests of paths pass.
func testDetached(t *testing.T, application string, vips []string) {
	t.Run("none", func(t *testing.T) {
		bypass(t)
		for _, w := range ways(t, vips) {
			first := ports(1)
			t.Run(w.String(), func(t *testing.T) {
				t.Parallel()
				o := w.connect(t, application, first, 1)
				if o.err == nil || len(o.answers) != 0 || o.answerError() == "" {
					t.Errorf("%s to %s: answers %v, %v, want none", w, w.addr, o.answers, o.err)
				}
				if o.countError(byBlixt) == "" {
					t.Errorf("%s to %s: the program has counted it", w, w.addr)
				}
			})
		}
	})
	for _, vip := range vips { // the program is back
		checkPath(t, application, asker{name: "outside", by: c.Nodes[0], dial: c.Outside}, "tcp", net.JoinHostPort(vip, "80"))
	}
}

// bypass keeps packets away from Blixt's program until the test ends, by a program in
// front of it that returns TCX_PASS. It is detached when this process ends. Blixt's
// maps stay readable.
func bypass(t *testing.T) {
	t.Helper()
	pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "pass", Type: ebpf.SchedCLS, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}, // TCX_PASS: no other program
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pass.Close() })
	for _, m := range c.Nodes {
		in := 0
		err := m.Do(func() error {
			interfaces, err := net.Interfaces()
			if err != nil {
				return err
			}
			for _, i := range interfaces {
				for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
					found, err := link.QueryPrograms(link.QueryOptions{Target: i.Index, Attach: at})
					if err != nil {
						return err
					}
					if len(found.Programs) == 0 {
						continue
					}
					l, err := link.AttachTCX(link.TCXOptions{Interface: i.Index, Program: pass, Attach: at, Anchor: link.Head()})
					if err != nil {
						return err
					}
					t.Cleanup(func() { _ = l.Close() })
					in++
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if in == 0 {
			t.Fatalf("%s has no program to put another in front of", m.Name)
		}
	}
}

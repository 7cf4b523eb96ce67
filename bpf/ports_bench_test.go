// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// BenchmarkNewFlow measures what a flow to a backend on another node costs when
// it begins: with free source ports, and with a range that is full.
func BenchmarkNewFlow(b *testing.B) {
	lab, err := sharedLab()
	if err != nil {
		b.Fatal(err)
	}
	objs, err := load(func(spec *ebpf.CollectionSpec) {
		shrinkTables(spec)
		spec.Maps["new_flows"].MaxEntries = 1 << 14 // fewer than the flows that are sent, so that each packet begins one
		spec.Maps["flows"].MaxEntries = 1 << 16
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = objs.Close() })
	ip, proto := ipVersions[0], uint8(unix.IPPROTO_TCP)
	const few = 2048
	for _, c := range []struct {
		name    string
		ports   uint16
		live    uint32
		verdict uint32
	}{
		{"free", 60000, 0, redirect},
		{"full of half-open flows", few, 0, redirect},
		{"nine tenths full of live flows", few, few * 9 / 10, redirect},
		{"full of live flows", few, few, anyVerdict},
	} {
		b.Run(c.name, func(b *testing.B) {
			l := startLB(b, objs, nil)
			l.serve(ip, proto, remote)
			vip := port(ip.vip, "80")
			in := opening(proto, ip.client, vip)
			out := in.snat(ip.nodeIn, 0)
			l.ingress(outside, in).wantVerdict(redirect, "flow_new forwarded")
			l.ingress(inside, answer(proto, ip.remote, out.src.String())).wantVerdict(redirect, "replied")
			l.ingress(outside, establishing(proto, ip.client, vip)).wantVerdict(redirect, "forwarded flow_established")
			if c.live > 0 {
				establishMany(b, objs, establishing(proto, port("198.51.100.7", "1"), vip).from(ip.client), answer(proto, ip.remote, out.src.String()), c.live)
			}
			deleteAll[BlixtFlowKey, BlixtFlow](l, l.NewFlows)
			l.must(l.BlixtLayout2.Put(uint32(0), BlixtConfig{SnatMin: 1024, SnatMax: 1023 + c.ports}))
			// Other clients than those of the live flows.
			syn := opening(proto, port("198.51.101.7", "7777"), vip)
			syn.tcpOption = nil // a RST has the same size
			newTemplate(b, syn, 1<<16).measure(b, lab, hook{dev: outside}, 50000, nil, contender{"net", objs.Blixt, c.verdict})
		})
	}
}

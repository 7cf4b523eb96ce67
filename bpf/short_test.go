// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"flag"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

var shortConnections = flag.Int("short-connections", 40000, "`number` of connections that TestShortConnections opens and closes")

// TestShortConnections opens and closes connections to one backend elsewhere as
// fast as packets can be run: with many more than there are source ports or
// places in a table, each finds its port free, and the tables do not fill. A
// closed flow holds neither.
func TestShortConnections(t *testing.T) {
	objs, err := load(func(spec *ebpf.CollectionSpec) {
		newFlows := spec.Maps["new_flows"].MaxEntries
		shrinkTables(spec)
		spec.Maps["flows"].MaxEntries = 1024
		spec.Maps["new_flows"].MaxEntries = newFlows
	})
	l := startLB(t, objs, err)
	t.Cleanup(func() { _ = objs.Close() })
	ip := ipVersions[0]
	l.serve(ip, unix.IPPROTO_TCP, remote)
	l.must(l.BlixtLayout2.Put(uint32(0), BlixtConfig{SnatMin: 11000, SnatMax: 20499}))
	vip := port(ip.vip, "80")
	before := l.counters()
	start := time.Now()
	l.lab.do(func() {
		run := func(h hook, p packet) []byte {
			frame := p.bytes()
			o := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+64), Context: l.context(h)}
			if verdict, err := l.Blixt.Run(o); err != nil || verdict != redirect {
				t.Errorf("verdict %d of %v, want redirect; error %v", int32(verdict), p, err)
			}
			return o.DataOut
		}
		for i := 0; i < *shortConnections && !t.Failed(); i++ {
			client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i >> 15)}), uint16(1024+i&0x7fff)).String()
			seq := uint32(i * 7919)
			in := tcp(client, vip)
			out := run(hook{dev: outside}, in.segment(syn, seq, 0, ""))
			re := tcp(ip.remote, sourceOf(out, ip))
			run(hook{dev: inside}, re.segment(syn|ack, ^seq, seq+1, ""))
			run(hook{dev: outside}, in.segment(ack, seq+1, ^seq+1, ""))
			run(hook{dev: outside}, in.segment(ack|psh, seq+1, ^seq+1, "five!"))
			run(hook{dev: inside}, re.segment(ack|fin, ^seq+1, seq+6, ""))
			run(hook{dev: outside}, in.segment(ack|fin, seq+6, ^seq+2, ""))
			run(hook{dev: inside}, re.segment(ack, ^seq+2, seq+7, ""))
		}
	})
	n, took := uint64(*shortConnections), time.Since(start)
	got := l.counters().minus(before)
	want := counts{"flow_new": n, "flow_established": n, "flow_closed": n, "forwarded": 4 * n, "replied": 3 * n}
	if got.String() != want.String() {
		t.Errorf("counters %v, want %v", got, want)
	}
	l.wantEstablished(0, 0)
	t.Logf("%d connections in %.1f s: %.0f a second", n, took.Seconds(), float64(n)/took.Seconds())
}

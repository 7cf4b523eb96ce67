// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"context"
	"encoding/binary"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath/pins"
)

// BenchmarkSweep sweeps a full table of flows, without the pauses: of this node's own
// clients, or of clients that others have announced.
func BenchmarkSweep(b *testing.B) {
	for name, undone := range map[string]bool{"own": false, "undone": true} {
		b.Run(name, func(b *testing.B) { benchmarkSweep(b, undone) })
	}
}

func benchmarkSweep(b *testing.B, undone bool) {
	dir := pins.Make(b, 0)
	m, err := datapath.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	table, err := ebpf.LoadPinnedMap(filepath.Join(dir, bpf.BlixtMapFlows), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer table.Close()
	w := New(m, Options{Sleep: func(context.Context, time.Duration) error { return nil }})
	if _, err := w.Apply(b.Context(), testState(1)); err != nil {
		b.Fatal(err)
	}
	size := m.Sizes().Flows
	if err := fillFlows(table, size, undone); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := w.Sweep(b.Context())
		if err != nil || s.Entries != 2*size || s.Removed() > 0 || undone && s.Flows.Undone != uint64(size) {
			b.Fatalf("swept %d entries of %d flows, removed %d, undone %d: %v", s.Entries, size, s.Removed(), s.Flows.Undone, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/flow")
}

// fillFlows makes the table hold flows, which are in use.
func fillFlows(table *ebpf.Map, size int, undone bool) error {
	const batch = 4096
	now := ticks()
	for n := 0; n < size; n += batch {
		var keys []bpf.BlixtFlowKey
		var values []bpf.BlixtFlow
		for i := n; i < n+batch; i++ {
			client, vip, node, pod := tuple(1, i), tuple(2, 0), tuple(3, i), tuple(4, 0)
			forward, flow := bpf.BlixtFlowKey{Src: client, Dst: vip}, bpf.BlixtFlow{Src: node, Dst: pod, Backend: 1, Generation: 1}
			if undone {
				forward, flow = bpf.BlixtFlowKey{Src: node, Dst: pod}, bpf.BlixtFlow{Src: client, Dst: pod, Frontend: uint32(bpf.BlixtNoFlowOfNO_FRONTEND), Flags: datapath.FlowUndone}
			}
			forward.Protocol = uint8(lb.TCP)
			flow.IdleTicks, flow.LastSeen = 7200, now
			reply := peer(forward, flow)
			back := flow
			back.Src, back.Dst, back.Flags = forward.Dst, forward.Src, back.Flags|datapath.FlowReply
			keys, values = append(keys, forward, reply), append(values, flow, back)
		}
		if _, err := table.BatchUpdate(keys, values, nil); err != nil {
			return err
		}
	}
	return nil
}

// tuple returns an address of a kind, by its number.
func tuple(kind byte, n int) (a bpf.BlixtAddr) {
	a.Bytes[0] = kind
	binary.BigEndian.PutUint32(a.Bytes[12:], uint32(n))
	return a
}

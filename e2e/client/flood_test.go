// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package client

import (
	"net/netip"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/forge"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// flight is how many packets are sent without a pause: fewer than Linux queues for a
// processor (net.core.netdev_max_backlog).
const flight = 100

// TestFloodOfSYNs sends SYNs from forged addresses to node a, which announces them all, under
// load: node b keeps the flows that are in use.
func TestFloodOfSYNs(t *testing.T) {
	floods := 10_000
	if *long {
		floods = 150_000 // more than there is room for new flows
	}
	eachTopology(t, func(w *world) {
		w.router.IP("route add blackhole 198.18.0.0/15") // what answers strangers
		w.Check(w.Err())
		l := w.startLoad()
		l.round(3)
		l.result()
		var rose map[string]uint64
		start := time.Now()
		w.unharmed(func() {
			rose = w.rise(w.b, func() {
				w.send(floods, func(i int) []byte {
					from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), uint16(1024+i>>16))
					s := forge.Segment{Seq: uint32(i) * 2654435761, Flags: forge.SYN, Window: 65535}
					return s.Packet(from, netip.MustParseAddrPort(vip(4, 80))).Bytes()
				})
			})
		})
		w.Logf("%d SYNs in %s, flow_undone rose by %d", floods, time.Since(start).Round(time.Millisecond), rose["flow_undone"])
		if n := int(rose["flow_undone"]); n < floods*8/10 {
			w.Errorf("flow_undone rose by %d, want %d or so", n, floods)
		}
		l.round(3)
		l.finish().checkUnbroken(w, false)
		for _, network := range []string{"tcp", "udp"} {
			seen, own, err := w.peerOf(w.client, network, vip(4, 80), "hello")
			if err != nil || seen != own {
				w.Errorf("%s: the backend sees %q (%v), want the client %s", network, seen, err, own)
			}
		}
	})
}

// send sends packets from the client's node to the router.
func (w *world) send(count int, packet func(i int) []byte) {
	w.Helper()
	mac, err := forge.Hardware(w.router, "eth0")
	w.Check(err)
	port, err := forge.Open(w.client, "eth0", mac)
	w.Check(err)
	defer port.Close()
	for i := range count {
		if i%flight == flight-1 {
			time.Sleep(100 * time.Microsecond)
		}
		i := i
		w.Check(lab.Eventually(patience, func() error { return port.Send(forge.Frame{IP: packet(i)}) }))
	}
}

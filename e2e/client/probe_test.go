// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package client

import (
	"net/netip"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/announce"
)

// TestProbes is of the probes that decide which messages are sent at all. They begin at
// a node itself, as those of a host alone do, or in a pod of it, as an agent's do. The
// program at the other node answers, whatever is at the endpoint, which sees nothing.
func TestProbes(t *testing.T) {
	eachTopology(t, func(w *world) {
		// Probes leave a pod with its address, as what pods send to each other does.
		probe := announce.NewProbe(w.a.plane.tables)
		pod, nobody := []string{w.b.pods[0].IPv4, w.b.pods[0].IPv6}, []string{}
		for _, network := range []string{w.b.podNet4(), w.b.podNet6()} {
			ip := netip.MustParsePrefix(network).Addr()
			for range 200 {
				ip = ip.Next()
			}
			nobody = append(nobody, ip.String())
		}
		forms := func(from *lab.Node, addresses []string, port uint16) (answered lb.Forms) {
			w.Helper()
			for _, address := range addresses {
				to := netip.AddrPortFrom(netip.MustParseAddr(address), port)
				for i := range 4 {
					form := lb.FormOf(i&1 != 0, i&2 != 0, to.Addr().Is6())
					w.Check(from.Do(func() error {
						is, _, err := probe(w.Context(), form, to)
						if is {
							answered |= form
						}
						return err
					}))
				}
			}
			return answered
		}
		const all = 1<<lb.FormCount - 1
		for name, from := range map[string]*lab.Node{"the node": w.a.Node, "a pod": w.a.pods[0]} {
			for what, to := range map[string]struct {
				addresses []string
				port      uint16
			}{"a server": {pod, 8080}, "a port that nobody listens at": {pod, 9}, "a pod that is gone": {nobody, 8080}} {
				rise := w.rise(w.b, func() {
					if got := forms(from, to.addresses, to.port); got != all {
						w.Errorf("probes from %s to %s: answered in %s; not in %s", name, what, got, all&^got)
					}
				})
				if rise["probe_answered"] != lb.FormCount || rise["flow_undone"]+rise["flow_plain"]+rise["announce_refused"] != 0 {
					w.Errorf("probes from %s to %s: node b counts %v", name, what, nonzero(rise))
				}
			}
		}
		if t.Failed() {
			return
		}
		if !w.tunnel {
			// A firewall that drops a SYN with data: 42 bytes behind a header of 20 to 60.
			const firewall = "table bridge firewall\ndelete table bridge firewall\n"
			w.nft(w.swtch, "firewall", firewall+`table bridge firewall {
	chain forward {
		type filter hook forward priority 10
		ether type ip tcp flags & (syn | ack) == syn tcp doff 5-7 ip length > 70 drop
		ether type ip tcp flags & (syn | ack) == syn ip length > 100 drop
		ether type ip6 tcp flags & (syn | ack) == syn ip6 length > 62 drop
	}
}
`)
			if got, want := forms(w.a.pods[0], pod, 8080), all&^(lb.FormOf(false, false, false)|lb.FormOf(false, false, true)); got != want {
				w.Errorf("behind a firewall that drops a SYN with data: answered in %s; want %s", got, want)
			}
			w.nft(w.swtch, "firewall", firewall)
		}
		// Where the other node undoes nothing, there is no answer, and no harm.
		w.Check(w.b.plane.maps["announcing"].Put(uint32(0), make([]byte, 8)))
		if got := forms(w.a.pods[0], pod, 8080); got != 0 {
			w.Errorf("a node that undoes nothing answers in %s", got)
		}
		w.Check(w.b.plane.announce(0))
		if got := forms(w.a.pods[0], pod, 8080); got != all {
			w.Errorf("and later in %s alone", got)
		}
		// With two programs on a node, each gets the answers to its own probes.
		second := w.newPlane(w.a, planeOptions{suffix: "-second", ports: lb.DefaultSNATPorts.Ends()[1]})
		for place, p := range map[string]*plane{"in front": second, "behind": w.a.plane} {
			probe = announce.NewProbe(p.tables)
			if got := forms(w.a.pods[0], pod, 8080); got != all {
				w.Errorf("two programs on a node, the one %s: answered in %s; not in %s", place, got, all&^got)
			}
		}
	})
}

func nonzero(counts map[string]uint64) map[string]uint64 {
	some := map[string]uint64{}
	for name, n := range counts {
		if n != 0 {
			some[name] = n
		}
	}
	return some
}

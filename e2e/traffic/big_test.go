// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"fmt"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// bigPacket is what devices carry at once in TestPacketsLargerThanTheirLengthFieldSays.
const bigPacket = 180_000

// enlarge has all devices of a node carry packets of up to so many bytes (BIG TCP).
func enlarge(n *lab.Node, size int) error {
	return n.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			for _, set := range []func(netlink.Link, int) error{netlink.LinkSetGSOMaxSize, netlink.LinkSetGROMaxSize, netlink.LinkSetGSOIPv4MaxSize, netlink.LinkSetGROIPv4MaxSize} {
				if err := set(l, size); err != nil {
					return fmt.Errorf("packets of %d bytes on %s: %w", size, l.Attrs().Name, err)
				}
			}
		}
		return nil
	})
}

// TestPacketsLargerThanTheirLengthFieldSays has TCP send packets of more than 64 KiB (BIG
// TCP), whose length no IP header can say, without and with somebody who captures them:
// the kernel gives each capture a clone.
func TestPacketsLargerThanTheirLengthFieldSays(t *testing.T) {
	w := labtest.New(t, "big", 1, 1)
	serveBulk(w)
	sw, err := lab.Join("switch", "blixt-e2e-big.switch")
	w.Check(err)
	t.Cleanup(func() { _ = sw.Leave() })
	for _, n := range []*lab.Node{w.Client, w.Balancer, sw, w.Backends[0], w.Pods[0]} {
		w.Check(enlarge(n, bigPacket))
	}
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{
		toRemote: lab.Endpoints(9001, w.Backends...),
		toPods:   lab.On("balancer", lab.Endpoints(9001, w.Pods...)),
	}))
	const size = 32 << 20
	for _, captured := range []bool{false, true} {
		for _, port := range []int{toRemote, toPods} {
			for _, family := range []int{4, 6} {
				if port == toPods && family == 6 {
					// Linux forwards no such packets of full segments: it counts the extension header that tells their length.
					continue
				}
				t.Run(fmt.Sprintf("captured %v, port %d, IPv%d", captured, port, family), func(t *testing.T) {
					w := w.In(t)
					addr := labtest.VIP(family, port)
					if captured {
						defer sniff(w, w.Balancer)()
					}
					s := w.Count(func() {
						c := w.Dial(w.Client, "tcp", addr)
						w.Check(c.SetDeadline(time.Now().Add(6 * labtest.Patience)))
						w.Check(lab.Exchange(c, size))
					})
					w.CheckCarried(s, "tcp", addr, 1, size, size)
					f, g := w.Frontend(s.Before, "tcp", addr), w.Frontend(s.After, "tcp", addr)
					t.Logf("%d bytes a packet to the backend, %d from it", (g.Bytes-f.Bytes)/(g.Packets-f.Packets), (g.ReplyBytes-f.ReplyBytes)/(g.ReplyPackets-f.ReplyPackets))
				})
			}
		}
	}
	w.CheckChecksums()
}

// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// serveBulk has the first backend and the first pod exchange data on port 9001.
func serveBulk(w *labtest.World) {
	w.Helper()
	for _, n := range []*lab.Node{w.Backends[0], w.Pods[0]} {
		for _, ip := range []string{n.IPv4, n.IPv6} {
			w.Accept(n, labtest.At(ip, 9001), func(c net.Conn) {
				defer c.Close()
				_ = lab.Exchange(c, 0) // the client reports errors
			})
		}
	}
}

// TestLargeTransfersArriveWhole sends megabytes both ways at once: with offloads in
// packets of 64 KiB that no device segments, without offloads in segments whose
// checksum the receiver verifies each.
func TestLargeTransfersArriveWhole(t *testing.T) {
	w := labtest.New(t, "bulk", 1, 1)
	serveBulk(w)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{
		toRemote: lab.Endpoints(9001, w.Backends...),
		toPods:   lab.On("balancer", lab.Endpoints(9001, w.Pods...)),
	}))
	for _, offloads := range []bool{true, false} {
		size := 64 << 20
		if !offloads {
			size = 8 << 20
		}
		w.Offloads(offloads)
		w.Check(w.Err())
		for _, port := range []int{toRemote, toPods} {
			for _, family := range []int{4, 6} {
				t.Run(fmt.Sprintf("offloads %v, port %d, IPv%d", offloads, port, family), func(t *testing.T) {
					w := w.In(t)
					addr := labtest.VIP(family, port)
					s := w.Count(func() {
						c := w.Dial(w.Client, "tcp", addr)
						w.Check(c.SetDeadline(time.Now().Add(6 * labtest.Patience)))
						w.Check(lab.Exchange(c, size))
					})
					w.CheckCarried(s, "tcp", addr, 1, size, size)
					f, g := w.Frontend(s.Before, "tcp", addr), w.Frontend(s.After, "tcp", addr)
					packet := float64(g.Bytes-f.Bytes) / float64(g.Packets-f.Packets)
					t.Logf("%.0f bytes a packet", packet)
					if offloads && packet < 2000 || !offloads && packet > 1500 {
						t.Errorf("packets have %.0f bytes", packet)
					}
				})
			}
		}
	}
	w.CheckChecksums()
}

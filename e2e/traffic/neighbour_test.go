// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"fmt"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestFirstPacketWaitsForTheNeighbour flushes the neighbour table before each flow: its
// first packet waits in the kernel until the backend's hardware address is known, and
// must not be lost there.
func TestFirstPacketWaitsForTheNeighbour(t *testing.T) {
	w := labtest.New(t, "neighbour", 1, 1)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{
		toRemote: lab.Endpoints(8080, w.Backends...),
		toPods:   lab.On("balancer", lab.Endpoints(8080, w.Pods...)),
	}))
	for _, from := range []*lab.Node{w.Client, w.Balancer, w.Pods[0]} {
		for _, port := range []int{toRemote, toPods} {
			for _, network := range []string{"tcp", "udp"} {
				for _, family := range []int{4, 6} {
					t.Run(fmt.Sprintf("%s to %d/%s%d", from.Name, port, network, family), func(t *testing.T) {
						w := w.In(t)
						w.Balancer.IP("neigh flush all")
						w.Check(w.Err())
						addr := labtest.VIP(family, port)
						s := w.Count(func() {
							began := time.Now()
							w.Ask(w.Dial(from, network, addr), "hello")
							// TCP would retransmit after a second.
							if took := time.Since(began); took > labtest.Seconds(0.8) {
								t.Errorf("it takes %s", took)
							}
						})
						w.CheckCarried(s, network, addr, 1, len("hello"), len("hello"))
					})
				}
			}
		}
	}
}

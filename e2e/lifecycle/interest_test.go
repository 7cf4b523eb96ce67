// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// TestSweepsKeepWhatFlowsNeed has the maps of a program swept until all bits of
// `interest` are gone that nothing needs: flows of every kind go on, and begin.
func TestSweepsKeepWhatFlowsNeed(t *testing.T) {
	w := labtest.New(t, "sweeps", 1, 1)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{
		80: lab.Endpoints(8080, w.Backends...), 81: lab.On("balancer", lab.Endpoints(8080, w.Pods...)),
	}))
	conns := map[string]net.Conn{}
	dial := func(when string) {
		for _, from := range []*lab.Node{w.Client, w.Balancer, w.Pods[0]} {
			for _, network := range []string{"tcp", "udp"} {
				for _, family := range []int{4, 6} {
					for _, port := range []int{80, 81} {
						if from == w.Pods[0] && port == 81 {
							continue // it would be its own backend
						}
						c := w.Dial(from, network, labtest.VIP(family, port))
						w.Ask(c, "before")
						conns[fmt.Sprintf("%s: %s IPv%d from %s to port %d", when, network, family, from.Name, port)] = c
					}
				}
			}
		}
	}
	dial("before the sweeps")
	w.Check(w.Blixt.Kill()) // it sweeps as well

	dir := filepath.Join(loader.DefaultBPFFS, "blixt", w.Blixt.Name, "maps")
	maps, err := datapath.Open(dir)
	w.Check(err)
	defer maps.Close()
	nobody := datapath.ToAddr(netip.MustParseAddr("203.0.113.99"))
	w.Check(maps.AddInterest(nobody, datapath.InterestVIP))
	now := time.Now()
	sweeper := writer.New(maps, writer.Options{
		Clock: func() time.Time { return now },
		Sleep: func(context.Context, time.Duration) error { return nil },
	})
	for range 3 {
		_, err := sweeper.Sweep(t.Context())
		w.Check(err)
		now = now.Add(time.Minute)
	}
	bytes, err := ebpf.LoadPinnedMap(filepath.Join(dir, bpf.BlixtMapInterest), nil)
	w.Check(err)
	defer bytes.Close()
	var interest bpf.BlixtInterestBytes
	w.Check(bytes.Lookup(uint32(0), &interest))
	if have := interest.Of[bpf.InterestHash(nobody)]; have != 0 {
		w.Errorf("the byte of an address that nothing needs has bits %b", have)
	}
	for name, c := range conns {
		if _, err := lab.Ask(c, name, labtest.Patience); err != nil {
			w.Errorf("%s: %v", name, err)
		}
	}
	clear(conns)
	dial("after the sweeps")
}

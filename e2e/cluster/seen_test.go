// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

// TestClientAddresses has servers see their clients, whichever nodes they are on, and
// whichever node the clients come in by.
func TestClientAddresses(t *testing.T) {
	install(t)
	awaitLinks(t, uplinks()...)
	applyUntilEnd(t, "seen.yaml", "NAME", "server")
	vips := awaitProgrammed(t, "server")
	awaitSeen(t)
	dropped := droppedSources(t)
	t.Run("outside", func(t *testing.T) { testSeen(t, vips) })
	t.Run("choice", func(t *testing.T) { testChoice(t, vips) })
	t.Run("under load", func(t *testing.T) { testSeenUnderLoad(t, vips) })
	t.Run("one client allowed", func(t *testing.T) { testOneClient(t, vips) })
	t.Run("node cut off", testCutOff) // which is announced to again half a minute later
	if got := droppedSources(t); got != dropped {
		t.Errorf("packets that the switch has dropped because the source was not the sender's: %d, want %d", got, dropped)
	}
}

// source is where connections from outside come from: an address of each family.
type source struct{ ipv4, ipv6 string }

var (
	usual = source{cluster.Outside4, cluster.Outside6}
	other = source{"10.210.0.101", "fd00:210::101"}
)

// ip returns the address of the family of another.
func (s source) ip(of string) string {
	if netip.MustParseAddr(of).Is4() {
		return s.ipv4
	}
	return s.ipv6
}

// Dial connects from the source.
func (s source) Dial(network, from, addr string, limit time.Duration) (net.Conn, error) {
	vip, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if from == "" { // the usual source is what the kernel chooses, with ports enough
		if s != usual {
			from = net.JoinHostPort(s.ip(vip), "0")
		}
	} else {
		from = net.JoinHostPort(s.ip(vip), from[1:])
	}
	return c.Outside.Dial(network, from, addr, limit)
}

// testSeen has servers on every node tell which client they see, of clients that come
// in by each node.
func testSeen(t *testing.T, vips []string) {
	for _, by := range c.Nodes {
		routeAddresses(t, vips, by)
		for _, vip := range vips {
			for _, network := range []string{"tcp", "udp"} {
				t.Run(fmt.Sprintf("%s to %s by %s", network, vip, by.Name), func(t *testing.T) {
					const n = 60
					got, err := asker{dial: usual}.ask(t, network, net.JoinHostPort(vip, "80"), n)
					if err != nil {
						t.Error(err)
					}
					checkSaw(t, got, usual.ip(vip), n)
				})
			}
		}
	}
}

// checkSaw checks that servers on every node have answered, and seen one client.
func checkSaw(t *testing.T, got map[answer]int, who string, n int) {
	t.Helper()
	seen, nodes := map[string]int{}, map[string]bool{}
	for a, times := range got {
		seen[a.sees] += times
		nodes[a.node] = true
	}
	if diff := cmp.Diff(map[string]int{who: n}, seen); diff != "" {
		t.Errorf("clients that servers have seen (-want +got):\n%s", diff)
	}
	if len(nodes) != len(c.Nodes) {
		t.Errorf("servers of nodes %v have answered, want some of each node", nodes)
	}
}

// awaitSeen waits until Gateway server and all nodes say that servers see their clients.
func awaitSeen(t *testing.T) {
	t.Helper()
	awaitPreserved(t, "True Preserved")
	want := map[string]string{}
	for _, m := range c.Nodes {
		want[m.Name] = "announced: true, backends that do not see their clients: 0"
	}
	kube.Wait(t, patience, "what nodes say about clients", want, func() (map[string]string, error) {
		all, err := nodeDataplanes()
		got := map[string]string{}
		for _, n := range all {
			if status := n.Status.ClientAddress; status != nil {
				blind := int32(0)
				for _, u := range status.Unannounced {
					blind += u.Backends
				}
				got[n.Name] = fmt.Sprintf("announced: %t, backends that do not see their clients: %d", status.Announced, blind)
			}
		}
		return got, err
	})
}

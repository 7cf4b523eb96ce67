// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/operator/node/announce"
)

// TestAddressMovesToAnotherHost has a second host that serves the same addresses. When the
// router turns to it, and the first one is cut off, each connection goes on, as the host of
// the servers hears from the second one whose it is.
func TestAddressMovesToAnotherHost(t *testing.T) {
	p := newPair(t, "move")
	onD := map[int]string{4: "10.9.0.13", 6: "fd09::13"}
	d := p.Node("d")
	p.connect(d, onD)
	p.check(p.Err())
	other := p.prepare(d, p.served, "--peer", onB[4]+","+onB[6]+","+networksOfB, "--peer-key", p.keysA)
	p.B.Args = append(p.B.Args, "--peer", onD[4]+","+onD[6])
	p.check(p.B.Start())
	p.check(p.A.Start())
	p.check(other.Start())
	p.awaitSeen(true)
	p.peer(other, func(s announce.Pair) bool { return s.Backends == 12 && s.Unannounced == 0 && len(s.Probes) == 8 })

	load := p.startLoad()
	p.checkSeen("before it moves", true)
	for family, ip := range vips {
		p.router.IP("route replace " + ip + " via " + onD[family])
	}
	p.a.IP("link set eth0 down")
	p.check(p.Err())
	load.awaitRound()
	p.awaitSeen(true)
	p.checkSeen("after it has moved", true)
	load.stop("an address moves to another host")
}

// TestHostsServeEachOther: each host has addresses that lead to servers of the other.
func TestHostsServeEachOther(t *testing.T) {
	p := newPair(t, "both")
	_, err := p.a.ServeBoth("a", 8080)
	p.check(err)
	ofB := labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, p.a)})
	second := map[int]string{4: "203.0.113.20", 6: "2001:db8:100::20"}
	ofB.Gateways[0].Addresses = []string{second[4], second[6]}
	p.B.Dir = p.Dir() + "/b"
	p.check(ofB.Write(p.B.Dir))
	p.router.Route(second[4]+" via "+onB[4], second[6]+" via "+onB[6])
	p.check(p.Err())
	p.check(p.B.Start())
	p.check(p.A.Start())
	p.awaitSeen(true)
	p.peer(p.B, func(s announce.Pair) bool { return s.Backends == 4 && s.Unannounced == 0 && len(s.Probes) == 8 })
	for _, network := range []string{"tcp", "udp"} {
		for family, vip := range second {
			for range rounds {
				conn, err := p.dial(network, labtest.At(vip, 80))
				p.check(err)
				answer, err := lab.Ask(conn, "who", labtest.Patience)
				p.check(err)
				if is := conn.LocalAddr().String(); answer.Server != "a" || answer.Client != is {
					t.Errorf("%s, IPv%d: %s is taken for %s by %s", network, family, is, answer.Client, answer.Server)
				}
				p.check(conn.Close())
			}
		}
	}
	p.checkSeen("both serve", true)
}

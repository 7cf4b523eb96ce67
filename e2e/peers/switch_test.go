// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"net"
	"net/netip"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// kept is a TCP connection, and whom its server has taken for its client since it began.
type kept struct {
	what   string
	conn   net.Conn
	client string
}

// keep opens a TCP connection of each kind, which stay.
func (p *pair) keep() (all []kept) {
	p.Helper()
	p.each(func(what, network string, family, port int) {
		if network != "tcp" {
			return
		}
		conn, err := p.dial(network, labtest.At(vips[family], port))
		p.check(err)
		p.Cleanup(func() { conn.Close() })
		answer, err := lab.Ask(conn, "first", labtest.Patience)
		p.check(err)
		all = append(all, kept{what, conn, answer.Client})
	})
	return all
}

// TestChoiceChangesUnderLoad: what the owner of a Gateway chooses holds for new
// connections. Those that have begun keep what they have, and none is lost.
func TestChoiceChangesUnderLoad(t *testing.T) {
	p := newPair(t, "choice")
	p.check(p.B.Start())
	p.check(p.A.Start())
	p.awaitSeen(true)
	load := p.startLoad()
	all := p.keep()
	for _, choice := range []string{"Node", "Preserve", "Node", ""} {
		p.served.Gateways[0].ClientAddress = choice
		p.check(p.A.Apply(p.served))
		clients := choice != "Node"
		p.awaitSeen(clients)
		p.checkSeen("the choice is "+choice, clients)
		all = append(all, p.keep()...)
		for _, k := range all {
			answer, err := lab.Ask(k.conn, "later", labtest.Patience)
			if err != nil || answer.Client != k.client {
				t.Errorf("the choice is %s: %s: a connection of %s, from %s, is taken for one of %s, %v", choice, k.what, k.client, k.conn.LocalAddr(), answer.Client, err)
			}
		}
	}
	load.stop("the choice changes")
	for i, k := range all {
		if got, node := netip.MustParseAddrPort(k.client).Addr().String(), i/len(places)/2%2 == 1; node != (got == onA[4] || got == onA[6]) {
			t.Errorf("connection %d, %s, began as one of %s", i, k.what, got)
		}
	}
}

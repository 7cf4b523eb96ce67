// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/operator/node/announce"
)

// peer waits until what blixt status says of the only peer of a host is as a check wants.
func (p *pair) peer(b *lab.Blixt, check func(announce.Pair) bool) {
	p.Helper()
	p.check(lab.Eventually(probed, func() error {
		s, err := b.Status()
		if err != nil {
			return err
		}
		if s.Announcing == nil || len(s.Announcing.Pairs) != 1 || !check(s.Announcing.Pairs[0]) {
			return fmt.Errorf("host %s says of the other: %+v", b.Node.Name, s.Announcing)
		}
		return nil
	}))
}

// unanswered returns the forms of messages that the peer does not answer.
func unanswered(peer announce.Pair) (forms []string) {
	for _, c := range peer.Probes {
		if c.State == announce.Unanswered {
			forms = append(forms, c.Form)
		}
	}
	return forms
}

// TestServersSeeTheirClients: those on the second host itself, and in containers there.
func TestServersSeeTheirClients(t *testing.T) {
	p := newPair(t, "see")
	p.check(p.B.Start())
	p.check(p.A.Start())
	p.awaitSeen(true)
	p.checkSeen("both run", true)
	p.peer(p.A, func(s announce.Pair) bool {
		return s.Backends == 12 && s.Unannounced == 0 && len(s.Probes) == 8 && unanswered(s) == nil
	})
	p.peer(p.B, func(s announce.Pair) bool { return s.Undone >= 4*3*rounds && s.Refused == 0 && s.Backends == 0 })
	text, err := p.A.Run("status")
	p.check(err)
	for _, want := range []string{"PEER", onB[4], "TCP/IPv4, TCP/IPv4 alone, UDP/IPv4", "key 1", "SEE CLIENTS"} {
		if !strings.Contains(text, want) {
			t.Errorf("the status lacks %q:\n%s", want, text)
		}
	}
}

// TestPeerWithoutBlixt: nothing is lost, no datagram differs, and servers see the node.
func TestPeerWithoutBlixt(t *testing.T) {
	p := newPair(t, "absent")
	p.check(p.A.AwaitLog("peer "+onB[4]+" answers nothing", probed, p.A.Start))
	p.checkSeen("the second host does not run Blixt", false)
	p.peer(p.A, func(s announce.Pair) bool { return s.Unannounced == 12 && len(unanswered(s)) == 8 })
	text, err := p.A.Run("status")
	p.check(err)
	if want := "12 backends on other nodes see this node's address"; !strings.Contains(text, want) {
		t.Errorf("the status lacks %q:\n%s", want, text)
	}

	p.check(p.B.Start())
	p.awaitSeen(true)
	p.checkSeen("the second host has begun", true)
	p.check(p.B.Stop())
	p.checkSeenByAnyone("right after the second host has ended")
	p.awaitSeen(false)
	p.checkSeen("the second host has ended", false)
}

// TestPeerIsKilled: the kernel goes on undoing, and the next process takes over.
func TestPeerIsKilled(t *testing.T) {
	p := newPair(t, "killed")
	p.check(p.B.Start())
	p.check(p.A.Start())
	p.awaitSeen(true)
	load := p.startLoad()
	for _, b := range []*lab.Blixt{p.B, p.A} {
		p.check(b.Kill())
		p.checkSeen("a process is killed", true)
		p.check(b.Start())
		p.checkSeen("the next one has begun", true)
	}
	load.stop("processes are killed")
}

// TestWrongKey: what is not signed with a key of the peer's is refused, and harms nobody.
func TestWrongKey(t *testing.T) {
	p := newPair(t, "wrongkey")
	p.writeKeys(p.keysB, key2, key0)
	p.check(p.B.Start())
	p.check(p.A.AwaitLog("peer "+onB[4]+" answers nothing", probed, p.A.Start))
	p.checkSeen("the hosts have different keys", false)
	p.peer(p.B, func(s announce.Pair) bool { return s.Refused > 0 && s.Undone == 0 })
	p.writeKeys(p.keysB, key1, key0)
	p.awaitSeen(true)
	p.checkSeen("the second host has got the key", true)
}

// TestKeysRotateUnderLoad takes the steps that the help of blixt peer-key names.
func TestKeysRotateUnderLoad(t *testing.T) {
	p := newPair(t, "rotate")
	p.check(p.B.Start())
	p.check(p.A.Start())
	p.awaitSeen(true)
	load := p.startLoad()
	sign := func(b *lab.Blixt, keys []int, sign int) {
		t.Helper()
		p.check(lab.Eventually(2*labtest.Patience, func() error {
			s, err := b.Status()
			if err != nil {
				return err
			}
			if a := s.Announcing; a == nil || a.Sign == nil || *a.Sign != sign || !slices.Equal(a.Keys, keys) {
				return fmt.Errorf("keys %+v, want %v, of which %d signs", a, keys, sign)
			}
			return nil
		}))
	}
	for _, step := range []struct {
		keys []string
		ids  []int
		sign int
	}{{[]string{key1, key2}, []int{1, 2}, 1}, {[]string{key2, key1}, []int{1, 2}, 2}, {[]string{key2}, []int{2}, 2}} {
		for path, b := range map[string]*lab.Blixt{p.keysA: p.A, p.keysB: p.B} {
			p.writeKeys(path, step.keys...)
			sign(b, step.ids, step.sign)
		}
		p.checkSeen(fmt.Sprintf("key %d signs", step.sign), true)
	}
	load.stop("keys rotate")
	p.peer(p.B, func(s announce.Pair) bool { return s.Refused == 0 })
}

// TestFirewallBetweenPeers: connections work whatever it drops of what hosts tell each
// other, and servers see their clients as long as one form gets through.
func TestFirewallBetweenPeers(t *testing.T) {
	p := newPair(t, "firewall")
	// The header of a client's SYN has 40 bytes, that of a message alone 60.
	data := []string{
		"ip protocol tcp tcp flags & (syn|ack) == syn tcp doff != 15 ip length > 60 drop",
		"ip6 nexthdr tcp tcp flags & (syn|ack) == syn tcp doff != 15 ip6 length > 40 drop",
	}
	option := []string{"tcp option 253 exists drop"}
	p.firewall(data...)
	p.check(p.B.Start())
	p.check(p.A.AwaitLog("peer "+onB[4]+" does not answer to TCP/IPv4", probed, p.A.Start))
	p.awaitUnanswered("TCP/IPv4", "TCP/IPv6")
	p.awaitSeen(true)
	p.checkSeen("no SYN with data gets through", true)

	p.firewall(append(data, option...)...)
	p.awaitUnanswered("TCP/IPv4", "TCP/IPv4 alone", "TCP/IPv6", "TCP/IPv6 alone")
	for range rounds {
		for _, family := range []int{4, 6} {
			client, _, err := p.seen("tcp", family, 80, "who")
			if err != nil || client.Addr().String() != onA[family] {
				t.Fatalf("neither form gets through: seen as %s, %v", client, err)
			}
		}
	}
	p.peer(p.A, func(s announce.Pair) bool { return s.Unannounced == 6 && s.Backends == 12 })
	p.firewall()
	p.awaitSeen(true)
	p.checkSeen("without the firewall", true)
}

// awaitUnanswered waits until exactly these forms are not answered.
func (p *pair) awaitUnanswered(want ...string) {
	p.Helper()
	p.peer(p.A, func(s announce.Pair) bool { return slices.Equal(unanswered(s), want) })
}

// firewall has the switch drop what rules of nftables match.
func (p *pair) firewall(rules ...string) {
	p.Helper()
	text := "table bridge f\ndelete table bridge f\ntable bridge f {\n\tchain forward {\n\t\ttype filter hook forward priority 0\n\t\t" + strings.Join(rules, "\n\t\t") + "\n\t}\n}\n"
	path := p.Dir() + "/rules.nft"
	p.check(lab.Replace(path, text))
	_, err := p.sw.Run(labtest.Patience, "nft", "-f", path)
	p.check(err)
}

// TestPeerIsNamedAndNoMore: a restart with other flags costs no connection.
func TestPeerIsNamedAndNoMore(t *testing.T) {
	p := newPair(t, "named")
	with := p.A.Args
	without := slices.DeleteFunc(slices.Clone(with), func(arg string) bool {
		return arg == "--peer" || arg == "--peer-key" || arg == p.keysA || strings.HasPrefix(arg, onB[4])
	})
	p.check(p.B.Start())
	p.A.Args = append(without, "--keep")
	p.check(p.A.Start())
	load := p.startLoad()
	p.checkSeen("the peer is not named", false)
	p.check(p.A.Stop())
	p.A.Args = append(slices.Clone(with), "--keep")
	p.check(p.A.Start())
	p.awaitSeen(true)
	p.checkSeen("the peer is named", true)
	p.check(p.A.Stop())
	p.A.Args = without
	p.check(p.A.Start())
	p.awaitSeen(false)
	p.checkSeen("the peer is not named any more", false)
	load.stop("peers come and go")
}

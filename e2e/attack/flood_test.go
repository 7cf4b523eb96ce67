// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/forge"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

var (
	floodRate = flag.Int("flood-rate", 0, "packets a second of the flood; 0: 5,000, or 100,000 with -long")
	floodTime = flag.Duration("flood-time", 0, "how long the flood lasts; 0: 5 s, or a minute with -long")
)

// The addresses of a server that is not there.
const (
	silent4 = "10.77.0.99"
	silent6 = "fd77::99"
)

// TestAFloodOfAllKindsHarmsNoOtherTenant sends forged packets of all kinds to tenant A,
// while tenant B's clients go on, each of which must get every answer.
func TestAFloodOfAllKindsHarmsNoOtherTenant(t *testing.T) {
	rate, during, clients := 5_000, 5*time.Second, 200
	if *long {
		rate, during, clients = 100_000, time.Minute, 1000
	}
	if *floodRate > 0 {
		rate = *floodRate
	}
	if *floodTime > 0 {
		during = *floodTime
	}
	w := labtest.New(t, "allkinds", 3, 1)
	routeStrangers(w)
	// Tenant A's server hears all and says nothing: what it would answer costs this machine
	// more than the balancer does.
	mac, err := forge.Hardware(w.Backends[0], "eth0")
	w.Check(err)
	for _, a := range []string{silent4, silent6} {
		w.Balancer.IP(fmt.Sprintf("neigh add %s lladdr %s dev eth1 nud permanent", a, net.HardwareAddr(mac[:])))
	}
	w.Check(w.Err())
	w.StartBlixt(configOf(map[string][]lab.Endpoint{
		"a":       {{Addr: labtest.At(silent4, 8080)}, {Addr: labtest.At(silent6, 8080)}},
		"b":       lab.Endpoints(8080, w.Backends[1:]...),
		"b-local": lab.On("balancer", lab.Endpoints(8080, w.Pods...)),
	}, refs{tenantA: {{Service: "a", Weight: 1}}, tenantB: {{Service: "b", Weight: 2}, {Service: "b-local", Weight: 1}}}))
	streams := w.StartClients(clients, "tcp", labtest.VIP(4, tenantB), labtest.VIP(6, tenantB))
	datagrams := w.StartClients(clients, "udp", labtest.VIP(4, tenantB), labtest.VIP(6, tenantB))
	streams.CheckUnharmed("before the flood")
	datagrams.CheckUnharmed("before the flood")

	attacker := open(w)
	before := w.Status()
	var failed error
	a := newArsenal()
	start := time.Now()
	sent := paced(rate, during, func(int) {
		if err := throw(attacker, a.next()); err != nil {
			failed = err
		}
	})
	w.Check(failed)
	achieved := float64(sent) / time.Since(start).Seconds()
	streams.CheckUnharmed("the flood")
	datagrams.CheckUnharmed("the flood")
	t.Logf("%d packets, %.0f a second", sent, achieved)
	// The sender shares the processors with the balancer and 2,000 clients: two idle ones reach 60,000.
	if achieved < float64(rate)/2 {
		t.Errorf("the flood had %.0f packets a second, want half of %d at least: the machine is too slow, or too busy", achieved, rate)
	}
	after := w.Status()
	if n := labtest.Rise(before, after, "flow_new"); n < uint64(sent/10) {
		t.Errorf("flow_new rose by %d: the flood of %d packets did not arrive", n, sent)
	}
	for _, addr := range []string{labtest.VIP(4, tenantB), labtest.VIP(6, tenantB)} {
		for _, network := range []string{"tcp", "udp"} {
			f, g := w.Frontend(before, network, addr), w.Frontend(after, network, addr)
			if n := g.NewFlows - f.NewFlows; n > 0 {
				t.Errorf("%d flows of %s/%s began anew", n, addr, network)
			}
		}
	}
}

// throw sends a packet of a flood: whether there is room in the queue of the processor
// does not matter.
func throw(p *forge.Port, ip []byte) error {
	if err := p.Send(forge.Frame{IP: ip}); !errors.Is(err, unix.ENOBUFS) {
		return err
	}
	return nil
}

// arsenal makes packets from anywhere to tenant A, half of them of each family.
type arsenal struct {
	random *rand.Rand
	n      int
	// said are senders of one datagram.
	said []netip.AddrPort
}

func newArsenal() *arsenal { return &arsenal{random: rand.New(rand.NewPCG(1, 2))} }

func (a *arsenal) stranger(family int) netip.AddrPort {
	port := uint16(a.random.IntN(64000) + 1024)
	if family == 4 {
		return netip.AddrPortFrom(stranger4(a.random.Uint32()), port)
	}
	ip := netip.MustParsePrefix(strangers6).Addr().As16()
	binary.BigEndian.PutUint64(ip[8:], a.random.Uint64())
	return netip.AddrPortFrom(netip.AddrFrom16(ip), port)
}

func (a *arsenal) next() []byte {
	a.n++
	family := 4 + a.n%2*2
	from, to := a.stranger(family), vip(family, tenantA)
	segment := func(flags byte) []byte {
		return forge.Segment{Seq: a.random.Uint32(), Ack: a.random.Uint32(), Flags: flags, Window: 1000}.Packet(from, to).Bytes()
	}
	switch a.n / 2 % 8 {
	case 0, 1:
		return segment(forge.SYN)
	case 2:
		return segment(forge.ACK)
	case 3:
		return segment(forge.RST)
	case 4:
		return segment(forge.FIN | forge.ACK)
	case 5: // two of each sender, the second later
		const later = 5000
		if a.said = append(a.said, from); len(a.said) > later && a.n/16%2 == 0 {
			again := a.said[0]
			a.said = a.said[1:]
			if again.Addr().Is4() == from.Addr().Is4() {
				from = again
			}
		}
		return forge.Datagram(from, to, []byte("?")).Bytes()
	case 6:
		p := forge.Datagram(from, to, forge.Fill(2000))
		p.DF, p.ID = false, a.random.Uint32()
		pieces := p.Pieces(1280)
		return p.Fragment(pieces[a.n/16%2]) // its other one never comes
	default:
		quoted := forge.Segment{Seq: a.random.Uint32(), Flags: forge.ACK, Window: 1000}.Packet(to, from).Bytes()
		kind, code := byte(3), byte(1)
		if family == 6 {
			kind, code = 1, 3
		}
		return forge.Message(from.Addr(), to.Addr(), kind, code, 0, quoted).Bytes()
	}
}

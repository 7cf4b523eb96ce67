// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/forge"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestForgedDatagramsLeaveRoomForConnections sends two datagrams from each of more
// addresses than the table of flows has room for, to a server of tenant A that answers.
// Connections to tenant B that begin meanwhile have to be kept as any other, though
// SYNs follow and their backend is taken out of the ring.
func TestForgedDatagramsLeaveRoomForConnections(t *testing.T) {
	t.Parallel()
	seconds, flows := 6, 16384
	if *long {
		seconds, flows = 30, 65536
	}
	w := labtest.New(t, "datagrams", 2, 1)
	routeStrangers(w)
	services := map[string][]lab.Endpoint{
		// A local backend needs no port of the balancer for a flow, of which there are fewer than flows.
		"a":   lab.On("balancer", lab.Endpoints(8080, w.Pods...)),
		"old": lab.Endpoints(8080, w.Backends[0]), "young": lab.Endpoints(8080, w.Backends[1]),
	}
	config := func(old, young int) *lab.Config {
		return configOf(services, refs{tenantA: {{Service: "a", Weight: 1}}, tenantB: {{Service: "old", Weight: old}, {Service: "young", Weight: young}}})
	}
	b, err := w.Standard.Blixt(w.Balancer, labtest.Binary, config(1, 0))
	w.Check(err)
	b.Args = append(b.Args, "--flows", fmt.Sprint(flows))
	w.Blixt = b
	w.Check(b.Start())
	attacker := open(w)

	const rate, later, honest = 7500, 2000, 50
	var conns []net.Conn
	var failed error
	sent := paced(rate, time.Duration(seconds)*time.Second, func(i int) {
		source := i / 2
		if i%2 == 1 {
			source -= later // it has been answered
		}
		if source < 0 {
			return
		}
		from := netip.AddrPortFrom(stranger4(uint32(source)), uint16(1024+source%50000))
		if err := throw(attacker, forge.Datagram(from, vip(4, tenantA), []byte("?")).Bytes()); err != nil {
			failed = err
		}
	})
	w.Check(failed)
	if sent/2-later < flows {
		t.Errorf("only %d pairs were sent, the table has room for %d flows", sent/2-later, flows)
	}
	for range honest {
		c := w.Dial(w.Client, "tcp", labtest.VIP(4, tenantB))
		w.Ask(c, "hello")
		conns = append(conns, c)
	}
	// More SYNs than the table of flows that are not established has room for.
	syns := paced(50_000, 3*time.Second, func(i int) {
		from := netip.AddrPortFrom(stranger4(1<<20+uint32(i)), 4000)
		g := forge.Segment{Seq: uint32(i), Flags: forge.SYN, Window: 1000}
		if err := throw(attacker, g.Packet(from, vip(4, tenantA)).Bytes()); err != nil {
			failed = err
		}
	})
	w.Check(failed)
	w.Check(b.Apply(config(0, 1)))
	for _, c := range conns {
		if a, err := lab.Ask(c, "still there?", labtest.Patience); err != nil || a.Server != w.Backends[0].Name {
			t.Fatalf("a connection of tenant B is answered by %q, %v", a.Server, err)
		}
	}
	t.Logf("%d datagrams in %d s, %d SYNs", sent, seconds, syns)
}

// stranger4 returns an address of strangers4.
func stranger4(i uint32) netip.Addr {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 100<<24|64<<16|i&(1<<22-1))
	return netip.AddrFrom4(a)
}

// flight is how many packets are sent without a pause: fewer than the 1,000 that Linux
// queues for a processor (net.core.netdev_max_backlog).
const flight = 100

// paced calls f so many times a second, and returns how often it did.
func paced(rate int, during time.Duration, f func(i int)) int {
	start := time.Now()
	i := 0
	for {
		passed := time.Since(start)
		if passed >= during {
			return i
		}
		due := int(passed.Seconds() * float64(rate))
		for n := 0; i < due && n < flight; n++ {
			f(i)
			i++
		}
		if i >= due {
			time.Sleep(200 * time.Microsecond)
		}
	}
}

// TestServersReachAllClientsOfUDP has 30,000 clients send a datagram each, twice. Eight
// seconds later the servers speak to a sample of them, as whoever pushes news does.
func TestServersReachAllClientsOfUDP(t *testing.T) {
	const clients, sample, servers = 30_000, 1500, 4
	round := 5 * time.Second
	if *long {
		round = 10 * time.Second
	}
	for _, balancer := range []string{"nftables", "Blixt"} {
		t.Run(balancer, func(t *testing.T) {
			t.Parallel()
			w := labtest.New(t, "clients-"+balancer[:1], servers, 0)
			routeStrangers(w)
			if balancer == "Blixt" {
				w.StartBlixt(configOf(map[string][]lab.Endpoint{"udp": lab.Endpoints(pushes, w.Backends...)}, refs{tenantA: {{Service: "udp", Weight: 1}}}))
			} else {
				w.Balancer.Addr("lo", lab.VIP4+"/32")
				w.Check(w.Err())
				spread := fmt.Sprintf(`table ip oracle {
					chain pre { type nat hook prerouting priority dstnat; ip daddr %s udp dport %d dnat to jhash ip saddr . udp sport mod %d map { 0 : 10.77.0.11, 1 : 10.77.0.12, 2 : 10.77.0.13, 3 : 10.77.0.14 } : %d; }
					chain post { type nat hook postrouting priority srcnat; ct status dnat oifname eth1 masquerade; }
				}`, lab.VIP4, tenantA, servers, pushes)
				_, err := w.Balancer.Run(5*time.Second, "nft", spread)
				w.Check(err)
			}
			// Each server keeps who has sent, by the number in the datagram.
			type visit struct {
				by   net.PacketConn
				from net.Addr
			}
			var visits [clients]atomic.Pointer[visit]
			for _, n := range w.Backends {
				pc, err := n.ListenPacket("udp4", labtest.At(n.IPv4, pushes))
				w.Check(err)
				_ = pc.(*net.UDPConn).SetReadBuffer(4 << 20)
				t.Cleanup(func() { pc.Close() })
				go func() {
					buffer := make([]byte, 100)
					for {
						n, from, err := pc.ReadFrom(buffer)
						if err != nil {
							return
						}
						if i := binary.BigEndian.Uint32(buffer); n == 4 && i < clients {
							visits[i].Store(&visit{pc, from})
						}
					}
				}()
			}
			all := open(w)
			address := func(i int) netip.AddrPort {
				return netip.AddrPortFrom(stranger4(uint32(i%251)), uint16(20000+i/251))
			}
			number := func(i int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(i)) }
			for range 2 {
				sent := 0
				for sent < clients {
					sent += paced(int(float64(clients)/round.Seconds()), round, func(i int) {
						if i += sent; i < clients {
							w.Check(all.Send(forge.Frame{IP: forge.Datagram(address(i), vip(4, tenantA), number(i)).Bytes()}))
						}
					})
				}
			}
			time.Sleep(8 * time.Second)
			_, err := all.Receive() // nothing has been sent there
			w.Check(err)
			chosen := rand.New(rand.NewPCG(1, 2)).Perm(clients)[:sample]
			for _, i := range chosen {
				v := visits[i].Load()
				if v == nil {
					t.Errorf("client %d has not reached a server", i)
					continue
				}
				_, err := v.by.WriteTo(number(i), v.from)
				w.Check(err)
				time.Sleep(50 * time.Microsecond)
			}
			reached := map[uint32]bool{}
			deadline := time.Now().Add(labtest.Patience)
			for len(reached) < sample && time.Now().Before(deadline) {
				all.Await(100 * time.Millisecond)
				packets, err := all.Receive()
				w.Check(err)
				for _, p := range packets {
					if len(p) != 32 || p[9] != unix.IPPROTO_UDP {
						continue
					}
					i := binary.BigEndian.Uint32(p[28:])
					to, _ := netip.AddrFromSlice(p[16:20])
					from, _ := netip.AddrFromSlice(p[12:16])
					if i < clients && netip.AddrPortFrom(to, binary.BigEndian.Uint16(p[22:])) == address(int(i)) &&
						netip.AddrPortFrom(from, binary.BigEndian.Uint16(p[20:])) == vip(4, tenantA) {
						reached[i] = true
					}
				}
			}
			if len(reached) < sample {
				t.Errorf("%d of %d clients hear from their servers", len(reached), sample)
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package attack

import (
	"bufio"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/forge"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// silence is longer than a flow is kept of which a RST was believed, and than the agent
// takes to find it.
const silence = 25 * time.Second

// forgeries are what an attacker sends who knows both addresses and ports.
var forgeries = map[string]byte{
	"nothing": 0,
	"SYN":     forge.SYN,
	"SYN|RST": forge.SYN | forge.RST,
	"RST":     forge.RST,
	"RST|ACK": forge.RST | forge.ACK,
	"FIN":     forge.FIN,
	"FIN|ACK": forge.FIN | forge.ACK,
	"SYN|ACK": forge.SYN | forge.ACK,
}

// TestForgedSegmentsEndNoConnection establishes connections, takes their backend out of
// the ring, has an attacker forge segments of each, waits, and has the server speak
// first, as it does to whoever waits for news.
func TestForgedSegmentsEndNoConnection(t *testing.T) {
	for _, balancer := range []string{"nftables", "Blixt"} {
		t.Run(balancer, func(t *testing.T) {
			t.Parallel()
			w := labtest.New(t, "segments-"+balancer[:1], 2, 2)
			old := map[int]*lab.Node{tenantA: w.Backends[0], tenantB: w.Pods[0]}
			young := map[int]*lab.Node{tenantA: w.Backends[1], tenantB: w.Pods[1]}
			drain := useThem(w, balancer, old, young)
			news := make(chan net.Conn, 100)
			for _, n := range old {
				for _, family := range []int{4, 6} {
					w.Accept(n, labtest.At(own(n, family), pushes), func(c net.Conn) {
						// Go would have servers ask every 15 seconds whether clients live.
						_ = c.(*net.TCPConn).SetKeepAlive(false)
						news <- c
					})
				}
			}
			type pair struct {
				forged         string
				client, server net.Conn
			}
			var pairs []pair
			for name := range forgeries {
				for _, port := range []int{tenantA, tenantB} {
					for _, family := range []int{4, 6} {
						c := w.Dial(w.Client, "tcp", labtest.VIP(family, port))
						s := <-news
						t.Cleanup(func() { s.Close() })
						w.Check(say(c, s))
						w.Check(say(s, c))
						pairs = append(pairs, pair{name, c, s})
					}
				}
			}
			drain()
			attacker := open(w)
			for _, p := range pairs {
				flags := forgeries[p.forged]
				if flags == 0 {
					continue
				}
				src, dst := p.client.LocalAddr().(*net.TCPAddr).AddrPort(), p.client.RemoteAddr().(*net.TCPAddr).AddrPort()
				for _, seq := range []uint32{0, 0x11223344, 0xdeadbeef} {
					g := forge.Segment{Seq: seq, Ack: ^seq, Flags: flags, Window: 1000}
					w.Check(attacker.Send(forge.Frame{IP: g.Packet(src, dst).Bytes()}))
				}
			}
			time.Sleep(silence)
			for _, p := range pairs {
				if err := say(p.server, p.client); err != nil {
					t.Errorf("after a forged %s, server to client at %s: %v", p.forged, p.client.RemoteAddr(), err)
					continue
				}
				if err := say(p.client, p.server); err != nil {
					t.Errorf("after a forged %s, client to server at %s: %v", p.forged, p.client.RemoteAddr(), err)
				}
			}
			// New connections go where the ring says.
			if balancer == "Blixt" {
				for port, n := range young {
					got, err := w.Answerer(labtest.VIP(4, port))
					if err != nil || got != n.Name {
						t.Errorf("a new connection to port %d reaches %q, %v; want %s", port, got, err, n.Name)
					}
				}
			}
		})
	}
}

// pushes is a port of backends where the test itself is the server.
const pushes = 9090

// useThem has a balancer lead both tenants to the old nodes, until drain is called.
func useThem(w *labtest.World, balancer string, old, young map[int]*lab.Node) (drain func()) {
	w.Helper()
	if balancer == "nftables" {
		for _, a := range []string{lab.VIP4 + "/32", lab.VIP6 + "/128"} {
			w.Balancer.Addr("lo", a)
		}
		w.Check(w.Err())
		use := func(nodes map[int]*lab.Node, serverPort int) {
			useNftables(w, func(family, port int) string { return labtest.At(own(nodes[port], family), serverPort) })
		}
		use(old, pushes)
		return func() { use(young, 8080) }
	}
	services := map[string][]lab.Endpoint{
		"old-80":   lab.Endpoints(pushes, old[tenantA]),
		"young-80": lab.Endpoints(8080, young[tenantA]),
		"old-81":   lab.On("balancer", lab.Endpoints(pushes, old[tenantB])),
		"young-81": lab.On("balancer", lab.Endpoints(8080, young[tenantB])),
	}
	weights := func(o, y int) refs {
		r := refs{}
		for _, port := range []int{tenantA, tenantB} {
			r[port] = []lab.Ref{{Service: fmt.Sprintf("old-%d", port), Weight: o}, {Service: fmt.Sprintf("young-%d", port), Weight: y}}
		}
		return r
	}
	w.StartBlixt(configOf(services, weights(1, 0)))
	return func() { w.Check(w.Blixt.Apply(configOf(services, weights(0, 1)))) }
}

// say sends a line from one end of a connection to the other.
func say(from, to net.Conn) error {
	deadline := time.Now().Add(labtest.Patience)
	if err := from.SetDeadline(deadline); err != nil {
		return err
	}
	if err := to.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(from, "news"); err != nil {
		return err
	}
	line, err := bufio.NewReader(to).ReadString('\n')
	if err == nil && line != "news\n" {
		err = fmt.Errorf("it hears %q", line)
	}
	return err
}

// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Second addresses beside lab.VIP4 and lab.VIP6.
const (
	second4 = "198.51.100.11"
	second6 = "2001:db8:100::11"
)

// TestDefect3_OneClientSocketAddressManyFlows opens flows from one client address and
// port to two VIPs and two ports of each, by TCP and by UDP, all to one backend. A
// backend that sees the client's address could not tell them apart.
func TestDefect3_OneClientSocketAddressManyFlows(t *testing.T) {
	w := labtest.New(t, "collide", 1, 1)
	c := labtest.ConfigOf(map[int][]lab.Endpoint{
		toRemote: lab.Endpoints(8080, w.Backends...), toRemote + 100: lab.Endpoints(8080, w.Backends...),
		toPods: lab.On("balancer", lab.Endpoints(8080, w.Pods...)), toPods + 100: lab.On("balancer", lab.Endpoints(8080, w.Pods...)),
	})
	c.Gateways[0].Addresses = append(c.Gateways[0].Addresses, second4, second6)
	w.StartBlixt(c)
	for _, to := range []struct {
		name   string
		port   int
		client bool
	}{{"remote", toRemote, false}, {"pod", toPods, true}} {
		t.Run(to.name, func(t *testing.T) { checkCollision(w.In(t), to.port, to.client) })
	}
	w.CheckChecksums()
}

func checkCollision(w *labtest.World, port int, client bool) {
	type flow struct {
		conn net.Conn
		seen string
	}
	var flows []flow
	before := w.Status()
	for family, vips := range [][]string{{lab.VIP4, second4}, {lab.VIP6, second6}} {
		local := labtest.At([]string{lab.Client4, lab.Client6}[family], 30000+port)
		for _, network := range []string{"tcp", "udp"} {
			seen := map[string]bool{}
			for _, addr := range []string{labtest.At(vips[0], port), labtest.At(vips[1], port), labtest.At(vips[0], port+100), labtest.At(vips[1], port+100)} {
				conn, err := w.Client.Dial(network, local, addr, labtest.Patience)
				w.Check(err)
				w.Cleanup(func() { conn.Close() })
				a := w.Ask(conn, addr)
				if seen[a.Client] {
					w.Errorf("%s sees two %s flows as from %s", a.Server, network, a.Client)
				}
				// The first flow keeps its port.
				if client && len(seen) == 0 && a.Client != local {
					w.Errorf("%s sees %s instead of the client %s", a.Server, a.Client, local)
				}
				if ip := netip.MustParseAddrPort(a.Client).Addr(); client && ip != netip.MustParseAddrPort(local).Addr() {
					w.Errorf("%s sees %s instead of the client", a.Server, ip)
				}
				seen[a.Client] = true
				flows = append(flows, flow{conn, a.Client})
			}
		}
	}
	for range 2 { // each flow has kept its source address
		for _, f := range flows {
			if a := w.Ask(f.conn, f.conn.RemoteAddr().String()); a.Client != f.seen {
				w.Errorf("%s sees the flow to %s as from %s, then from %s", a.Server, f.conn.RemoteAddr(), f.seen, a.Client)
			}
		}
	}
	after := w.Status()
	if n := labtest.Rise(before, after, "flow_new"); n != uint64(len(flows)) {
		w.Errorf("flow_new rose by %d, want %d", n, len(flows))
	}
	want := uint64(0)
	if client {
		want = 3 * 4 // three of four flows that would collide
	}
	if n := labtest.Rise(before, after, "flow_port_changed"); n != want {
		w.Errorf("flow_port_changed rose by %d, want %d", n, want)
	}
}

// TestDefect4_HalfCloseKeepsTheOtherDirection closes the client's direction. The
// backend sends more and closes its own a second later.
func TestDefect4_HalfCloseKeepsTheOtherDirection(t *testing.T) {
	w := labtest.New(t, "half", 1, 1)
	for _, n := range []*lab.Node{w.Backends[0], w.Pods[0]} {
		servers, err := n.ServeBoth(n.Name, 9090)
		w.Check(err)
		for _, s := range servers {
			s.Linger = time.Second
		}
	}
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{
		toRemote: lab.Endpoints(9090, w.Backends...),
		toPods:   lab.On("balancer", lab.Endpoints(9090, w.Pods...)),
	}))
	for _, port := range []int{toRemote, toPods} {
		for _, family := range []int{4, 6} {
			t.Run(fmt.Sprintf("port %d, IPv%d", port, family), func(t *testing.T) {
				t.Parallel()
				w := w.In(t)
				c := w.Dial(w.Client, "tcp", labtest.VIP(family, port))
				w.Ask(c, "hello")
				w.Check(c.(*net.TCPConn).CloseWrite())
				w.Check(c.SetDeadline(time.Now().Add(labtest.Patience)))
				start := time.Now()
				word, err := bufio.NewReader(c).ReadString('\n')
				if err != nil || word != "bye\n" || time.Since(start) < labtest.Seconds(.9) {
					t.Errorf("after %s the backend's last word is %q: %v", time.Since(start), word, err)
				}
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
					t.Errorf("the end of the connection: %v", err)
				}
			})
		}
	}
}

// TestUDPFlowIsForgottenWhenIdle shortens the idle timeout, in the map.
func TestUDPFlowIsForgottenWhenIdle(t *testing.T) {
	w := labtest.New(t, "forget", 2, 0)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{toRemote: lab.Endpoints(8080, w.Backends...)}), "eth0", "eth1")
	maps, err := datapath.Open(filepath.Join(lab.Pins(w.Blixt.Name), "maps"))
	w.Check(err)
	defer maps.Close()
	frontends, err := maps.Frontends()
	w.Check(err)
	key := lb.Key{Addr: netip.MustParseAddr(lab.VIP4), Protocol: lb.UDP, Port: toRemote}
	entry := frontends[key]
	entry.IdleTicks = datapath.Ticks(time.Second)
	w.Check(maps.PutFrontend(key, entry))

	c := w.Dial(w.Client, "udp", labtest.VIP(4, toRemote))
	first := w.Ask(c, "one")
	w.Ask(c, "two")
	w.Check(w.Blixt.Kill()) // it removes idle flows as well
	before := w.Status()
	time.Sleep(time.Duration(entry.IdleTicks+2) << 30)
	if a := w.Ask(c, "three"); a.Server != first.Server {
		t.Errorf("%s, then %s answers: with the same backends it should be the same", first.Server, a.Server)
	}
	after := w.Status()
	if old, again := labtest.Rise(before, after, "flow_expired"), labtest.Rise(before, after, "flow_new"); old != 1 || again != 1 {
		t.Errorf("%d flows expired and %d began, want 1 and 1", old, again)
	}
}

// own returns the node's address of a family.
func own(n *lab.Node, family int) string {
	if family == 6 {
		return n.IPv6
	}
	return n.IPv4
}

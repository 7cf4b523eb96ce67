// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// addHost adds a Gateway with addresses of the balancer itself: TCP and UDP at each
// port lead to the endpoints, or have no route if those are nil.
func addHost(c *lab.Config, endpoints map[int][]lab.Endpoint, addresses ...string) {
	g := lab.Gateway{Name: "host", Addresses: addresses}
	for port, endpoints := range endpoints {
		name := fmt.Sprintf("host-%d", port)
		if endpoints != nil {
			c.Services = append(c.Services, lab.Service{Name: name, Endpoints: endpoints})
		}
		for _, protocol := range []string{"TCP", "UDP"} {
			l := lab.Listener{Protocol: protocol, Port: port}
			g.Listeners = append(g.Listeners, l)
			if endpoints != nil {
				c.Routes = append(c.Routes, lab.Route{Name: name, Gateway: g.Name, Listener: l, Refs: []lab.Ref{{Service: name, Weight: 1}}})
			}
		}
	}
	c.Gateways = append(c.Gateways, g)
}

// TestHostListens has servers on the balancer itself, at ports that listeners have, too:
// clients reach the servers, while there are any.
func TestHostListens(t *testing.T) {
	w := labtest.New(t, "hostlistens", 1, 1)
	const port = 2222
	outside := map[int]string{4: labtest.At(lab.Outside4, port), 6: labtest.At(lab.Outside6, port)}
	c := &lab.Config{}
	addHost(c, map[int][]lab.Endpoint{port: lab.Endpoints(8080, w.Backends...)}, lab.Outside4, lab.Outside6)
	w.StartBlixt(c, "eth0", "eth1")
	each := func(f func(network, addr string)) {
		for _, network := range []string{"tcp", "udp"} {
			for _, family := range []int{4, 6} {
				f(network, outside[family])
			}
		}
	}
	asks := func(what, want string) {
		w.Helper()
		each(func(network, addr string) {
			for _, n := range []*lab.Node{w.Client, w.Pods[0]} {
				if n == w.Pods[0] && want != "host" {
					continue // its packets meet no program
				}
				if a := w.Ask(w.Dial(n, network, addr), what); a.Server != want {
					w.Errorf("%s: %s %s from %s is answered by %s, want %s", what, network, addr, n.Name, a.Server, want)
				}
			}
		})
	}
	asks("nobody listens", "backend-1")
	open := map[string]net.Conn{}
	each(func(network, addr string) {
		if network == "tcp" {
			open[addr] = w.Dial(w.Client, network, addr)
			w.Ask(open[addr], "before")
		}
	})

	var servers []*lab.Server
	for _, addr := range outside {
		s, err := w.Balancer.Serve("host", addr)
		w.Check(err)
		servers = append(servers, s)
	}
	before := w.Status()
	asks("the host listens", "host")
	after := w.Status()
	if n := labtest.Rise(before, after, "host_listens"); n < 4 {
		t.Errorf("host_listens rose by %d, want as much as the packets", n)
	}
	each(func(network, addr string) {
		if f := w.Frontend(after, network, addr); !f.HostListens {
			t.Errorf("the status does not say that the host listens at %s/%s", addr, network)
		}
	})
	for addr, conn := range open {
		if a := w.Ask(conn, "after"); a.Server != "backend-1" {
			t.Errorf("an older connection to %s is answered by %s", addr, a.Server)
		}
	}
	w.Check(lab.Eventually(6*labtest.Patience, func() error {
		for addr := range open {
			if said := fmt.Sprintf("Gateway default/host, listener tcp-%d: traffic.test (process %d) listens at %s/tcp", port, os.Getpid(), addr); strings.Count(w.Blixt.Log(), said) != 1 {
				return fmt.Errorf("not once in the log: %s", said)
			}
		}
		return nil
	}))
	for _, s := range servers {
		w.Check(s.Close())
	}
	asks("nobody listens any more", "backend-1")
	w.CheckChecksums()
}

// TestTunnelAtAListenersPort has a VXLAN between client and balancer, whose port
// listeners have as well. It comes after them: what the other end sends goes to the
// listeners at first.
func TestTunnelAtAListenersPort(t *testing.T) {
	for name, endpoints := range map[string]func(w *labtest.World) []lab.Endpoint{
		"unrouted": func(*labtest.World) []lab.Endpoint { return nil },
		"routed":   func(w *labtest.World) []lab.Endpoint { return lab.Endpoints(8080, w.Backends...) },
	} {
		for _, ip := range []struct{ name, client, balancer string }{{"4", lab.Client4, lab.Outside4}, {"6", lab.Client6, lab.Outside6}} {
			t.Run(name+" IPv"+ip.name, func(t *testing.T) {
				w := labtest.New(t, "tunnel-"+name+ip.name, 1, 0)
				c := labtest.ConfigOf(map[int][]lab.Endpoint{toRemote: lab.Endpoints(8080, w.Backends...)})
				addHost(c, map[int][]lab.Endpoint{8472: endpoints(w)}, lab.Outside4, lab.Outside6)
				w.StartBlixt(c, "eth0", "eth1")
				end := func(n *lab.Node, local, remote, inner string) {
					n.IP(fmt.Sprintf("link add vx type vxlan id 7 dstport 8472 local %s remote %s", local, remote), "link set vx up")
					n.Addr("vx", inner)
					w.Check(n.Err())
				}
				end(w.Client, ip.client, ip.balancer, "10.99.0.2/24")
				if conn, err := w.Client.Dial("tcp", "", "10.99.0.1:7000", 200*time.Millisecond); err == nil {
					conn.Close()
					t.Fatal("the tunnel has one end, and works")
				}
				if s := w.Status(); s.Counters["reject_no_backend"]+s.Counters["flow_new"] == 0 {
					t.Fatal("no packet of the tunnel has met the listener")
				}
				end(w.Balancer, ip.balancer, ip.client, "10.99.0.1/24")
				_, err := w.Balancer.Serve("host", "10.99.0.1:7000")
				w.Check(err)
				var conn net.Conn
				w.Check(lab.Eventually(2*labtest.Patience, func() (err error) {
					conn, err = w.Client.Dial("tcp", "", "10.99.0.1:7000", time.Second)
					return err
				}))
				defer conn.Close()
				for i := range 50 {
					if a := w.Ask(conn, fmt.Sprint(i)); a.Server != "host" {
						t.Fatalf("answered by %s", a.Server)
					}
				}
			})
		}
	}
}

// TestListenerInTheSNATRange has a listener at an address from which flows go to the
// backends, at one of the 20 ports that these flows get.
func TestListenerInTheSNATRange(t *testing.T) {
	w := labtest.New(t, "snatlistener", 1, 1)
	const port, first, last = 27017, 27010, 27029
	c := labtest.ConfigOf(map[int][]lab.Endpoint{toRemote: lab.Endpoints(8080, w.Backends...)})
	addHost(c, map[int][]lab.Endpoint{port: lab.On("balancer", lab.Endpoints(8080, w.Pods...))}, lab.Inside4, lab.Inside6)
	b, err := w.Standard.Blixt(w.Balancer, labtest.Binary, c, "eth0", "eth1", "pods")
	w.Check(err)
	b.Args = append(b.Args, "--snat-ports", fmt.Sprintf("%d-%d", first, last))
	w.Blixt, w.Config = b, c
	w.Check(b.Start())
	for _, family := range []int{4, 6} {
		listener := labtest.At(map[int]string{4: lab.Inside4, 6: lab.Inside6}[family], port)
		for _, network := range []string{"tcp", "udp"} {
			used := map[uint16]bool{}
			for range last - first { // each port but the listener's
				a := w.Ask(w.Dial(w.Client, network, labtest.VIP(family, toRemote)), "flow")
				from := netip.MustParseAddrPort(a.Client)
				if used[from.Port()] || from.Port() == port || from.Port() < first || from.Port() > last {
					t.Errorf("%s: a flow has port %d, after %v", network, from.Port(), used)
				}
				used[from.Port()] = true
				// The listener serves clients, and the backend of those flows as well.
				for _, n := range []*lab.Node{w.Client, w.Backends[0]} {
					if a := w.Ask(w.Dial(n, network, listener), "listener"); a.Server != "pod-1" {
						t.Errorf("%s %s is answered by %s", network, listener, a.Server)
					}
				}
			}
			if conn, err := w.Client.Dial(network, "", labtest.VIP(family, toRemote), labtest.Patience); err == nil {
				if _, err := lab.Ask(conn, "one too many", labtest.Patience/5); err == nil {
					t.Errorf("%s: one flow more than there are ports", network)
				}
				conn.Close()
			}
		}
	}
	w.CheckChecksums()
}

// TestMasqueradedFromAListenersPort has the balancer masquerade connections of a pod,
// which begin from the port of a listener on the balancer's own address. They get their
// answers, and the listener's clients theirs.
func TestMasqueradedFromAListenersPort(t *testing.T) {
	const port = 2222
	w := labtest.New(t, "masquerade", 1, 1)
	path := w.Dir() + "/outward.nft"
	w.Check(os.WriteFile(path, []byte("table inet outward {\n\tchain after {\n\t\ttype nat hook postrouting priority 100\n\t\toifname eth0 masquerade\n\t}\n}\n"), 0o600))
	_, err := w.Balancer.Run(labtest.Patience, "nft", "-f", path)
	w.Check(err)
	c := &lab.Config{}
	addHost(c, map[int][]lab.Endpoint{port: lab.Endpoints(8080, w.Backends...)}, lab.Outside4, lab.Outside6)
	w.StartBlixt(c, "eth0", "eth1")
	for _, ip := range []struct{ client, balancer string }{{lab.Client4, lab.Outside4}, {lab.Client6, lab.Outside6}} {
		_, err := w.Client.Serve("client", labtest.At(ip.client, 9000))
		w.Check(err)
		for _, network := range []string{"tcp", "udp"} {
			conn, err := w.Pods[0].Dial(network, fmt.Sprint(":", port), labtest.At(ip.client, 9000), labtest.Patience)
			w.Check(err)
			for range 3 {
				a := w.Ask(conn, "from the pod")
				if from := netip.MustParseAddrPort(a.Client); a.Server != "client" || from.Addr().String() != ip.balancer || from.Port() == port {
					t.Errorf("%s: %s is asked by %s, want the balancer, and another port than %d", network, a.Server, from, port)
				}
			}
			if a := w.Ask(w.Dial(w.Client, network, labtest.At(ip.balancer, port)), "from the client"); a.Server != "backend-1" {
				t.Errorf("%s: the listener's client is answered by %s", network, a.Server)
			}
			w.Check(conn.Close())
		}
	}
	w.CheckChecksums()
}

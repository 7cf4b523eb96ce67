// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

const (
	roamer4, roamer6 = "10.99.0.2", "fd99::2"
	tunnel4, tunnel6 = "10.99.0.1", "fd99::1"
	// Source addresses that make a packet without a link header look as if it had one.
	lookalike4, lookalike6 = "8.0.69.5", "2001:db8:86dd:6000::5"

	toRoamer     = 83 // listener port of a backend behind a tunnel
	toRoamerHere = 84 // the same, with this host as its nodeName
	toOther      = 85 // listener port of another container of this host
)

// hop is a way through the load balancer.
type hop struct {
	name string
	from *lab.Node
	// local is the client's address by family. If it is empty the kernel chooses.
	local [2]string
	port  int
	// sees is the address that the backend sees, by family. If it is empty: the client's.
	sees [2]string
}

// checkHops sends a few small questions and one of several segments over each way.
func checkHops(w *labtest.World, hops []hop) {
	for _, h := range hops {
		for _, network := range []string{"tcp", "udp"} {
			for _, family := range []int{4, 6} {
				w.Run(fmt.Sprintf("%s/%s%d", h.name, network, family), func(t *testing.T) { checkHop(w.In(t), h, network, family) })
			}
		}
	}
	w.CheckChecksums()
}

func checkHop(w *labtest.World, h hop, network string, family int) {
	addr := labtest.VIP(family, h.port)
	local := h.local[family/2-2]
	if local != "" {
		local = labtest.At(local, 0)
	}
	questions := []string{"a", "ab", text(1200), text(map[string]int{"tcp": 50_000, "udp": 1200}[network])}
	sum := 0
	s := w.Count(func() {
		c, err := h.from.Dial(network, local, addr, labtest.Patience)
		w.Check(err)
		defer c.Close()
		for _, q := range questions {
			sum += len(q)
			a := w.Ask(c, q)
			want := h.sees[family/2-2]
			if want == "" && a.Client != c.LocalAddr().String() {
				w.Fatalf("%s sees %s instead of the client %s", a.Server, a.Client, c.LocalAddr())
			}
			if seen := netip.MustParseAddrPort(a.Client); want != "" && seen.Addr().String() != want {
				w.Fatalf("%s sees %s instead of %s", a.Server, seen, want)
			}
		}
	})
	var except []string
	if h.port == toOther {
		// Client and server are on one bridge: the kernel redirects the client past it (ICMP). That is about
		// packets that the client has not sent, and Blixt drops it.
		except = append(except, "drop_unsupported")
	}
	w.CheckCarried(s, network, addr, 1, sum, sum, except...)
}

// checkRefused checks that a port which no listener has is refused.
func checkRefused(w *labtest.World, from *lab.Node, local string, family int) {
	w.Helper()
	if local != "" {
		local = labtest.At(local, 0)
	}
	s := w.Count(func() {
		if _, err := from.Dial("tcp", local, labtest.VIP(family, 7000), labtest.Patience); !errors.Is(err, syscall.ECONNREFUSED) {
			w.Errorf("TCP from %s to an unserved port: %v", from.Name, err)
		}
		c, err := from.Dial("udp", local, labtest.VIP(family, 7000), labtest.Patience)
		w.Check(err)
		defer c.Close()
		if _, err := lab.Ask(c, "hello", labtest.Patience); !errors.Is(err, syscall.ECONNREFUSED) {
			w.Errorf("UDP from %s to an unserved port: %v", from.Name, err)
		}
	})
	if n := s.Rise("reject_unserved"); n != 2 {
		w.Errorf("reject_unserved rose by %d, want 2", n)
	}
}

// TestDevicesWithoutLinkHeaderCarryFlows has clients and backends behind a
// tunnel, and source addresses that look like a link header there.
func TestDevicesWithoutLinkHeaderCarryFlows(t *testing.T) {
	w := labtest.New(t, "tunnel", 1, 1)
	roamer := w.Node("roamer")
	w.Tunnel(roamer, "tun0", w.Balancer, "tun0")
	roamer.Addr("tun0", roamer4+"/24", roamer6+"/64")
	w.Balancer.Addr("tun0", tunnel4+"/24", tunnel6+"/64")
	roamer.Addr("tun0", lookalike4+"/32", lookalike6+"/128")
	roamer.Route("default via "+tunnel4, "default via "+tunnel6)
	w.Balancer.Route("8.0.64.0/20 dev tun0", "2001:db8:86dd::/48 dev tun0")
	// Without labels the first bytes of IPv6 headers equal those of the lookalikes.
	roamer.Sysctl("net.ipv6.auto_flowlabels=0")
	w.Check(w.Err())
	_, err := roamer.ServeBoth("roamer", 8080)
	w.Check(err)
	w.Offloads(false)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{
		toRemote:     lab.Endpoints(8080, w.Backends...),
		toPods:       lab.On("balancer", lab.Endpoints(8080, w.Pods...)),
		toRoamer:     lab.Endpoints(8080, roamer),
		toRoamerHere: lab.On("balancer", lab.Endpoints(8080, roamer)),
	}))

	inside, tunnel := [2]string{lab.Inside4, lab.Inside6}, [2]string{tunnel4, tunnel6}
	lookalike := [2]string{lookalike4, lookalike6}
	checkHops(w, []hop{
		{"tunnel to remote", roamer, [2]string{}, toRemote, inside},
		{"tunnel to pod", roamer, [2]string{}, toPods, [2]string{}},
		{"tunnel to tunnel", roamer, [2]string{}, toRoamer, tunnel},
		{"tunnel to tunnel, local", roamer, [2]string{}, toRoamerHere, tunnel},
		{"lookalike to remote", roamer, lookalike, toRemote, inside},
		{"lookalike to pod", roamer, lookalike, toPods, [2]string{}},
		{"lookalike to tunnel", roamer, lookalike, toRoamer, tunnel},
		{"outside to tunnel", w.Client, [2]string{}, toRoamer, tunnel},
		{"outside to tunnel, local", w.Client, [2]string{}, toRoamerHere, [2]string{}},
		{"pod to tunnel", w.Pods[0], [2]string{}, toRoamer, tunnel},
		{"host to tunnel", w.Balancer, [2]string{}, toRoamer, tunnel},
		{"host to tunnel, local", w.Balancer, [2]string{}, toRoamerHere, tunnel},
	})
	t.Run("unserved port", func(t *testing.T) {
		w := w.In(t)
		checkRefused(w, roamer, "", 4)
		checkRefused(w, roamer, "", 6)
		checkRefused(w, roamer, lookalike4, 4)
		checkRefused(w, roamer, lookalike6, 6)
	})
	t.Run("ping", func(t *testing.T) {
		w := w.In(t)
		s := w.Count(func() {
			w.Check(ping(roamer, lab.VIP4))
			w.Check(ping(roamer, lab.VIP6))
		})
		if n := s.Rise("ping_answered"); n != 2 {
			t.Errorf("ping_answered rose by %d, want 2", n)
		}
	})
	if n, err := roamer.ChecksumErrors(); n > 0 || err != nil {
		t.Errorf("roamer has seen %d wrong checksums (%v)", n, err)
	}
}

// TestBridgePortsAndTheirBridgeMayBothHaveTheProgram attaches where the same
// packet passes twice. A bridge has the hardware address of one of its ports:
// what comes in by that one is translated there, all else on the bridge.
func TestBridgePortsAndTheirBridgeMayBothHaveTheProgram(t *testing.T) {
	w := labtest.New(t, "bridge", 1, 2)
	w.Check(w.Balancer.Do(func() error {
		port, err := netlink.LinkByName("pod-1-eth0")
		if err != nil {
			return err
		}
		bridge, err := netlink.LinkByName("pods")
		if err != nil {
			return err
		}
		return netlink.LinkSetHardwareAddr(bridge, port.Attrs().HardwareAddr)
	}))
	w.Offloads(false)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{
		toRemote: lab.Endpoints(8080, w.Backends...),
		toPods:   lab.On("balancer", lab.Endpoints(8080, w.Pods[0])),
		toOther:  lab.On("balancer", lab.Endpoints(8080, w.Pods[1])),
	}), "lo", "eth0", "eth1", "pods", "pod-1-eth0", "pod-2-eth0")
	inside, bridge := [2]string{lab.Inside4, lab.Inside6}, [2]string{lab.Pods4, lab.Pods6}
	checkHops(w, []hop{
		{"outside to pod", w.Client, [2]string{}, toPods, [2]string{}},
		{"outside to remote", w.Client, [2]string{}, toRemote, inside},
		{"pod to remote", w.Pods[0], [2]string{}, toRemote, inside},
		{"pod to another pod", w.Pods[1], [2]string{}, toPods, bridge},
		{"pod to itself", w.Pods[0], [2]string{}, toPods, bridge},
		{"pod by the bridge's own port to another pod", w.Pods[0], [2]string{}, toOther, [2]string{}},
		{"host to pod", w.Balancer, [2]string{}, toPods, bridge},
	})
	t.Run("unserved port", func(t *testing.T) {
		w := w.In(t)
		checkRefused(w, w.Pods[0], "", 4)
		checkRefused(w, w.Pods[1], "", 6)
	})
}

// TestSumsOfOthersStayRight has conntrack process packets on a bridge first. It
// computes the checksum of those that the sender has given one, and the receiving
// socket relies on that.
func TestSumsOfOthersStayRight(t *testing.T) {
	w := labtest.New(t, "sums", 1, 2)
	w.Offloads(false)
	firewall(w, true, "forward")
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{
		toRemote: lab.Endpoints(8080, w.Backends...),
		toPods:   lab.On("balancer", lab.Endpoints(8080, w.Pods[0])),
	}))
	inside, bridge := [2]string{lab.Inside4, lab.Inside6}, [2]string{lab.Pods4, lab.Pods6}
	checkHops(w, []hop{
		{"host to pod", w.Balancer, [2]string{}, toPods, bridge},
		{"pod to another pod", w.Pods[1], [2]string{}, toPods, bridge},
		{"pod to itself", w.Pods[0], [2]string{}, toPods, bridge},
		{"pod to remote", w.Pods[0], [2]string{}, toRemote, inside},
		{"outside to pod", w.Client, [2]string{}, toPods, [2]string{}},
	})
	t.Run("answers", func(t *testing.T) {
		w := w.In(t)
		for _, family := range []int{4, 6} {
			checkRefused(w, w.Pods[0], "", family)
		}
		w.Check(ping(w.Pods[0], lab.VIP4))
		w.Check(ping(w.Pods[0], lab.VIP6))
	})
}

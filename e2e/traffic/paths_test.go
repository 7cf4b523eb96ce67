// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// The backends of the paths: where they are in relation to the load balancer.
const (
	toRemote = 80 // listener port of backends elsewhere
	toPods   = 81 // of containers of this host
	toHost   = 82 // of a process of this host
)

// pathsConfig serves three kinds of backends on an exclusive address, and on
// the host's own.
func pathsConfig(w *labtest.World) *lab.Config {
	c := &lab.Config{Services: []lab.Service{
		{Name: "remote", Endpoints: lab.Endpoints(8080, w.Backends...)},
		{Name: "pods", Endpoints: lab.On("balancer", lab.Endpoints(8080, w.Pods...))},
		{Name: "host", Endpoints: []lab.Endpoint{{Addr: labtest.At(lab.Inside4, 9000)}, {Addr: labtest.At(lab.Inside6, 9000)}}},
	}}
	for name, addresses := range map[string][]string{
		"exclusive": {lab.VIP4, lab.VIP6}, "shared": {lab.Outside4, lab.Outside6},
	} {
		g := lab.Gateway{Name: name, Addresses: addresses}
		for service, port := range map[string]int{"remote": toRemote, "pods": toPods, "host": toHost} {
			for _, protocol := range []string{"TCP", "UDP"} {
				l := lab.Listener{Protocol: protocol, Port: port}
				g.Listeners = append(g.Listeners, l)
				c.Routes = append(c.Routes, lab.Route{
					Name: name + "-" + service, Gateway: name, Listener: l, Refs: []lab.Ref{{Service: service, Weight: 1}},
				})
			}
		}
		c.Gateways = append(c.Gateways, g)
	}
	return c
}

// TestDefect1And8_EveryPathCarriesBothWays sends both protocols in both families from
// everywhere to everywhere, on listener ports that no backend has, past a firewall that
// drops what conntrack calls invalid. The backend reports which source address it saw,
// Blixt's counters that Blixt has forwarded the packets, the kernels' counters that
// every checksum was right.
func TestDefect1And8_EveryPathCarriesBothWays(t *testing.T) {
	w := labtest.New(t, "paths", 2, 2)
	for i, ip := range []string{lab.Inside4, lab.Inside6} {
		_, err := w.Balancer.Serve("host", labtest.At(ip, 9000))
		w.Check(err)
		// A port of the host's own address that Blixt does not serve.
		_, err = w.Balancer.Serve("other", labtest.At([]string{lab.Outside4, lab.Outside6}[i], 7000))
		w.Check(err)
	}
	w.StartBlixt(pathsConfig(w))

	for _, s := range surroundings {
		w.Offloads(s.offloads)
		firewall(w, s.bridgeNetfilter, s.chains...)
		for _, p := range paths {
			for _, address := range []string{"exclusive", "shared"} {
				name := fmt.Sprintf("%s/%s to %s by %s address", s.name, p.from, p.to, address)
				t.Run(name, func(t *testing.T) { checkPath(w.In(t), p, address) })
			}
		}
		t.Run(s.name+"/unserved ports", func(t *testing.T) { checkUnserved(w.In(t)) })
		t.Run(s.name+"/ping", func(t *testing.T) { checkPing(w.In(t)) })
		if n := firewallDrops(w); n > 0 {
			t.Errorf("%s: conntrack of the load balancer called %d packets invalid", s.name, n)
		}
	}
	w.CheckChecksums()
}

// surroundings are what the load balancer may find on its host. Packets that
// conntrack calls invalid are dropped in some chains; br_netfilter shows
// conntrack what comes through a bridge before anybody can translate it.
var surroundings = []struct {
	name            string
	offloads        bool
	bridgeNetfilter bool
	chains          []string
}{
	{"no offloads, firewall as of firewalld", false, false, []string{"input", "forward"}},
	{"offloads, firewall as of kube-proxy", true, true, []string{"forward"}},
}

// path is one way through the load balancer.
type path struct {
	from, to string
	port     int
	// sees is the address that the backend sees: the client's, or the node's on
	// that way, by family.
	client bool
	sees   [2]string
}

var paths = []path{
	{from: "outside", to: "remote", port: toRemote, sees: [2]string{lab.Inside4, lab.Inside6}},
	{from: "outside", to: "pod", port: toPods, client: true},
	{from: "outside", to: "host process", port: toHost, client: true},
	{from: "host", to: "remote", port: toRemote, sees: [2]string{lab.Inside4, lab.Inside6}},
	{from: "host", to: "pod", port: toPods, sees: [2]string{lab.Pods4, lab.Pods6}},
	{from: "host", to: "host process", port: toHost, sees: [2]string{lab.Inside4, lab.Inside6}},
	{from: "pod", to: "remote", port: toRemote, sees: [2]string{lab.Inside4, lab.Inside6}},
	// The bridge's address: the reply must not bypass Blixt on its way to the client.
	{from: "pod", to: "pod", port: toPods, sees: [2]string{lab.Pods4, lab.Pods6}},
	{from: "pod", to: "host process", port: toHost, client: true},
}

const (
	flowsPerPath   = 3
	packetsPerFlow = 4 // by UDP, each way
)

// checkPath connects by one way, by both protocols in both families.
func checkPath(w *labtest.World, p path, address string) {
	node := map[string]*lab.Node{"outside": w.Client, "host": w.Balancer, "pod": w.Pods[0]}[p.from]
	ips := map[string][2]string{"exclusive": {lab.VIP4, lab.VIP6}, "shared": {lab.Outside4, lab.Outside6}}[address]
	before := w.Status()
	port := 33000 + int(before.Counters["flow_new"])
	for _, network := range []string{"tcp", "udp"} {
		for family, ip := range ips {
			for range flowsPerPath {
				local := ""
				if p.client { // a source port that no earlier flow to this backend has had
					port++
					local = labtest.At(own(node, 4+2*family), port)
				}
				c, err := node.Dial(network, local, labtest.At(ip, p.port), labtest.Patience)
				w.Check(err)
				for i := range packetsPerFlow {
					checkSeen(w, p, w.Ask(c, fmt.Sprintf("question %d", i)), c, family, before)
				}
				w.Check(c.Close())
			}
		}
	}
	after := w.Status()

	for _, network := range []string{"tcp", "udp"} {
		for _, ip := range ips {
			f, g := w.Frontend(before, network, labtest.At(ip, p.port)), w.Frontend(after, network, labtest.At(ip, p.port))
			if n := g.NewFlows - f.NewFlows; n != flowsPerPath {
				w.Errorf("%s: Blixt counts %d new flows, want %d", f.Frontend, n, flowsPerPath)
			}
			least := uint64(flowsPerPath * packetsPerFlow)
			to, back := g.Packets-f.Packets, g.ReplyPackets-f.ReplyPackets
			if network == "udp" && (to != least || back != least) || to < least || back < least {
				w.Errorf("%s: Blixt counts %d packets to and %d from backends, want %d", f.Frontend, to, back, least)
			}
		}
	}
	for name, n := range after.Counters {
		if n != before.Counters[name] && (strings.HasPrefix(name, "drop_") || strings.HasPrefix(name, "reject_")) {
			w.Errorf("%s rose by %d", name, n-before.Counters[name])
		}
	}
}

// checkSeen fails the test unless the backend saw the right source address.
func checkSeen(w *labtest.World, p path, a lab.Answer, c net.Conn, family int, s lab.Status) {
	w.Helper()
	seen := netip.MustParseAddrPort(a.Client)
	if p.client {
		if a.Client != c.LocalAddr().String() {
			w.Fatalf("%s sees %s instead of the client %s", a.Server, a.Client, c.LocalAddr())
		}
		return
	}
	if seen.Addr().String() != p.sees[family] || seen.Port() < s.SNAT.First || seen.Port() > s.SNAT.Last {
		w.Fatalf("%s sees %s instead of %s with a port of %v", a.Server, seen, p.sees[family], s.SNAT)
	}
}

// checkUnserved checks that ports which no listener has are refused.
func checkUnserved(w *labtest.World) {
	before := w.Status()
	nodes := []*lab.Node{w.Client, w.Balancer, w.Pods[0]}
	for _, node := range nodes {
		for _, family := range []int{4, 6} {
			if _, err := node.Dial("tcp", "", labtest.VIP(family, 7000), labtest.Patience); !errors.Is(err, syscall.ECONNREFUSED) {
				w.Errorf("TCP from %s to an unserved port of an exclusive address: %v", node.Name, err)
			}
			c := w.Dial(node, "udp", labtest.VIP(family, 7000))
			if _, err := lab.Ask(c, "hello", labtest.Patience); !errors.Is(err, syscall.ECONNREFUSED) {
				w.Errorf("UDP from %s to an unserved port of an exclusive address: %v", node.Name, err)
			}
		}
		for _, ip := range []string{lab.Outside4, lab.Outside6} {
			for _, network := range []string{"tcp", "udp"} {
				if a := w.Ask(w.Dial(node, network, labtest.At(ip, 7000)), "hello"); a.Server != "other" {
					w.Errorf("%s from %s to a shared address: %s answers", network, node.Name, a.Server)
				}
			}
		}
	}
	if n, want := labtest.Rise(before, w.Status(), "reject_unserved"), uint64(4*len(nodes)); n != want {
		w.Errorf("reject_unserved rose by %d, want %d", n, want)
	}
}

// checkPing pings every address: Blixt answers for exclusive ones, the host for shared
// ones.
func checkPing(w *labtest.World) {
	before := w.Status()
	nodes := []*lab.Node{w.Client, w.Balancer, w.Pods[0]}
	for _, node := range nodes {
		for _, ip := range []string{lab.VIP4, lab.VIP6, lab.Outside4, lab.Outside6} {
			if err := ping(node, ip); err != nil {
				w.Errorf("ping %s from %s: %v", ip, node.Name, err)
			}
		}
	}
	if n, want := labtest.Rise(before, w.Status(), "ping_answered"), uint64(2*len(nodes)); n != want {
		w.Errorf("ping_answered rose by %d, want %d", n, want)
	}
}

// firewall drops on the load balancer what conntrack calls invalid.
func firewall(w *labtest.World, bridgeNetfilter bool, chains ...string) {
	w.Helper()
	if lab.BridgeNetfilter() {
		call := map[bool]string{false: "0", true: "1"}[bridgeNetfilter]
		w.Balancer.Sysctl("net.bridge.bridge-nf-call-iptables="+call, "net.bridge.bridge-nf-call-ip6tables="+call)
		w.Check(w.Err())
	} else if bridgeNetfilter {
		w.Skip("kernel lacks: br_netfilter")
	}
	rules := "table inet guard\ndelete table inet guard\ntable inet guard {\n"
	for _, chain := range chains {
		rules += fmt.Sprintf("chain %s { type filter hook %s priority 0; ct state invalid counter drop\n }\n", chain, chain)
	}
	path := w.Dir() + "/guard.nft"
	w.Check(os.WriteFile(path, []byte(rules+"}\n"), 0o600))
	_, err := w.Balancer.Run(labtest.Patience, "nft", "-f", path)
	w.Check(err)
}

var packetCount = regexp.MustCompile(`counter packets (\d+)`)

// firewallDrops returns how many packets the firewall has dropped.
func firewallDrops(w *labtest.World) (sum int) {
	w.Helper()
	out, err := w.Balancer.Run(labtest.Patience, "nft", "list", "table", "inet", "guard")
	w.Check(err)
	for _, m := range packetCount.FindAllStringSubmatch(out, -1) {
		n, err := strconv.Atoi(m[1])
		w.Check(err)
		sum += n
	}
	return sum
}

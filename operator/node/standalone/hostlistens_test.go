// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/hostsocket"
)

// Who has a listener where this host listens is told which, and what to do.
func TestHostListensIsSaid(t *testing.T) {
	own, ours := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	state := &sent{State: lb.State{Addresses: []lb.Address{{IP: own}, {IP: ours, Exclusive: true}}},
		at: func(name, _ string) string { return "gw.yaml:1 of " + name }}
	for _, addr := range []netip.Addr{own, ours} {
		for _, port := range []uint16{22, 53, 80} {
			state.Frontends = append(state.Frontends, lb.Frontend{Addr: addr, Protocol: lb.TCP, Port: port, Gateway: "default/edge", Listener: "l"})
		}
	}
	socket := func(addr string, inode uint32) hostsocket.Socket {
		return hostsocket.Socket{Protocol: lb.TCP, Addr: netip.MustParseAddrPort(addr), Inode: inode}
	}
	names := func(inodes map[uint32]bool) map[uint32]string {
		all := map[uint32]string{}
		for inode := range inodes {
			all[inode] = map[uint32]string{1: "sshd (process 7)", 2: "dnsmasq (process 8)"}[inode]
		}
		return all
	}
	got := hostListens(state, []hostsocket.Socket{socket("[::]:22", 1), socket("192.0.2.2:53", 2), socket("192.0.2.1:81", 3), socket("198.51.100.1:80", 4)}, []lb.Key{{Addr: own, Protocol: lb.TCP, Port: 80}}, names)
	const remedy = " Stop it (ss -lntup names the process), or give the listener another port."
	want := []string{
		"gw.yaml:1 of Gateway default/edge: Gateway default/edge, listener l: sshd (process 7) listens at 192.0.2.1:22/tcp, and gets its new connections." + remedy,
		"gw.yaml:1 of Gateway default/edge: Gateway default/edge, listener l: a socket of this host listens at 192.0.2.1:80/tcp, and gets its new connections." + remedy,
		"gw.yaml:1 of Gateway default/edge: Gateway default/edge, listener l: dnsmasq (process 8) listens at 192.0.2.2:53/tcp, and gets nothing, as the address is the Gateway's." + remedy,
	}
	if !slices.Equal(got, want) {
		t.Errorf("lines\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := hostListens(state, nil, nil, names); got != nil {
		t.Errorf("of nobody: %q", got)
	}
}

// Who listens at a port of a range is told with that port.
func TestHostListensInARange(t *testing.T) {
	own := netip.MustParseAddr("192.0.2.1")
	state := &sent{State: lb.State{Addresses: []lb.Address{{IP: own}}, Frontends: []lb.Frontend{
		{Addr: own, Protocol: lb.TCP, Port: 2000, Gateway: "default/edge", Listener: "l", Settings: lb.Settings{Ports: &lb.Ports{Last: 2600}}},
	}}}
	nobody := func(map[uint32]bool) map[uint32]string { return nil }
	seen := []lb.Key{{Addr: own, Protocol: lb.TCP, Port: 2000}} // packets of the whole range
	for addr, want := range map[string]string{"0.0.0.0:2500": "192.0.2.1:2500/tcp", "0.0.0.0:2601": "", "0.0.0.0:1999": "", "192.0.2.1:2000": "192.0.2.1:2000/tcp"} {
		sockets := []hostsocket.Socket{{Protocol: lb.TCP, Addr: netip.MustParseAddrPort(addr), Inode: 1}}
		got := strings.Join(hostListens(state, sockets, nil, nobody), "")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("socket at %s: %q, want one about %q", addr, got, want)
		}
		if got := strings.Join(hostListens(state, sockets, seen, nobody), ""); !strings.Contains(got, cmp.Or(want, "192.0.2.1:2000/tcp")) {
			t.Errorf("socket at %s, and packets were seen: %q", addr, got)
		}
	}
}

// A socket that is there already is said when the listener comes, without a packet.
func TestHostListensIsSaidAtOnce(t *testing.T) {
	veth(t, "eth0")
	assign(t, "eth0", "192.0.2.1/24")
	c, err := net.ListenPacket("udp4", "0.0.0.0:53")
	must(t, err)
	defer c.Close()
	i := prepare(t, strings.ReplaceAll(strings.ReplaceAll(files(53, ""), "TCP", "UDP"), "tcp", "udp"))
	i.start()
	i.logs("level=WARN", "web.yaml:13: Gateway default/web, listener udp: ", " listens at 192.0.2.1:53/udp, and gets its new connections")
}

// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/advice"
)

// sysctl sets one until the test ends.
func sysctl(t *testing.T, name, value string) {
	t.Helper()
	file := "/proc/sys/" + name
	before, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, []byte(value), 0))
	t.Cleanup(func() { _ = os.WriteFile(file, before, 0) }) // its interface may be gone
}

// forwarded returns TCP backends that are elsewhere.
func forwarded(addrs ...string) (list []advice.Backend) {
	for _, a := range addrs {
		list = append(list, advice.Backend{Addr: netip.MustParseAddrPort(a), Protocol: lb.TCP})
	}
	return list
}

func TestForwardingIsAskedForWhereABackendNeedsIt(t *testing.T) {
	const v4, v6 = "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"
	for _, c := range []struct {
		off      []string
		backends []advice.Backend
		want     []string
	}{
		{nil, forwarded("10.0.0.1:80", "[fd00::1]:80"), nil},
		{[]string{v4, v6}, nil, nil}, // all backends are the host's own
		{[]string{v4, v6}, forwarded("10.0.0.1:80"), []string{"net.ipv4.ip_forward=1"}},
		{[]string{v4, v6}, forwarded("[fd00::1]:80"), []string{"net.ipv6.conf.all.forwarding=1"}},
		{[]string{v4, v6}, forwarded("10.0.0.1:80", "[fd00::1]:80"), []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"}},
	} {
		for _, name := range []string{v4, v6} {
			value := "1"
			if slices.Contains(c.off, name) {
				value = "0"
			}
			sysctl(t, name, value)
		}
		got := advice.Forwarding(c.backends)
		if len(got) != len(c.want) {
			t.Errorf("%v, without %v: %q, want %q", c.backends, c.off, got, c.want)
			continue
		}
		for i := range got {
			if !strings.Contains(got[i], "sysctl -w "+c.want[i]) {
				t.Errorf("%q has no %q", got[i], c.want[i])
			}
		}
	}
}

func TestDefaultRouteByRouterAdvertisementsIsKept(t *testing.T) {
	sysctl(t, "net/ipv6/conf/all/forwarding", "0")
	for _, name := range []string{"eth0", "eth1", "eth2.5"} {
		veth(t, name)
		up(t, "peer-"+name)
		protocol := netlink.RouteProtocol(unix.RTPROT_RA)
		if name == "eth1" { // its default route is the administrator's
			protocol = unix.RTPROT_STATIC
		}
		must(t, netlink.RouteAdd(&netlink.Route{
			LinkIndex: byName(t, name).Attrs().Index, Gw: netip.MustParseAddr("fe80::1").AsSlice(), Protocol: protocol,
			Family: netlink.FAMILY_V6, Priority: 100 + byName(t, name).Attrs().Index, Flags: int(netlink.FLAG_ONLINK),
		}))
	}
	got := advice.Forwarding(forwarded("[fd00::1]:80"))
	if len(got) != 1 || strings.Contains(got[0], "eth1") {
		t.Fatalf("%q", got)
	}
	_, command, _ := strings.Cut(got[0], "sysctl -w ")
	words := strings.Fields(command)
	for _, want := range []string{"net/ipv6/conf/eth0/accept_ra=2", "net/ipv6/conf/eth2.5/accept_ra=2"} {
		if i := slices.Index(words, want); i < 0 || i > 1 || !strings.HasPrefix(words[2], "net.ipv6.conf.all.forwarding=1") {
			t.Errorf("%q: want %s before forwarding", command, want)
		}
	}
	// What the message says is so: the kernel drops the route where it is not followed.
	sysctl(t, "net/ipv6/conf/eth0/accept_ra", "2")
	if got := advice.Forwarding(forwarded("[fd00::1]:80")); len(got) != 1 || strings.Contains(got[0], "eth0") {
		t.Errorf("%q", got)
	}
}

// TestFirewallThatDropsIsSaidAndTakenBack has a firewall by a command that prints its
// rules, as iptables need not be there.
func TestFirewallThatDropsIsSaidAndTakenBack(t *testing.T) {
	adviseEvery = 20 * time.Millisecond
	t.Cleanup(func() { adviseEvery = 5 * time.Second })
	bin := t.TempDir()
	rules := filepath.Join(bin, "rules")
	drop := "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"
	must(t, os.WriteFile(rules, []byte(drop), 0o644))
	must(t, os.WriteFile(filepath.Join(bin, "iptables-save"), []byte("#!/bin/sh\nexec cat "+rules+"\n"), 0o755))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	sysctl(t, "net/ipv4/ip_forward", "0")
	veth(t, "eth0")
	veth(t, "docker0")
	up(t, "peer-docker0")
	assign(t, "eth0", host4+"/24")
	assign(t, "docker0", "10.0.0.254/24")
	i := prepare(t, strings.Replace(files(80, far4), `- addresses: ["10.0.0.1"]`, `- {addresses: ["10.0.0.1"], nodeName: here}`, 1))
	var log []string
	says := func(level, forwarding, firewall string) {
		t.Helper()
		eventually(t, func() error {
			log = append(log, i.log.take()...)
			for _, words := range []string{forwarding, firewall} {
				if !slices.ContainsFunc(log, func(line string) bool { return strings.Contains(line, level) && strings.Contains(line, words) }) {
					return fmt.Errorf("no %s %q in %q", level, words, log)
				}
			}
			return nil
		})
	}
	i.start()
	says("level=WARN", "net.ipv4.ip_forward is 0", "firewall drops packets to backend 10.0.0.1:8080")
	must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
	must(t, os.WriteFile(rules, []byte(strings.Replace(drop, "DROP", "ACCEPT", 1)), 0o644))
	says("mended", "net.ipv4.ip_forward is 0", "firewall drops packets to backend 10.0.0.1:8080")
}

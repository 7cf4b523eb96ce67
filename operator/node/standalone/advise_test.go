// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
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

// TestRulesOfNftablesThatDropAreNamed has nft make the rules, and runs the command of the
// message.
func TestRulesOfNftablesThatDropAreNamed(t *testing.T) {
	t.Setenv("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
	nft := func(command string) {
		t.Helper()
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(command)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("nft: %v\n%s\n%s", err, command, out)
		}
	}
	t.Cleanup(func() { nft("flush ruleset") })
	veth(t, "docker0")
	up(t, "peer-docker0")
	assign(t, "docker0", "10.0.0.254/24", "fd00::254/64")
	backends := forwarded("10.0.0.1:8080", "[fd00::1]:8080")
	for i := range backends {
		backends[i].Stack = true
	}
	forward := func(policy string, rules ...string) string {
		return "flush ruleset\ntable inet t {\n chain other { drop; }\n chain f { type filter hook forward priority 0; policy " + policy + ";\n" + strings.Join(rules, "\n") + "\n}\n}\n"
	}
	for name, c := range map[string]struct {
		rules string
		drops []string // addresses of backends
	}{
		"none":                     {"flush ruleset", nil},
		"a policy":                 {forward("drop"), []string{"10.0.0.1", "fd00::1"}},
		"known connections":        {forward("drop", "ct state established,related accept", "iifname docker0 accept", "icmp type echo-request accept"), []string{"10.0.0.1", "fd00::1"}},
		"known connections, a map": {forward("drop", "ct state vmap { established : accept, related : accept, invalid : drop }"), []string{"10.0.0.1", "fd00::1"}},
		"one is let through":       {forward("drop", "ip daddr 10.0.0.0/24 tcp dport 8080 counter accept"), []string{"fd00::1"}},
		"by its interface":         {forward("drop", "oifname \"docker*\" accept"), nil},
		"new ones are let through": {forward("drop", "ct state new,established accept"), nil},
		"new ones are dropped":     {forward("accept", "ct state new drop"), []string{"10.0.0.1", "fd00::1"}},
		"another port":             {forward("drop", "tcp dport 8081 accept"), []string{"10.0.0.1", "fd00::1"}},
		"a set of ports":           {forward("drop", "tcp dport { 22, 8080 } accept"), nil},
		"a source":                 {forward("drop", "ip saddr 203.0.113.0/24 accept"), []string{"fd00::1"}},
		"a mark":                   {forward("accept", "meta mark 0x1 drop"), nil},
		"a family":                 {forward("accept", "meta nfproto ipv6 drop"), []string{"fd00::1"}},
		"an IPv6 prefix":           {forward("accept", "ip6 daddr fd00::/60 reject"), []string{"fd00::1"}},
		"another address":          {forward("accept", "ip daddr 10.0.0.2 drop", "ip6 daddr != fd00::1 drop"), nil},
		"what comes from outside":  {forward("accept", "oifname docker0 iifname != docker0 drop"), []string{"10.0.0.1", "fd00::1"}},
		"another chain":            {forward("accept", "tcp dport 8080 jump other"), []string{"10.0.0.1", "fd00::1"}},
		"a table called filter":    {"flush ruleset\ntable ip filter { chain forward { type filter hook forward priority 0; policy drop; ct state vmap { established : accept }; }; }", []string{"10.0.0.1"}},
		"input":                    {"flush ruleset\ntable inet t { chain f { type filter hook input priority 0; policy drop; }; }", nil},
		"raw":                      {"flush ruleset\ntable ip t { chain p { type filter hook prerouting priority raw; ip daddr 10.0.0.1 iifname != docker0 drop; }; }", []string{"10.0.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			nft(c.rules)
			got, err := advice.Firewall(t.Context(), backends)
			must(t, err)
			if len(got) != len(c.drops) {
				t.Fatalf("%q, want %v", got, c.drops)
			}
			for i, ip := range c.drops {
				_, command, found := strings.Cut(got[i], "; run: ")
				if !found || !strings.Contains(command, "daddr "+ip+" tcp dport 8080 accept") {
					t.Fatalf("%q has no command for %s", got[i], ip)
				}
				for line := range strings.SplitSeq(command, " && ") {
					nft(strings.TrimPrefix(line, "nft "))
				}
			}
			if got, err := advice.Firewall(t.Context(), backends); err != nil || len(got) > 0 {
				t.Errorf("after the commands: %q, %v", got, err)
			}
		})
	}
}

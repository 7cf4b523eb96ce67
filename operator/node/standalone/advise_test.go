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

// TestRulesThatDoNotHoldAreSaidAndTakenBack has a firewall that lets in some clients at the
// port of a frontend, until its rule goes.
func TestRulesThatDoNotHoldAreSaidAndTakenBack(t *testing.T) {
	adviseEvery, inputEvery = 20*time.Millisecond, 1
	t.Cleanup(func() { adviseEvery, inputEvery = 5*time.Second, 12 })
	t.Setenv("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
	t.Cleanup(func() { nft(t, "flush ruleset") })
	nft(t, "flush ruleset; table inet host { chain input { type filter hook input priority 0; policy drop; iif lo accept; ip saddr 10.9.0.0/16 tcp dport 80 accept; }; }")
	veth(t, "eth0")
	assign(t, "eth0", host4+"/24")
	i := prepare(t, files(80, far4))
	var log []string
	says := func(words ...string) {
		t.Helper()
		eventually(t, func() error {
			log = append(log, i.log.take()...)
			if !slices.ContainsFunc(log, func(line string) bool {
				return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) })
			}) {
				return fmt.Errorf("no line has %q: %q", words, log)
			}
			return nil
		})
	}
	i.start()
	says("level=WARN", "firewall restricts", ":80/tcp", "nft table inet host: -A input -s 10.9.0.0/16 -p tcp --dport 80 -j ACCEPT", "every client may connect")
	nft(t, "flush ruleset")
	says("mended", "firewall restricts")
}

// nft runs a script of nft.
func nft(t *testing.T, script string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s\n%s", err, script, out)
	}
}

// TestRulesOfNftablesForSomeClientsAreNamed has nft make the rules.
func TestRulesOfNftablesForSomeClientsAreNamed(t *testing.T) {
	t.Setenv("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
	t.Cleanup(func() { nft(t, "flush ruleset") })
	input := func(policy string, rules ...string) string {
		return "flush ruleset\ntable inet t {\n set lan { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; }\n set web { type inet_service; elements = { 80, 443 }; }\n" +
			" set high { type inet_service; flags interval; elements = { 8000-8100, 9000-65535 }; }\n chain some { ip saddr 10.0.0.0/8 accept; ip6 saddr fd00::/8 accept; }\n" +
			" chain f { type filter hook input priority 0; policy " + policy + ";\n" + strings.Join(rules, "\n") + "\n}\n}\n"
	}
	open := func(addr string, port uint16) advice.Open {
		return advice.Open{Addr: netip.MustParseAddr(addr), Protocol: lb.TCP, First: port, Last: port}
	}
	for name, c := range map[string]struct {
		rules string
		port  uint16
		v4    string // words of what is told, "": nothing is
		v6    string
	}{
		"none":                       {"flush ruleset", 80, "", ""},
		"closed":                     {input("drop", "iif lo accept", "ct state established,related accept", "tcp dport 22 accept"), 80, "", ""},
		"an open port":               {input("drop", "iif lo accept", "tcp dport 80 accept"), 80, "", ""},
		"open for both protocols":    {input("drop", "ip saddr 10.0.0.0/8 tcp dport 80 accept", "meta l4proto { tcp, udp } th dport 80 accept"), 80, "", ""},
		"a network":                  {input("drop", "ip saddr 10.0.0.0/8 tcp dport 80 accept"), 80, "-s 10.0.0.0/8 -p tcp --dport 80", ""},
		"an odd network":             {input("drop", "ip6 saddr fd00::/61 tcp dport 80 accept"), 80, "", "-s fd00::/61"},
		"a set of clients":           {input("drop", "ip saddr @lan tcp dport 80 accept"), 80, "-s @lan", ""},
		"a set of ports":             {input("accept", "ip saddr 10.0.0.7 tcp dport @web drop"), 80, "-s 10.0.0.7/32", ""},
		"another set of ports":       {input("accept", "tcp dport @web drop"), 81, "", ""},
		"ports that are not in it":   {input("accept", "tcp dport != @web drop"), 80, "", ""},
		"a range":                    {input("accept", "tcp dport 8000-8100 drop"), 8050, "--dports", "--dports"},
		"beside the range":           {input("accept", "tcp dport 8000-8100 drop"), 8101, "", ""},
		"not the range":              {input("accept", "tcp dport != 8000-8100 drop"), 8101, "", ""},
		"a range of a set":           {input("accept", "tcp dport @high drop"), 8100, "8000:8100", "8000:8100"},
		"beside the range of a set":  {input("accept", "tcp dport @high drop"), 8101, "", ""},
		"a range to the last port":   {input("accept", "tcp dport @high drop"), 65535, "9000:65535", "9000:65535"},
		"an interface":               {input("drop", "iifname \"eth7\" tcp dport 80 accept"), 80, "-i eth7", "-i eth7"},
		"lo, by its index":           {input("drop", "iif lo tcp dport 80 accept"), 80, "", ""},
		"a chain":                    {input("drop", "tcp dport 80 jump some"), 80, "-A f -p tcp --dport 80 -j some", "-A f -p tcp --dport 80 -j some"},
		"a rate":                     {input("drop", "tcp dport 80 limit rate 10/second accept"), 80, "--unknown -j ACCEPT", "--unknown -j ACCEPT"},
		"forwarded":                  {"flush ruleset; table inet t { chain f { type filter hook forward priority 0; policy drop; ip saddr 10.0.0.0/8 tcp dport 80 accept; }; }", 80, "", ""},
		"as firewalld, with sources": {input("drop", "ct status dnat accept", "iifname lo accept", "ct state invalid drop", "ip saddr 10.0.0.0/8 tcp dport 80 ct state { new, untracked } accept", "reject with icmpx admin-prohibited"), 80, "-s 10.0.0.0/8", ""},
	} {
		t.Run(name, func(t *testing.T) {
			nft(t, c.rules)
			for addr, want := range map[string]string{"192.0.2.10": c.v4, "2001:db8::10": c.v6} {
				got, err := advice.Input(t.Context(), []advice.Open{open(addr, c.port)})
				must(t, err)
				if want == "" && len(got) > 0 || want != "" && (len(got) != 1 || !strings.Contains(got[0], want)) {
					t.Errorf("%s: %q, want %q", addr, got, want)
				}
			}
		})
	}
}

// TestRulesOfNftablesThatDropAreNamed has nft make the rules, and runs the command of the
// message.
func TestRulesOfNftablesThatDropAreNamed(t *testing.T) {
	t.Setenv("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
	t.Cleanup(func() { nft(t, "flush ruleset") })
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
			nft(t, c.rules)
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
					nft(t, strings.TrimPrefix(line, "nft "))
				}
			}
			if got, err := advice.Firewall(t.Context(), backends); err != nil || len(got) > 0 {
				t.Errorf("after the commands: %q, %v", got, err)
			}
		})
	}
}

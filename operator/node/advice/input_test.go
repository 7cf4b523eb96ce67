// SPDX-License-Identifier: Apache-2.0

package advice

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// TestRuleForSomeClientsIsNamed has rules of the input hook that let in some clients at a
// frontend's port. testdata/ufw-0.36.txt is what ufw has made of:
//
//	ufw allow from 10.0.0.0/8 to any port 80 proto tcp
//	ufw allow 22/tcp
//	ufw deny 5432/tcp
//	ufw limit 2222/tcp
//	ufw allow in on eth1 to any port 8081 proto tcp
//	ufw allow proto tcp from 10.1.0.0/16 to any port 9000:9100
func TestRuleForSomeClientsIsNamed(t *testing.T) {
	text, err := os.ReadFile("testdata/ufw-0.36.txt")
	if err != nil {
		t.Fatal(err)
	}
	ufw := string(text)
	filter := func(policy, input string) string {
		return "*filter\n:INPUT " + policy + " [0:0]\n:WEB - [0:0]\n:BANNED - [0:0]\n:FORWARD ACCEPT [0:0]\n" + input + "COMMIT\n"
	}
	const lan = "-A INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 80 -j ACCEPT\n"
	for _, c := range []struct {
		name, rules string
		port, last  uint16
		want        []string // words of what is told; nil: nothing is
	}{
		{"ufw, from a network", ufw, 80, 80, []string{"table filter: -A ufw-user-input -s 10.0.0.0/8 -p tcp -m tcp --dport 80 -j ACCEPT"}},
		{"ufw, from everywhere", ufw, 22, 22, nil},
		{"ufw, denied", ufw, 5432, 5432, []string{"--dport 5432 -j DROP"}},
		{"ufw, limited", ufw, 2222, 2222, []string{"--hitcount 6"}},
		{"ufw, by an interface", ufw, 8081, 8081, []string{"-i eth1"}},
		{"ufw, a range", ufw, 9050, 9050, []string{"--dports 9000:9100"}},
		{"ufw, ports of which one is of the range", ufw, 8990, 9001, []string{"--dports 9000:9100"}},
		{"ufw, not of the range", ufw, 8990, 8999, nil},
		{"ufw, not named", ufw, 443, 443, nil},

		{"no rules", "", 80, 80, nil},
		{"closed", filter("DROP", ""), 80, 80, nil},
		{"closed by a rule", filter("ACCEPT", "-A INPUT -p tcp -j REJECT\n"), 80, 80, nil},
		{"some", filter("DROP", lan), 80, 80, []string{"-s 10.0.0.0/8"}},
		{"some, then a reject", filter("ACCEPT", lan+"-A INPUT -j REJECT --reject-with icmp-host-prohibited\n"), 80, 80, []string{"-s 10.0.0.0/8"}},
		{"some, and the others", filter("ACCEPT", lan), 80, 80, nil},
		{"some, where others are denied", filter("ACCEPT", lan+"-A INPUT -s 203.0.113.7/32 -j DROP\n"), 80, 80, nil},
		{"some, and everybody", filter("DROP", lan+"-A INPUT -p tcp --dport 80 -m conntrack --ctstate NEW -j ACCEPT\n"), 80, 80, nil},
		{"some, and every SYN", filter("DROP", lan+"-A INPUT -p tcp -m tcp --dport 80 --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT\n"), 80, 80, nil},
		{"a denied one, and the others", filter("DROP", "-A INPUT -s 203.0.113.7/32 -p tcp --dport 80 -j DROP\n-A INPUT -p tcp --dport 80 -j ACCEPT\n"), 80, 80, []string{"203.0.113.7/32"}},
		{"a set", filter("DROP", "-A INPUT -p tcp --dport 80 -m set --match-set lan src -j ACCEPT\n"), 80, 80, []string{"--match-set lan src"}},
		{"a chain for some", filter("DROP", "-A INPUT -s 10.0.0.0/8 -j WEB\n-A WEB -p tcp --dport 80 -j ACCEPT\n"), 80, 80, []string{"-A WEB -p tcp --dport 80"}},
		{"a chain for a port", filter("DROP", "-A INPUT -p tcp --dport 80 -j WEB\n-A WEB -s 10.0.0.0/8 -j ACCEPT\n-A WEB -s 10.1.0.0/16 -j ACCEPT\n"), 80, 80, []string{"-A INPUT -p tcp --dport 80 -j WEB"}},
		{"fail2ban", filter("ACCEPT", "-A INPUT -p tcp -m multiport --dports 80,443 -j BANNED\n-A BANNED -s 203.0.113.7/32 -j REJECT\n-A BANNED -j RETURN\n"), 80, 80, []string{"-A INPUT -p tcp -m multiport --dports 80,443 -j BANNED"}},
		{"fail2ban without a ban", filter("ACCEPT", "-A INPUT -p tcp -m multiport --dports 80,443 -j BANNED\n-A BANNED -j RETURN\n"), 80, 80, nil},
		{"another protocol", filter("DROP", "-A INPUT -s 10.0.0.0/8 -p udp --dport 80 -j ACCEPT\n"), 80, 80, nil},
		{"another address", filter("DROP", "-A INPUT -s 10.0.0.0/8 -d 192.0.2.11/32 -p tcp --dport 80 -j ACCEPT\n"), 80, 80, nil},
		{"this address", filter("DROP", "-A INPUT -s 10.0.0.0/8 -d 192.0.2.10/32 -p tcp --dport 80 -j ACCEPT\n"), 80, 80, []string{"192.0.2.10/32"}},
		{"this host", filter("DROP", "-A INPUT -i lo -p tcp --dport 80 -j ACCEPT\n"), 80, 80, nil},
		{"all but a port", filter("ACCEPT", "-A INPUT -p tcp ! --dport 22 -j DROP\n"), 80, 80, nil},
		{"invalid ones", filter("ACCEPT", "-A INPUT -p tcp --dport 80 -m conntrack --ctstate INVALID -j DROP\n"), 80, 80, nil},
		{"forwarded ones", filter("ACCEPT", "-A FORWARD -p tcp --dport 80 -j DROP\n"), 80, 80, nil},
		{"a loop", filter("DROP", "-A INPUT -j WEB\n-A WEB -j WEB\n"), 80, 80, nil},
		{"no argument", filter("DROP", "-A INPUT -p tcp --dport\n-A INPUT --tcp-flags\n"), 80, 80, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := (&firewall{iptables: parseRules(c.rules)}).restricting(Open{netip.MustParseAddr("192.0.2.10"), lb.TCP, c.port, c.last})
			if c.want == nil && got != "" {
				t.Errorf("unexpected: %s", got)
			}
			for _, words := range c.want {
				if !strings.Contains(got, words) {
					t.Errorf("%q has no %q", got, words)
				}
			}
		})
	}
	many := filter("ACCEPT", strings.Repeat("-A INPUT -s 10.0.0.0/8 -p tcp --dport 80 -j DROP\n", 1000))
	got := (&firewall{iptables: parseRules(many)}).restricting(Open{netip.MustParseAddr("192.0.2.10"), lb.TCP, 80, 80})
	if !strings.HasSuffix(got, "; and 997 more") || len(got) > 400 {
		t.Errorf("of 1,000 rules: %q", got)
	}
}

// TestWhoseClientsAreNotRestricted tells which frontends rules of the input hook do not hold for.
func TestWhoseClientsAreNotRestricted(t *testing.T) {
	host := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	to := func(addrs ...string) (list []lb.Backend) {
		for _, a := range addrs {
			list = append(list, lb.Backend{Addr: netip.MustParseAddrPort(a)})
		}
		return list
	}
	policy := func(r lb.Restriction) lb.Settings { return lb.Settings{Restrictions: []lb.Restriction{r}} }
	for name, c := range map[string]struct {
		settings lb.Settings
		backends []lb.Backend
		want     []uint16 // first and last port
	}{
		"elsewhere":                  {lb.Settings{}, to("10.0.0.1:80"), []uint16{80, 80}},
		"sources":                    {policy(lb.Restriction{Sources: true}), to("10.0.0.1:80"), nil},
		"sources, to be tried":       {policy(lb.Restriction{Sources: true, DryRun: true}), to("10.0.0.1:80"), []uint16{80, 80}},
		"limits alone":               {policy(lb.Restriction{Limits: &lb.Limits{}}), to("10.0.0.1:80"), []uint16{80, 80}},
		"refused":                    {lb.Settings{Refused: "a policy"}, to("10.0.0.1:80"), nil},
		"the host's server":          {lb.Settings{}, to("192.0.2.1:80"), nil},
		"the host's, another port":   {lb.Settings{}, to("192.0.2.1:8080"), []uint16{80, 80}},
		"the host's and another one": {lb.Settings{}, to("192.0.2.1:80", "10.0.0.1:80"), []uint16{80, 80}},
		"no backends":                {lb.Settings{}, nil, nil},
		"more ports":                 {lb.Settings{Ports: &lb.Ports{Last: 90}}, to("10.0.0.1:80"), []uint16{80, 90}},
		"ports before its own":       {lb.Settings{Ports: &lb.Ports{First: 70, Last: 90}}, to("10.0.0.1:80"), []uint16{70, 90}},
	} {
		var got []uint16
		for _, o := range Opens(lb.State{Frontends: []lb.Frontend{{Addr: netip.MustParseAddr("192.0.2.10"), Protocol: lb.TCP, Port: 80, Backends: c.backends, Settings: c.settings}}}, host) {
			got = append(got, o.First, o.Last)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: ports %v, want %v", name, got, c.want)
		}
	}
}

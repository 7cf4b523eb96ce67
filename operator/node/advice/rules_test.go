// SPDX-License-Identifier: Apache-2.0

package advice

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// docker27 is what Docker 27 sets up for a container without published ports, and
// docker28 what came with Docker 28.
const (
	docker27 = `
*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
:DOCKER - [0:0]
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.3/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 8080 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
`
	docker28 = `
*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
COMMIT
*filter
:FORWARD ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -o docker0 -j DOCKER
-A DOCKER-FORWARD -i docker0 -j ACCEPT
COMMIT
`
)

func backend(addr string) Backend { return Backend{netip.MustParseAddrPort(addr), lb.TCP, true} }

func TestRuleThatDropsIsNamedWithTheRemedy(t *testing.T) {
	filter := func(forward string) string {
		return "*filter\n:FORWARD ACCEPT [0:0]\n:USER - [0:0]\n" + forward + "COMMIT\n"
	}
	for _, c := range []struct {
		name, rules string
		addr, out   string
		want        []string // words of the message; nil: there is none
	}{
		{"no rules", "", "172.17.0.2:8080", "docker0", nil},
		{"Docker's policy", docker27, "172.17.0.2:8080", "docker0", []string{"172.17.0.2:8080", "-P FORWARD DROP", "iptables -t filter -I DOCKER-USER -d 172.17.0.2/32 -p tcp --dport 8080 -j ACCEPT"}},
		{"a published port", docker27, "172.17.0.3:8080", "docker0", nil},
		{"another port of it", docker27, "172.17.0.3:8081", "docker0", []string{"-P FORWARD DROP"}},
		{"Docker's raw rule", docker28, "172.17.0.2:8080", "docker0", []string{"table raw", "! -i docker0 -j DROP", "iptables -t raw -I PREROUTING -d 172.17.0.2/32", "&& iptables -t filter -I DOCKER-USER"}},
		{"behind the raw rule", docker28, "172.17.0.9:8080", "docker0", []string{"table filter", "-A DOCKER ! -i docker0", "-I DOCKER-USER"}},
		{"another bridge", docker28, "10.0.0.2:8080", "br0", nil},
		{"after the remedy", strings.Replace(docker27, "-A DOCKER-USER", "-A DOCKER-USER -d 172.17.0.2/32 -p tcp -m tcp --dport 8080 -j ACCEPT\n-A DOCKER-USER", 1), "172.17.0.2:8080", "docker0", nil},
		{"ufw", "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n", "10.0.0.2:8080", "br0", []string{"-P FORWARD DROP", "-I FORWARD"}},

		{"depends on the source", filter("-A FORWARD -s 10.1.0.0/16 -j DROP\n"), "10.0.0.2:8080", "br0", nil},
		{"some sources may", filter("-A FORWARD -s 10.1.0.0/16 -j ACCEPT\n-A FORWARD -j DROP\n"), "10.0.0.2:8080", "br0", nil},
		{"depends on a set", filter("-A FORWARD -m set --match-set bad dst -j DROP\n"), "10.0.0.2:8080", "br0", nil},
		{"depends on a mark", filter("-A FORWARD -m mark ! --mark 0x1 -j DROP\n"), "10.0.0.2:8080", "br0", nil},
		{"invalid connections", filter("-A FORWARD -m conntrack --ctstate INVALID -j DROP\n"), "10.0.0.2:8080", "br0", nil},
		{"all that is not known", filter("-A FORWARD -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP\n"), "10.0.0.2:8080", "br0", []string{"--ctstate"}},
		{"another protocol", filter("-A FORWARD -p udp -j DROP\n"), "10.0.0.2:8080", "br0", nil},
		{"a range", filter("-A FORWARD -p tcp -m multiport --dports 22,8000:9000 -j REJECT --reject-with tcp-reset\n"), "10.0.0.2:8080", "br0", []string{"REJECT"}},
		{"not the range", filter("-A FORWARD -p tcp -m multiport ! --dports 22,8000:9000 -j REJECT\n"), "10.0.0.2:8080", "br0", nil},
		{"a pattern", filter("-A FORWARD -o br+ -j DROP\n"), "10.0.0.2:8080", "br0", []string{"br+"}},
		{"a comment", filter("-A FORWARD -m comment --comment \"we -j ACCEPT all\" -j DROP\n"), "10.0.0.2:8080", "br0", []string{"DROP"}},
		{"a log", filter("-A FORWARD -j LOG --log-prefix \"x \"\n-A FORWARD -j DROP\n"), "10.0.0.2:8080", "br0", []string{"DROP"}},
		{"a chain that returns", filter("-A FORWARD -j USER\n-A FORWARD -j DROP\n-A USER -j RETURN\n-A USER -j ACCEPT\n"), "10.0.0.2:8080", "br0", []string{"-A FORWARD -j DROP"}},
		{"a chain that may return", filter("-A FORWARD -j USER\n-A USER -s 10.1.0.0/16 -j RETURN\n-A USER -j DROP\n"), "10.0.0.2:8080", "br0", nil},
		{"a chain of no return", filter("-A FORWARD -g USER\n-A FORWARD -j DROP\n"), "10.0.0.2:8080", "br0", nil},
		{"a loop", filter("-A FORWARD -j USER\n-A USER -j USER\n"), "10.0.0.2:8080", "br0", nil},
		{"cut off", filter("-A FORWARD -d\n-A FORWARD -j\n-A FORWARD !\n-A\n"), "10.0.0.2:8080", "br0", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := (&firewall{command: "iptables", iptables: parseRules(c.rules)}).message(backend(c.addr), c.out)
			if c.want == nil && m != "" {
				t.Errorf("unexpected: %s", m)
			}
			for _, words := range c.want {
				if !strings.Contains(m, words) {
					t.Errorf("%q has no %q", m, words)
				}
			}
		})
	}
}

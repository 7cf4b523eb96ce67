// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// protectionWithin is how soon nothing leaves in clear text any more once the host has a policy.
const protectionWithin = time.Second

// unanswered is how long to wait for what must not come.
const unanswered = 300 * time.Millisecond

// clearText returns how many packets of a protocol, TCP or UDP, are to the servers' port. Those
// of the other family may be what earlier clients still repeat.
func clearText(packets [][]byte, family int, protocol byte) (n int) {
	header, next := 20, 9
	if family == 6 {
		header, next = 40, 6
	}
	for _, p := range packets {
		if len(p) >= header+4 && int(p[0]>>4) == family && p[next] == protocol && binary.BigEndian.Uint16(p[header+2:]) == 8080 {
			n++
		}
	}
	return n
}

// reaches reports whether a new client gets an answer in time, and what the server has seen of it.
func reaches(w *labtest.World, from *lab.Node, network, addr string, limit time.Duration) (bool, lab.Answer) {
	w.Helper()
	local := ""
	if network == "udp" {
		local = fmt.Sprintf(":%d", labtest.NewPort())
	}
	c, err := from.Dial(network, local, addr, limit)
	if err != nil {
		return false, lab.Answer{}
	}
	defer c.Close()
	a, err := lab.Ask(c, "hello", limit)
	return err == nil, a
}

// TestIPsecPoliciesAreObeyed gives the host policies that cover a backend, with flows
// to it and without. Nothing may leave that they do not allow, and what they allow does.
func TestIPsecPoliciesAreObeyed(t *testing.T) {
	w := labtest.New(t, "ipsec", 1, 0)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, w.Backends...)}))
	backend := w.Backends[0]
	for _, family := range []int{4, 6} {
		any, server, host := "0.0.0.0/0", "10.77.0.11", "10.77.0.1"
		if family == 6 {
			any, server, host = "::/0", "fd77::11", "fd77::1"
		}
		esp := fmt.Sprintf("tmpl src %s dst %s proto esp mode tunnel reqid 1", host, server)
		for _, p := range []struct {
			name, policy string
			tcp          bool // TCP is allowed
		}{
			{"block", "policy add dir out src " + any + " dst " + server + " action block", false},
			{"block forwarded", "policy add dir fwd src " + any + " dst " + server + " action block", false},
			{"encrypt, without keys", "policy add dir out src " + any + " dst " + server + " " + esp, false},
			{"encrypt everything, without keys", "policy add dir out src " + any + " dst " + any + " " + esp, false},
			{"block UDP", "policy add dir out src " + any + " dst " + server + " proto udp action block", true},
			{"block by default", "policy setdefault out block", false},
		} {
			t.Run(fmt.Sprintf("IPv%d/%s", family, p.name), func(t *testing.T) {
				w := w.In(t)
				addr := labtest.VIP(family, 80)
				xfrm := func(command string) {
					w.Balancer.IP("xfrm " + command)
					w.Check(w.Err())
				}
				flows := map[string]net.Conn{}
				for _, network := range []string{"tcp", "udp"} {
					flows[network] = w.Dial(w.Client, network, addr)
					w.Ask(flows[network], "hello")
				}

				xfrm(p.policy)
				t.Cleanup(func() {
					w.Balancer.IP("xfrm policy flush", "xfrm policy setdefault out accept")
					if err := w.Err(); err != nil {
						t.Error(err)
					}
				})
				time.Sleep(protectionWithin)
				stop := sniff(w, backend)
				for network, c := range flows {
					if _, err := lab.Ask(c, "again", unanswered); err == nil && (network == "udp" || !p.tcp) {
						t.Errorf("a flow of %s goes on", network)
					}
				}
				for _, from := range []*lab.Node{w.Client, w.Balancer} {
					for _, network := range []string{"tcp", "udp"} {
						if answered, _ := reaches(w, from, network, addr, unanswered); answered && (network == "udp" || !p.tcp) {
							t.Errorf("%s is answered by %s", from.Name, network)
						}
					}
				}
				if p.tcp {
					if answered, _ := reaches(w, w.Client, "tcp", addr, labtest.Patience); !answered {
						t.Error("TCP, which the policy allows, gets no answer")
					}
				}
				packets := stop()
				if n := clearText(packets, family, unix.IPPROTO_UDP); n > 0 {
					t.Errorf("%d datagrams leave in clear text", n)
				}
				if n := clearText(packets, family, unix.IPPROTO_TCP); n > 0 && !p.tcp {
					t.Errorf("%d TCP segments leave in clear text", n)
				}

				xfrm("policy flush")
				xfrm("policy setdefault out accept")
				for _, network := range []string{"tcp", "udp"} {
					w.Check(lab.Eventually(labtest.Patience, func() error {
						if answered, a := reaches(w, w.Client, network, addr, unanswered); !answered {
							return fmt.Errorf("without the policy the client gets no answer by %s", network)
						} else if seen := netip.MustParseAddrPort(a.Client).Addr().String(); seen != host {
							return fmt.Errorf("the server sees %v, want the host's address %s", seen, host)
						}
						return nil
					}))
				}
			})
		}
	}
}

// TestClientsThatIPsecPoliciesCover gives the host policies that cover what a frontend sends to
// clients: no answer may leave in clear text. What a policy lets pass does.
func TestClientsThatIPsecPoliciesCover(t *testing.T) {
	w := labtest.New(t, "ipsecclients", 1, 1)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{
		80: lab.Endpoints(8080, w.Backends...),
		81: lab.On("balancer", lab.Endpoints(8080, w.Pods...)),
	}))
	for _, family := range []int{4, 6} {
		any, client, vip, other := "0.0.0.0/0", lab.Client4, lab.VIP4, lab.Outside4
		if family == 6 {
			any, client, vip, other = "::/0", lab.Client6, lab.VIP6, lab.Outside6
		}
		for _, p := range []struct {
			name     string
			policies []string
			served   bool
		}{
			{"block", []string{"src " + vip + " dst " + client + " action block"}, false},
			{"encrypt", []string{"src " + vip + " dst " + client + " tmpl src " + other + " dst " + client + " proto esp mode transport reqid 1"}, false},
			{"encrypt everything", []string{"src " + any + " dst " + any + " tmpl src " + other + " dst " + client + " proto esp mode tunnel reqid 1"}, false},
			{"of another address", []string{"src " + other + " dst " + client + " action block"}, true},
			{"of another port", []string{"src " + vip + " dst " + any + " proto udp sport 1701 action block"}, true},
			{"let pass", []string{
				"src " + vip + " dst " + any + " priority 2 action block", "src " + any + " dst " + client + " priority 1 action allow",
			}, true},
		} {
			t.Run(fmt.Sprintf("IPv%d/%s", family, p.name), func(t *testing.T) {
				w := w.In(t)
				flows := map[string]net.Conn{}
				for _, network := range []string{"tcp", "udp"} {
					for _, port := range []int{80, 81} {
						c := w.Dial(w.Client, network, labtest.VIP(family, port))
						w.Ask(c, "hello")
						flows[fmt.Sprint(network, " ", port)] = c
					}
				}
				t.Cleanup(func() {
					w.Balancer.IP("xfrm policy flush")
					if err := w.Err(); err != nil {
						t.Error(err)
					}
				})
				for _, policy := range p.policies {
					w.Balancer.IP("xfrm policy add dir out " + policy)
				}
				w.Check(w.Err())
				time.Sleep(protectionWithin + protectionWithin/10) // a tick is 1.07 s
				stop := sniff(w, w.Client)
				limit := unanswered
				if p.served {
					limit = labtest.Patience
				}
				for name, c := range flows {
					if _, err := lab.Ask(c, "again", limit); (err == nil) != p.served {
						t.Errorf("flow %s: %v", name, err)
					}
				}
				for _, port := range []int{80, 81} {
					for _, network := range []string{"tcp", "udp"} {
						if answered, _ := reaches(w, w.Client, network, labtest.VIP(family, port), limit); answered != p.served {
							t.Errorf("a new client of %s %d is answered: %v", network, port, answered)
						}
					}
				}
				for _, packet := range stop() {
					if from := source(packet); !p.served && from.String() == vip {
						t.Errorf("%d bytes come from %s in clear text", len(packet), vip)
					}
				}
			})
		}
	}
}

// source returns the source address of a packet, the zero Addr if it is not IP.
func source(packet []byte) netip.Addr {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(packet[12:]))
	case len(packet) >= 40 && packet[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(packet[8:]))
	}
	return netip.Addr{}
}

// TestIPsecPolicyThatIsGoneIsRemembered kills a process that has found a backend covered,
// after the policy has gone, as it does while keys are negotiated. Connections to the
// backend go on with the next process.
func TestIPsecPolicyThatIsGoneIsRemembered(t *testing.T) {
	w := labtest.New(t, "ipsec-gone", 1, 0)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, w.Backends...)}))
	w.Check(w.Blixt.AwaitLog("INFO serving", labtest.Patience, func() error {
		w.Balancer.IP("xfrm policy add dir out src 0.0.0.0/0 dst 10.77.0.11 action block")
		return w.Err()
	}))
	w.Balancer.IP("xfrm policy flush")
	w.Check(w.Err())
	var c net.Conn
	w.Check(lab.Eventually(labtest.Patience, func() (err error) {
		c, err = w.Client.Dial("tcp", "", labtest.VIP(4, 80), unanswered)
		return err
	}))
	defer c.Close()
	w.Ask(c, "before")
	w.Check(w.Blixt.Kill())
	w.Check(w.Blixt.Start())
	for range 20 { // what is removed goes after what replaces it is there
		w.Ask(c, "after")
		time.Sleep(50 * time.Millisecond)
	}
}

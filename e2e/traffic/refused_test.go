// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// probe has the client send a datagram, or a SYN, with that hop limit. It returns the
// ICMP error that answers it, and for UDP who has sent that, or no error if the server
// answers.
func probe(w *labtest.World, network, addr string, family, hops int) (from netip.Addr, err error) {
	w.Helper()
	d := net.Dialer{Timeout: 2 * labtest.Patience, Control: func(_, _ string, c syscall.RawConn) error {
		if family == 6 {
			return set(rawConn{c}, unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS, hops, unix.IPV6_RECVERR, 1)
		}
		return set(rawConn{c}, unix.SOL_IP, unix.IP_TTL, hops, unix.IP_RECVERR, 1)
	}}
	if network == "udp" {
		d.LocalAddr = &net.UDPAddr{Port: int(labtest.NewPort())}
	}
	var c net.Conn
	if err := w.Client.Do(func() (err error) {
		c, err = d.Dial(network, addr)
		return err
	}); err != nil {
		return from, err
	}
	defer c.Close()
	if network == "tcp" {
		return from, nil
	}
	_, err = lab.Ask(c, "hello", 2*labtest.Patience)
	if err != nil {
		if r, err := takeReport(c.(*net.UDPConn)); err == nil {
			from = r.from
		}
	}
	return from, err
}

// rawConn is a socket that is being made.
type rawConn struct{ syscall.RawConn }

func (r rawConn) SyscallConn() (syscall.RawConn, error) { return r.RawConn, nil }

// TestNobodyThere sends to backends that no packet can reach: clients are told, as a router
// tells them, and do not wait in vain.
func TestNobodyThere(t *testing.T) {
	w := labtest.New(t, "nobody", 1, 1)
	w.Balancer.IP("route add unreachable 10.99.0.0/24", "route add unreachable fd99::/64",
		"route add prohibit 10.98.0.0/24", "route add prohibit fd98::/64")
	// The kernel's own answers go to the same client for each packet that waits for the neighbour: more than it sends to one.
	w.Balancer.Sysctl("net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
	w.Check(w.Err())
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{
		90: {{Addr: "10.77.0.99:8080"}, {Addr: "[fd77::99]:8080"}},
		91: lab.On("balancer", []lab.Endpoint{{Addr: "10.88.0.99:8080"}, {Addr: "[fd88::99]:8080"}}),
		92: {{Addr: "10.99.0.99:8080"}, {Addr: "[fd99::99]:8080"}},
		93: {{Addr: "10.98.0.99:8080"}, {Addr: "[fd98::99]:8080"}},
	}))
	t.Run("", func(t *testing.T) {
		for port, way := range map[int]struct {
			name   string
			errnos map[int]syscall.Errno
			within time.Duration
		}{
			// The kernel asks for the neighbour three times, once a second.
			90: {"no neighbour on the way to a remote backend", map[int]syscall.Errno{4: unix.EHOSTUNREACH, 6: unix.EHOSTUNREACH}, labtest.Patience},
			91: {"no neighbour on the way to a local backend", map[int]syscall.Errno{4: unix.EHOSTUNREACH, 6: unix.EHOSTUNREACH}, labtest.Patience},
			92: {"unreachable", map[int]syscall.Errno{4: unix.EHOSTUNREACH, 6: unix.ENETUNREACH}, time.Second},
			93: {"prohibited", map[int]syscall.Errno{4: unix.EHOSTUNREACH, 6: unix.EACCES}, time.Second},
		} {
			for _, family := range []int{4, 6} {
				for _, network := range []string{"tcp", "udp"} {
					t.Run(fmt.Sprintf("%s/%s%d", way.name, network, family), func(t *testing.T) {
						t.Parallel()
						w, began := w.In(t), time.Now()
						_, err := probe(w, network, labtest.VIP(family, port), family, 64)
						if took := time.Since(began); !errors.Is(err, way.errnos[family]) || took > way.within {
							t.Errorf("%v after %v, want %v within %v", err, took, way.errnos[family], way.within)
						}
					})
				}
			}
		}
	})
	w.CheckChecksums()
}

// TestNobodyThereWithoutLoopback does without the program at lo, where the kernel's reports
// of silent neighbours are translated. Clients that go on are told all the same, and carried
// when the neighbour answers.
func TestNobodyThereWithoutLoopback(t *testing.T) {
	w := labtest.New(t, "nobodylo", 1, 0)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{90: {{Addr: "10.77.0.99:8080"}, {Addr: "[fd77::99]:8080"}}}), "eth0", "eth1")
	t.Run("", func(t *testing.T) {
		for _, family := range []int{4, 6} {
			t.Run(fmt.Sprintf("tcp%d", family), func(t *testing.T) {
				t.Parallel()
				w := w.In(t)
				w.Check(lab.Eventually(6*labtest.Patience, func() error {
					if _, err := probe(w, "tcp", labtest.VIP(family, 90), family, 64); !errors.Is(err, unix.EHOSTUNREACH) {
						return fmt.Errorf("the client is told %w, not that the host is unreachable", err)
					}
					return nil
				}))
			})
			t.Run(fmt.Sprintf("udp%d", family), func(t *testing.T) {
				t.Parallel()
				w := w.In(t)
				c := w.Dial(w.Client, "udp", labtest.VIP(family, 90))
				level, option := unix.SOL_IP, unix.IP_RECVERR
				if family == 6 {
					level, option = unix.SOL_IPV6, unix.IPV6_RECVERR
				}
				w.Check(set(c.(*net.UDPConn), level, option, 1))
				w.Check(lab.Eventually(2*labtest.Patience, func() error {
					if _, err := lab.Ask(c, "hello", 500*time.Millisecond); !errors.Is(err, unix.EHOSTUNREACH) {
						return fmt.Errorf("the client is told %w, not that the host is unreachable", err)
					}
					return nil
				}))
			})
		}
	})
	w.Backends[0].IP("address add 10.77.0.99/24 dev eth0", "address add fd77::99/64 dev eth0 nodad")
	w.Check(w.Err())
	for _, ip := range []string{"10.77.0.99", "fd77::99"} {
		_, err := w.Backends[0].Serve("again", labtest.At(ip, 8080))
		w.Check(err)
	}
	for _, family := range []int{4, 6} {
		w.Check(lab.Eventually(2*labtest.Patience, func() error {
			if answered, _ := reaches(w, w.Client, "tcp", labtest.VIP(family, 90), time.Second); !answered {
				return fmt.Errorf("IPv%d: no answer of a neighbour that is there again", family)
			}
			return nil
		}))
	}
}

// TestTraceroute sends packets whose hop limit ends at the VIP, as traceroute does.
func TestTraceroute(t *testing.T) {
	w := labtest.New(t, "traceroute", 1, 1)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{
		toRemote: lab.Endpoints(8080, w.Backends...),
		toPods:   lab.On("balancer", lab.Endpoints(8080, w.Pods...)),
	}))
	for _, family := range []int{4, 6} {
		vip := netip.MustParseAddrPort(labtest.VIP(family, 1)).Addr()
		for _, network := range []string{"tcp", "udp"} {
			for _, port := range []int{toRemote, toPods} {
				t.Run(fmt.Sprintf("%s%d to port %d", network, family, port), func(t *testing.T) {
					w, addr := w.In(t), labtest.VIP(family, port)
					from, err := probe(w, network, addr, family, 1)
					if !errors.Is(err, unix.EHOSTUNREACH) || network == "udp" && from != vip {
						t.Errorf("hop limit 1: %v from %v, want %v from %v", err, from, unix.EHOSTUNREACH, vip)
					}
					if _, err := probe(w, network, addr, family, 2); err != nil {
						t.Errorf("hop limit 2: %v, want the server", err)
					}
				})
			}
		}
		t.Run(fmt.Sprintf("to a port that nobody serves, IPv%d", family), func(t *testing.T) {
			w := w.In(t)
			// The VIP is the end of the way: whatever is left of the hop limit.
			for _, network := range []string{"tcp", "udp"} {
				if from, err := probe(w, network, labtest.VIP(family, 33434), family, 1); !errors.Is(err, unix.ECONNREFUSED) || network == "udp" && from != vip {
					t.Errorf("%s: %v from %v, want %v from %v", network, err, from, unix.ECONNREFUSED, vip)
				}
			}
		})
		for _, port := range []int{toRemote, toPods} {
			t.Run(fmt.Sprintf("a connection goes on, IPv%d to port %d", family, port), func(t *testing.T) {
				w := w.In(t)
				c := w.Dial(w.Client, "tcp", labtest.VIP(family, port)).(*net.TCPConn)
				w.Ask(c, "hello")
				level, option := unix.SOL_IP, unix.IP_TTL
				if family == 6 {
					level, option = unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS
				}
				w.Check(set(c, level, option, 1))
				counter := map[int]string{toRemote: "reject_hop_limit", toPods: "icmp_replied"}[port] // who answers: Blixt, the stack
				s := w.Count(func() {
					_, err := c.Write([]byte("ag"))
					w.Check(err)
					time.Sleep(300 * time.Millisecond) // it is repeated, too
				})
				if s.Rise(counter) == 0 {
					t.Errorf("%s has not risen", counter)
				}
				w.Check(set(c, level, option, 64))
				if a, err := lab.Ask(c, "ain", labtest.Patience); err != nil || a.Body != "again" {
					t.Errorf("answer %q, %v", a.Body, err)
				}
			})
		}
	}
	// Not at the balancer, which counts used up hop limits in the same place.
	if n, err := w.Client.ChecksumErrors(); n > 0 || err != nil {
		t.Errorf("the client has seen %d wrong checksums (%v)", n, err)
	}
}

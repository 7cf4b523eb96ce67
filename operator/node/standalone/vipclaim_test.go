// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
	"github.com/kubernetes-sigs/blixt/operator/node/vip"
)

// cable is a link between the host and another one, and what holds addresses there.
type cable struct {
	*testing.T
	other   neighbour
	changed chan bool
	*vip.Holder
	*observer
}

func newCable(t *testing.T) *cable {
	t.Helper()
	forward(t, "1")
	c := &cable{T: t, other: newNeighbour(t, peer4+"/24", peer6+"/64"), changed: make(chan bool, 100), observer: newObserver(nil, 0)}
	t.Cleanup(c.watcher.Close)
	assign(t, "eth0", host4+"/24", host6+"/64")
	c.Holder = vip.New(vip.Options{Name: "test", Changed: func() { c.changed <- true }})
	t.Cleanup(func() { must(t, c.Remove()) })
	return c
}

// hold makes exactly these addresses ours.
func (c *cable) hold(addresses ...string) {
	c.Helper()
	n, err := c.look()
	must(c.T, err)
	must(c.T, c.Hold(ips(addresses...), n.View))
}

// says waits until a problem with all these words is reported; none: until there is none.
func (c *cable) says(words ...string) {
	c.Helper()
	var problems []string
	// A claim pauses for up to 15 seconds before it asks again.
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		problems = c.Problems()
		if len(words) == 0 && len(problems) == 0 || len(words) > 0 && slices.ContainsFunc(problems, func(line string) bool {
			return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) })
		}) {
			return
		}
	}
	c.Fatalf("the problems are %q, want %q", problems, words)
}

// mistaken gives the neighbour a cached MAC for an address that is not ours.
func (c *cable) mistaken(ip string) {
	c.Helper()
	must(c.T, c.other.do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: net.ParseIP(ip), State: unix.NUD_REACHABLE, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}})
	}))
}

// learns waits until the neighbour sends packets for an address to us.
func (c *cable) learns(ip string) {
	c.Helper()
	ours := byName(c.T, "eth0").Attrs().HardwareAddr.String()
	eventually(c.T, func() error {
		c.hold(ip) // as each event of the network does
		return c.other.do(func() error {
			list, err := netlink.NeighList(0, netlink.FAMILY_ALL)
			for _, n := range list {
				if n.IP.Equal(net.ParseIP(ip)) && n.HardwareAddr.String() == ours {
					return err
				}
			}
			return fmt.Errorf("the neighbour does not look for %s at %s: %v", ip, ours, list)
		})
	})
}

// TestTakenAddressIsAnnounced: a neighbour that has cached the MAC of the host that had the
// address before corrects it, when the address is taken and when the link comes back.
func TestTakenAddressIsAnnounced(t *testing.T) {
	for _, ip := range []string{near4, near6} {
		t.Run(ip, func(t *testing.T) {
			c := newCable(t)
			c.mistaken(ip)
			c.hold(ip)
			c.learns(ip)
			must(t, netlink.LinkSetDown(byName(t, "eth0")))
			c.hold(ip)
			up(t, "eth0")
			assign(t, "eth0", host6+"/64") // which goes with the link
			c.mistaken(ip)
			c.hold(ip)
			c.learns(ip)
		})
	}
}

// TestAddressOfANeighbourIsLeftToIt: until the neighbour gives it up.
func TestAddressOfANeighbourIsLeftToIt(t *testing.T) {
	for ip, bits := range map[string]string{near4: "/24", near6: "/64"} {
		t.Run(ip, func(t *testing.T) {
			c := newCable(t)
			change := func(do func(netlink.Link, *netlink.Addr) error) (mac string) {
				must(t, c.other.do(func() error {
					link, err := netlink.LinkByName("eth0")
					if err != nil {
						return err
					}
					mac = link.Attrs().HardwareAddr.String()
					a, err := netlink.ParseAddr(ip + bits)
					if err != nil {
						return err
					}
					a.Flags = unix.IFA_F_NODAD
					return do(link, a)
				}))
				return mac
			}
			mac := change(netlink.AddrAdd)
			c.hold(ip)
			c.says(ip, mac, "eth0", "has it")
			<-c.changed
			if !c.Contested(ips(ip)[0]) {
				t.Error("it is not contested")
			}
			want(t, "eth0", host4, host6)
			want(t, "lo")
			// While it is asked for again, nothing else is said.
			for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
				if !c.Contested(ips(ip)[0]) || len(c.Problems()) != 1 {
					t.Fatalf("it is not contested any more: %v", c.Problems())
				}
			}
			change(netlink.AddrDel)
			c.says()
			if c.Contested(ips(ip)[0]) {
				t.Error("it is contested still")
			}
			c.learnsByAsking(ip)
		})
	}
}

// learnsByAsking waits until the neighbour finds us when it asks.
func (c *cable) learnsByAsking(ip string) {
	c.Helper()
	listen(c.T, here, net.JoinHostPort(ip, "80"))
	eventually(c.T, func() error { return c.other.do(func() error { return reach(ip) }) })
}

// TestAddressOfAKilledProcessIsServedWhileItIsProbed: it is not away for a moment.
func TestAddressOfAKilledProcessIsServedWhileItIsProbed(t *testing.T) {
	for _, ip := range []string{near4, near6} {
		t.Run(ip, func(t *testing.T) { testKilled(t, ip) })
	}
}

func testKilled(t *testing.T, ip string) {
	c := newCable(t)
	c.hold(ip)
	eventuallyHas(t, map[string]string{near4: "eth0", near6: "lo"}[ip], map[string][]string{near4: {host4, host6, near4}, near6: {near6}}[ip]...)
	c.Close() // as if it were killed
	events := make(chan netlink.AddrUpdate, 100)
	done := make(chan struct{})
	defer close(done)
	must(t, netlink.AddrSubscribe(events, done))
	c.mistaken(ip)
	c.Holder = vip.New(vip.Options{Name: "test", Changed: func() {}})
	c.hold(ip)
	c.learns(ip) // by the announcement behind the probes
	for len(events) > 0 {
		if e := <-events; !e.NewAddr {
			t.Errorf("%s was removed", e.LinkAddress.String())
		}
	}
}

// TestAddressOfAnotherLoadBalancerIsLeftToIt: the first has it.
func TestAddressOfAnotherLoadBalancerIsLeftToIt(t *testing.T) {
	c := newCable(t)
	other := vip.New(vip.Options{Name: "other", Changed: func() {}})
	n, err := c.look()
	must(t, err)
	must(t, other.Hold(ips(far4, far6), n.View))
	t.Cleanup(func() { must(t, other.Remove()) })
	eventually(t, func() error { // the kernel tells of IPv6 addresses a little later
		n, err = c.look()
		if err == nil && !slices.ContainsFunc(n.Addresses, func(a hostnet.Address) bool { return a.IP.String() == far6 }) {
			err = errors.New("far away")
		}
		return err
	})
	c.hold(far4, far6)
	c.says(far4, "another load balancer")
	c.says(far6, "another load balancer")
	if !c.Contested(ips(far4)[0]) {
		t.Error("it is not contested")
	}
	must(t, c.Remove())
	want(t, "lo", far4, far6)
	must(t, other.Remove())
	want(t, "lo")
}

// TestAddressFollowsWhetherItsLinkForwards: no event tells of that.
func TestAddressFollowsWhetherItsLinkForwards(t *testing.T) {
	c := newCable(t)
	c.hold(near6)
	eventuallyHas(t, "lo", near6)
	forward(t, "0")
	eventuallyHas(t, "eth0", host4, host6, near6)
	eventuallyHas(t, "lo")
	forward(t, "1")
	eventuallyHas(t, "lo", near6)
	eventuallyHas(t, "eth0", host4, host6)
	c.learnsByAsking(near6)
}

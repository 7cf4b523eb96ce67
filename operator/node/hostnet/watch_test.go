// SPDX-License-Identifier: Apache-2.0

package hostnet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func newWatcher(t *testing.T) *Watcher {
	t.Helper()
	w := Watch()
	mustLook(t, w)
	t.Cleanup(w.Close)
	return w
}

// run has a Watcher run until the test ends. Its channel gets what it tells of.
func run(t *testing.T, w *Watcher) chan bool {
	changed, ended := make(chan bool, 10000), make(chan bool)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		w.Run(ctx, func() { _, _ = w.Look(); changed <- true })
		close(ended)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return changed
}

func TestEveryChangeOfTheNetworkIsReported(t *testing.T) {
	w := newWatcher(t)
	changed := run(t, w)
	notice := func(what string, do func()) {
		t.Helper()
		for len(changed) > 0 {
			<-changed
		}
		do()
		eventually(t, func() error {
			if len(changed) == 0 {
				return fmt.Errorf("nobody notices: %s", what)
			}
			return nil
		})
	}
	var link netlink.Link
	notice("a new interface", func() { link = veth(t, "eth0") })
	notice("an address", func() { assign(t, link, "192.0.2.1/24") })
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP("192.0.2.254")}
	notice("a default route", func() { must(t, netlink.RouteAdd(route)) })
	notice("a default route that goes", func() { must(t, netlink.RouteDel(route)) })
	notice("an interface that goes", func() { must(t, netlink.LinkDel(link)) })
}

// same waits until a Watcher knows the network as it is: the kernel tells of IPv6
// addresses a little later.
func same(t *testing.T, w *Watcher) {
	t.Helper()
	eventually(t, func() error {
		got := mustLook(t, w)
		want, err := Read()
		must(t, err)
		equal := slices.EqualFunc(got.Interfaces, want.Interfaces, Interface.equal)
		if !equal || !slices.Equal(got.Addresses, want.Addresses) || !slices.Equal(got.Defaults, want.Defaults) {
			return fmt.Errorf("known is\n%+v\nthere is\n%+v", got, want)
		}
		return nil
	})
}

// TestEventsTellAll makes many changes at random, which the Watcher follows by events
// alone.
func TestEventsTellAll(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	w := newWatcher(t)
	br := add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}})
	links := []netlink.Link{veth(t, "eth0"), veth(t, "eth1"), veth(t, "eth2")}
	for range 300 {
		link := links[r.IntN(len(links))]
		n := r.IntN(5) + 1
		address := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, byte(n), 1), Mask: net.CIDRMask(24, 32)}}
		address6 := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(fmt.Sprintf("2001:db8:%d::1", n)), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.IPv4(192, 0, byte(n), 254), Priority: n}
		route6 := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(fmt.Sprintf("2001:db8:%d::fe", n)), Priority: n}
		// Many of these fail, as what they are about is there already, or is not.
		switch r.IntN(14) {
		case 0, 1:
			_ = netlink.AddrAdd(link, address)
		case 2:
			_ = netlink.AddrDel(link, address)
		case 3, 4:
			_ = netlink.AddrAdd(link, address6)
		case 5:
			_ = netlink.AddrDel(link, address6)
		case 6, 7:
			_ = netlink.RouteAdd(route)
		case 8:
			_ = netlink.RouteAdd(route6)
		case 9:
			_ = netlink.RouteDel(route)
		case 10:
			_ = netlink.LinkSetDown(link)
		case 11:
			_ = netlink.LinkSetUp(link)
		case 12:
			_ = netlink.LinkSetMaster(link, br)
		case 13:
			_ = netlink.LinkSetNoMaster(link)
		}
		same(t, w)
	}
	for _, link := range links {
		must(t, netlink.LinkDel(link))
		same(t, w)
	}
}

func TestLostEventsAreMadeUpFor(t *testing.T) {
	w := newWatcher(t)
	eth0 := veth(t, "eth0")
	same(t, w)
	must(t, w.events.file.SetReadDeadline(time.Time{}))
	must(t, w.events.raw.Control(func(fd uintptr) {
		must(t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1)) // the kernel gives a little more
	}))
	for n := range 100 {
		assign(t, eth0, fmt.Sprintf("192.0.2.%d/32", n+1))
	}
	must(t, netlink.LinkDel(eth0))
	veth(t, "eth1")
	lists := w.table.dumps
	same(t, w)
	if w.table.dumps == lists {
		t.Error("no events were lost: this tests nothing")
	}
	changed := run(t, w)
	for len(changed) > 0 {
		<-changed
	}
	veth(t, "eth2")
	eventually(t, func() error {
		if len(changed) == 0 {
			return errors.New("it is blind since")
		}
		return nil
	})
	same(t, w)
}

func TestBrokenSubscriptionIsReplaced(t *testing.T) {
	w := newWatcher(t)
	changed := run(t, w)
	w.mu.Lock()
	must(t, w.events.file.Close())
	w.mu.Unlock()
	eventually(t, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.events == nil || w.broken {
			return errors.New("it is blind since")
		}
		return nil
	})
	for len(changed) > 0 {
		<-changed
	}
	veth(t, "eth0")
	eventually(t, func() error {
		if len(changed) == 0 {
			return errors.New("it does not tell of changes")
		}
		return nil
	})
	same(t, w)
}

// TestSteadyChurnIsLookedAt: where there is never quiet, looks are late, but they come.
func TestSteadyChurnIsLookedAt(t *testing.T) {
	w := newWatcher(t)
	eth0 := veth(t, "eth0")
	changed := run(t, w)
	for end := time.Now().Add(time.Minute); len(changed) < 3; {
		if time.Now().After(end) {
			t.Fatalf("%d looks in a minute of churn", len(changed))
		}
		assign(t, eth0, "192.0.2.1/24")
		must(t, netlink.AddrDel(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}}))
	}
}

// TestChangeCostsWhatHasChanged counts what is read of many interfaces and routes.
func TestChangeCostsWhatHasChanged(t *testing.T) {
	for n := range 40 {
		assign(t, veth(t, fmt.Sprintf("eth%d", n)), fmt.Sprintf("198.51.100.%d/32", n))
	}
	eth0, err := netlink.LinkByName("eth0")
	must(t, err)
	for n := range 4000 {
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4(10, byte(n>>8), byte(n), 0), Mask: net.CIDRMask(24, 32)}}))
	}
	w := newWatcher(t)
	cost := func(what string, lists, listed int, change func()) {
		t.Helper()
		mustLook(t, w)
		dumpsBefore, listedBefore := w.table.dumps, w.table.listed
		change()
		mustLook(t, w)
		if l, m := w.table.dumps-dumpsBefore, w.table.listed-listedBefore; l > lists || m > listed {
			t.Errorf("%s: %d lists of %d items were read", what, l, m)
		}
	}
	cost("a new interface", 0, 0, func() { veth(t, "new") })
	cost("a new address", 0, 0, func() { assign(t, eth0, "192.0.2.1/24") })
	cost("another route", 0, 0, func() {
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4(11, 0, 0, 0), Mask: net.CIDRMask(8, 32)}}))
	})
	// The list ends behind the routes to address 0.
	cost("a default route", 1, 2, func() {
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: net.IPv4(192, 0, 2, 254)}))
	})
	same(t, w)
	cost("no change", 0, 0, func() {})
}

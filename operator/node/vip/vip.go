// SPDX-License-Identifier: Apache-2.0

// Package vip gives a host the addresses that Blixt serves alone. In come these
// addresses and the host's network; out go changes of the interfaces' addresses, and the
// packets by which neighbours are asked for them and told of them.
//
//	Hold ──▶ place  on which link neighbours look for an address
//	     ──▶ claim  probing, held, contested: RFC 5227, and the like for IPv6
//	     ──▶ sync   addresses and neighbour proxies in the kernel
//	     ──▶ wire   ARP and neighbour discovery
//
// What anybody else puts on an interface is the host's. So that this is never refused
// because of ours (the kernel takes no address twice on one interface), an IPv4 address
// has a peer that nobody else gives it (in 0.0.0.0/8), and an IPv6 address is on lo, with
// an entry by which the kernel answers for it on the interface of its network. Where the
// kernel does not, because IPv6 is not forwarded there, it is on that interface.
//
// Ours are marked in the kernel: nothing on disk is needed to tell them from others.
package vip

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
)

// Options are how to hold addresses.
type Options struct {
	// Name distinguishes the load balancers of one host.
	Name string
	// Grace is how long an interface may be down before its addresses move to
	// another one.
	Grace time.Duration
	// Changed is called, by another goroutine, when Hold should be called again.
	Changed func()
}

// Holder holds addresses. Its methods may be called concurrently.
type Holder struct {
	o    Options
	mark uint32

	mu     sync.Mutex
	closed bool
	claims map[netip.Addr]*claim
	// wanted are those that were asked for last.
	wanted map[netip.Addr]bool
	// others are addresses that another load balancer of this host has.
	others map[netip.Addr]bool
	// macs are those of this host.
	macs map[string]bool
	// down is when interfaces of claims were first seen down.
	down map[int]time.Time
	// graceOver is when the first of them has been down for long.
	graceOver time.Time
	// timer calls tick when something is due, which is at due.
	timer *time.Timer
	due   time.Time
	// before are settings of the kernel that we have changed, as they were.
	before map[string]string
	// forwarding is whether the links of IPv6 claims forwarded, when addresses were
	// last synced. No event tells that it changes.
	forwarding map[string]bool
	// told: a claim has another outcome, of which Changed has not told yet.
	told bool
	// wire is nil before the first claim on a link, or if it cannot be had: then
	// wireErr says why.
	wire    *wire
	wireErr error
}

// New returns a Holder. What a previous process of this name has left on the host is
// its own from the start.
func New(o Options) *Holder {
	h := &Holder{
		o: o, mark: mark(o.Name), claims: map[netip.Addr]*claim{}, down: map[int]time.Time{}, before: map[string]string{},
	}
	h.timer = time.AfterFunc(time.Hour, h.tick)
	h.timer.Stop()
	return h
}

// Hold makes exactly these addresses ours: at once where the host has them already, or
// nobody could have them; else when no other host answers for them. It returns the
// errors of those that fail, having done the others.
func (h *Holder) Hold(want []netip.Addr, n *hostnet.View) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	h.watchDown(n, now)
	h.macs = map[string]bool{}
	for _, i := range n.Interfaces {
		h.macs[i.MAC] = true
	}
	h.others = map[netip.Addr]bool{}
	for _, a := range n.Addresses {
		if IsBlixts(a) && a.Metric != h.mark {
			h.others[a.IP] = true
		}
	}
	before := h.claims
	h.claims, h.wanted = map[netip.Addr]*claim{}, map[netip.Addr]bool{}
	begun := map[netip.Addr]place{}
	for _, ip := range want {
		h.wanted[ip] = true
		if h.others[ip] {
			continue
		}
		c := before[ip]
		if c == nil {
			c = &claim{}
		}
		at := choosePlace(ip, n, c.at.Index, func(i hostnet.Interface) bool {
			_, down := h.down[i.Index]
			return i.Up || down && i.Index == c.at.Index
		})
		if before[ip] == nil || !c.at.sameLink(at) {
			begun[ip] = at
		}
		c.at = at
		h.claims[ip] = c
	}
	h.listen()
	for ip, at := range begun {
		h.claims[ip].begin(at, h.wire != nil, now)
	}
	return h.act(n.Snapshot, now)
}

// Follow is Hold with the same addresses.
func (h *Holder) Follow(n *hostnet.View) error {
	h.mu.Lock()
	want := slices.Collect(maps.Keys(h.wanted))
	h.mu.Unlock()
	return h.Hold(want, n)
}

// watchDown notes which interfaces of claims are down, until their grace is over.
func (h *Holder) watchDown(n *hostnet.View, now time.Time) {
	down := map[int]time.Time{}
	h.graceOver = time.Time{}
	for _, c := range h.claims {
		i, there := n.ByIndex(c.at.Index)
		if !there || i.Up || !i.Same(c.at.Interface) {
			continue
		}
		since, known := h.down[i.Index]
		if !known {
			since = now
		}
		if end := since.Add(h.o.Grace); now.Before(end) {
			down[i.Index] = since
			h.graceOver = earliest(h.graceOver, end)
		}
	}
	h.down = down
}

// listen opens the wire when the first claim needs it.
func (h *Holder) listen() {
	var asked []netip.Addr
	for ip, c := range h.claims {
		if c.at.MAC != "" {
			asked = append(asked, ip)
		}
	}
	if h.wire == nil && len(asked) > 0 && !h.closed {
		h.wire, h.wireErr = openWire(h.hear)
	}
	if h.wire != nil {
		h.wireErr = h.wire.listenFor(asked)
	}
}

// hear is called with each packet that shows something about an address.
func (h *Holder) hear(ip netip.Addr, mac string, kind sign, index int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.claims[ip]
	if h.closed || c == nil || c.at.Index != index || h.macs[mac] {
		return
	}
	before := c.outcome()
	if c.hear(mac, kind, time.Now()) == announcement {
		h.transmit(ip, c, announcement)
	}
	if c.outcome() != before {
		h.timer.Reset(0)
		h.told = true
	}
}

// tick does what is due.
func (h *Holder) tick() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	now := time.Now()
	h.told = h.told || h.forwardingChanged()
	if now.Before(h.due) && !h.told {
		h.arm(now)
		return
	}
	s, err := hostnet.Read()
	if err != nil { // try again soon
		h.timer.Reset(time.Second)
		return
	}
	if err := h.act(s, now); err != nil || h.told || !h.graceOver.IsZero() && !now.Before(h.graceOver) {
		h.told, h.graceOver = false, time.Time{}
		go h.o.Changed() // which calls Hold, and may wait for us
	}
}

// act does what is due: it changes the host's addresses first, and then tells the link.
func (h *Holder) act(s *hostnet.Snapshot, now time.Time) error {
	type outgoing struct {
		ip netip.Addr
		c  *claim
		m  message
	}
	var out []outgoing
	next := h.graceOver
	for ip, c := range h.claims {
		before := c.outcome()
		for m := c.step(now); m != nothing; m = c.step(now) {
			out = append(out, outgoing{ip, c, m})
		}
		h.told = h.told || c.outcome() != before
		next = earliest(next, c.due())
	}
	err := h.sync(s)
	for _, o := range out {
		h.transmit(o.ip, o.c, o.m)
	}
	h.due = next
	if next.IsZero() {
		h.due = now.Add(time.Hour)
	}
	h.arm(now)
	return err
}

// arm sets the timer.
func (h *Holder) arm(now time.Time) {
	wait := h.due.Sub(now)
	if len(h.forwarding) > 0 {
		wait = min(wait, forwardingEvery)
	}
	h.timer.Reset(max(0, wait))
}

// forwardingEvery is how often to look whether interfaces still forward IPv6.
const forwardingEvery = 2 * time.Second

func (h *Holder) forwardingChanged() bool {
	for name, was := range h.forwarding {
		if forwards(name) != was {
			return true
		}
	}
	return false
}

// transmit sends a message. What fails is reported until something is sent again.
func (h *Holder) transmit(ip netip.Addr, c *claim, m message) {
	if h.wire == nil {
		return
	}
	err := h.wire.send(newFrame(m, ip, c.at.MAC, ip.Is6() && forwards(c.at.Name)), c.at.Index)
	if !errors.Is(err, unix.ENETDOWN) && !errors.Is(err, unix.ENXIO) { // it is about to be noticed
		h.wireErr = err
	}
}

// home is an address on an interface.
type home struct {
	ip    netip.Addr
	index int
}

// sync adds and removes addresses and proxies. What is needed is added before what is
// not is removed: an address that moves is never away.
func (h *Holder) sync(s *hostnet.Snapshot) error {
	ours := map[home]hostnet.Address{}
	for _, a := range s.Addresses {
		if IsBlixts(a) && a.Metric == h.mark {
			ours[home{a.IP, a.Index}] = a
			// What a previous process has left stays while it is probed.
			if c := h.claims[a.IP]; c != nil && c.phase == probing {
				c.assigned = true
			}
		}
	}
	proxies, err := listProxies()
	errs := []error{err}
	there, keep := slices.Clone(s.Addresses), map[home]bool{}
	h.forwarding = map[string]bool{}
	for ip, c := range h.claims {
		if !c.assigned {
			continue
		}
		index := c.at.Index
		if ip.Is6() && h.proxied(c.at, s) {
			index = loopbackIndex
		}
		if p := (home{ip, c.at.Index}); index != c.at.Index && c.at.MAC != "" {
			if !proxies[p] {
				errs = append(errs, describe(p.addProxy(), ip, c.at.Name))
			}
			delete(proxies, p)
		}
		keep[home{ip, index}] = true
		if _, has := ours[home{ip, index}]; !has {
			a := newAddress(ip, index, h.mark, there)
			there = append(there, hostnet.Address{IP: ip, Network: netip.PrefixFrom(a.peer, ip.BitLen()), Index: index})
			errs = append(errs, describe(a.add(), ip, c.at.Name))
		}
	}
	for at, a := range ours {
		if !keep[at] {
			errs = append(errs, describe(remove(a), a.IP, name(s, at.index)))
		}
	}
	for p := range proxies {
		if !h.others[p.ip] {
			errs = append(errs, describe(p.removeProxy(), p.ip, name(s, p.index)))
		}
	}
	return errors.Join(errs...)
}

// name returns the name of an interface.
func name(s *hostnet.Snapshot, index int) string {
	if i, there := s.ByIndex(index); there {
		return i.Name
	}
	return fmt.Sprint(index)
}

// proxied reports whether an IPv6 address is on lo, and the kernel answers for it at its
// place, if somebody asks there.
func (h *Holder) proxied(at place, s *hostnet.Snapshot) bool {
	if master, _ := s.ByIndex(at.Master); master.Kind == "vrf" {
		return false // routing tables of its own, in which lo is not
	}
	if at.MAC == "" {
		return true
	}
	h.forwarding[at.Name] = forwards(at.Name)
	if !h.forwarding[at.Name] {
		return false
	}
	before, err := setProxy(at.Name)
	maps.Copy(h.before, before)
	return err == nil
}

// Close ends probing and answering. The host keeps its addresses.
func (h *Holder) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.timer.Stop()
	if h.wire != nil {
		h.wire.close()
		h.wire = nil
	}
}

// Remove removes everything that we have added to the host, and closes.
func (h *Holder) Remove() error {
	h.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	s, err := hostnet.Read()
	if err != nil {
		return err
	}
	h.claims = map[netip.Addr]*claim{}
	return errors.Join(h.sync(s), restore(h.before))
}

// describe says which address an error is about. What is there already, or has gone with
// its interface meanwhile, is no error.
func describe(err error, ip netip.Addr, name string) error {
	for _, harmless := range []error{nil, unix.EEXIST, unix.EADDRNOTAVAIL, unix.ENODEV, unix.ENOENT} {
		if errors.Is(err, harmless) {
			return nil
		}
	}
	return fmt.Errorf("address %s of interface %s: %w", ip, name, err)
}

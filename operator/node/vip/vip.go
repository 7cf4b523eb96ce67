// SPDX-License-Identifier: Apache-2.0

// Package vip gives a host the addresses that Blixt serves alone. In come these
// addresses and the host's network; out go changes of the interfaces' addresses.
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

	mu sync.Mutex
	// places are where the addresses are looked for that we hold.
	places map[netip.Addr]place
	// down is when interfaces of places were first seen down.
	down map[int]time.Time
	// again calls Changed at the end of a grace.
	again *time.Timer
	// before are settings of the kernel that we have changed, as they were.
	before map[string]string
}

// New returns a Holder. What a previous process of this name has left on the host is
// its own from the start.
func New(o Options) *Holder {
	h := &Holder{
		o: o, mark: mark(o.Name), places: map[netip.Addr]place{}, down: map[int]time.Time{},
		before: map[string]string{}, again: time.AfterFunc(time.Hour, o.Changed),
	}
	h.again.Stop()
	return h
}

// Hold makes exactly these addresses ours. It returns the errors of those that fail,
// having done the others.
func (h *Holder) Hold(want []netip.Addr, n *hostnet.View) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchDown(n)
	before := h.places
	h.places = map[netip.Addr]place{}
	for _, ip := range want {
		h.places[ip] = choosePlace(ip, n, before[ip].Index, func(i hostnet.Interface) bool {
			_, down := h.down[i.Index]
			return i.Up || down && i.Index == before[ip].Index
		})
	}
	return h.sync(n)
}

// watchDown notes which interfaces of places are down, until their grace is over.
func (h *Holder) watchDown(n *hostnet.View) {
	now := time.Now()
	down := map[int]time.Time{}
	var next time.Time
	for _, at := range h.places {
		i, there := n.ByIndex(at.Index)
		if !there || i.Up || !i.Same(at.Interface) {
			continue
		}
		since, known := h.down[i.Index]
		if !known {
			since = now
		}
		down[i.Index] = since
		if end := since.Add(h.o.Grace); !now.Before(end) {
			delete(down, i.Index)
		} else if next.IsZero() || end.Before(next) {
			next = end
		}
	}
	h.down = down
	if h.again.Stop(); !next.IsZero() {
		h.again.Reset(next.Sub(now))
	}
}

// home is an address on an interface.
type home struct {
	ip    netip.Addr
	index int
}

// sync adds and removes addresses and proxies. What is needed is added before what is
// not is removed: an address that moves is never away.
func (h *Holder) sync(n *hostnet.View) error {
	ours, others := map[home]hostnet.Address{}, map[netip.Addr]bool{}
	for _, a := range n.Addresses {
		if IsBlixts(a) && a.Metric == h.mark {
			ours[home{a.IP, a.Index}] = a
		} else if IsBlixts(a) {
			others[a.IP] = true
		}
	}
	proxies, err := listProxies()
	errs := []error{err}
	there, keep := slices.Clone(n.Addresses), map[home]bool{}
	for ip, at := range h.places {
		if others[ip] {
			continue
		}
		index := at.Index
		if ip.Is6() && h.proxied(at, n) {
			index = loopbackIndex
		}
		if p := (home{ip, at.Index}); index != at.Index && at.MAC != "" {
			if !proxies[p] {
				errs = append(errs, describe(p.addProxy(), ip, at.Name))
			}
			delete(proxies, p)
		}
		keep[home{ip, index}] = true
		if _, has := ours[home{ip, index}]; !has {
			a := newAddress(ip, index, h.mark, there)
			there = append(there, hostnet.Address{IP: ip, Network: netip.PrefixFrom(a.peer, ip.BitLen()), Index: index})
			errs = append(errs, describe(a.add(), ip, at.Name))
		}
	}
	for at, a := range ours {
		if !keep[at] {
			errs = append(errs, describe(remove(a), a.IP, name(n, at.index)))
		}
	}
	for p := range proxies {
		if !others[p.ip] {
			errs = append(errs, describe(p.removeProxy(), p.ip, name(n, p.index)))
		}
	}
	return errors.Join(errs...)
}

// name returns the name of an interface.
func name(n *hostnet.View, index int) string {
	if i, there := n.ByIndex(index); there {
		return i.Name
	}
	return fmt.Sprint(index)
}

// proxied reports whether an IPv6 address is on lo, and the kernel answers for it at its
// place, if somebody asks there.
func (h *Holder) proxied(at place, n *hostnet.View) bool {
	if master, _ := n.ByIndex(at.Master); master.Kind == "vrf" {
		return false // routing tables of its own, in which lo is not
	}
	if at.MAC == "" {
		return true
	}
	if !forwards(at.Name) {
		return false
	}
	before, err := setProxy(at.Name)
	maps.Copy(h.before, before)
	return err == nil
}

// Remove removes everything that we have added to the host.
func (h *Holder) Remove() error {
	s, err := hostnet.Read()
	if err != nil {
		return err
	}
	err = h.Hold(nil, &hostnet.View{Snapshot: s})
	h.mu.Lock()
	defer h.mu.Unlock()
	return errors.Join(err, restore(h.before))
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

// SPDX-License-Identifier: Apache-2.0

// Package hostnet reads the network of a host: interfaces, addresses and default
// routes of the current network namespace. Watcher follows it by the kernel's events,
// so that a change costs what has changed and not what there is. Memory keeps what was
// lost a moment ago, so that a loss that lasts a moment is no order to tear down.
package hostnet

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
)

// Interface is a network interface.
type Interface struct {
	Index int
	Name  string
	// AltNames are its other names: ip link property add altname.
	AltNames []string
	// Kind is its driver's name for rtnetlink, such as bridge; "": a physical one.
	Kind string
	// Master is the index of the bridge, bond, VRF or the like that it belongs to.
	Master int
	// Parent is the index of the interface below, for a VLAN; 0: none.
	Parent int
	// Up reports whether the administrator has brought it up, and Carrier whether it
	// can carry packets now.
	Up, Carrier bool
	// XDP is the number of its XDP program, 0: none. Not each change is an event.
	XDP uint32
	// MAC are the 6 bytes by which neighbours reach it; "": nobody asks for addresses
	// on its link (ARP, neighbour discovery).
	MAC string
	// life differs between an interface and an earlier one that had its index.
	life uint64
}

// Same reports whether both are the same interface, and not one that has got the index
// of the other after that was removed. Snapshots of one Watcher tell that; otherwise it
// may return false for the same interface.
func (i Interface) Same(j Interface) bool { return i.Index == j.Index && i.life == j.life }

func (i Interface) equal(j Interface) bool {
	return i.Index == j.Index && i.Name == j.Name && slices.Equal(i.AltNames, j.AltNames) &&
		i.Kind == j.Kind && i.Master == j.Master && i.Parent == j.Parent && i.Up == j.Up && i.Carrier == j.Carrier && i.MAC == j.MAC
}

// called reports whether the interface has this name, or this alternative name.
func (i Interface) called(name string) bool {
	return i.Name == name || slices.Contains(i.AltNames, name)
}

// Address is an address of an interface.
type Address struct {
	IP netip.Addr
	// Network is where the interface reaches neighbours by this address. It holds the
	// other end of a point-to-point address, not IP itself.
	Network netip.Prefix
	Index   int
	// Scope is RT_SCOPE_*, Flags IFA_F_* and Protocol IFAPROT_*. Metric is that of
	// the route to Network.
	Scope    uint8
	Flags    uint32
	Protocol uint8
	Metric   uint32
}

// ofHost reports whether clients elsewhere may know the address.
func (a Address) ofHost() bool { return !a.IP.IsLoopback() && !a.IP.IsLinkLocalUnicast() }

// Snapshot is the network at one moment. Nobody may change it.
type Snapshot struct {
	Interfaces []Interface // by index
	Addresses  []Address   // by interface and address
	// Defaults are the indexes of the interfaces with a default route in the main
	// table.
	Defaults []int
}

// ByIndex returns the interface of an index.
func (s *Snapshot) ByIndex(index int) (Interface, bool) {
	i, found := slices.BinarySearchFunc(s.Interfaces, index, func(a Interface, index int) int { return cmp.Compare(a.Index, index) })
	if !found {
		return Interface{}, false
	}
	return s.Interfaces[i], true
}

// ByName returns the interface of a name or, if there is none, of an alternative
// name.
func (s *Snapshot) ByName(name string) (Interface, bool) {
	i := slices.IndexFunc(s.Interfaces, func(a Interface) bool { return a.Name == name })
	if i < 0 {
		i = slices.IndexFunc(s.Interfaces, func(a Interface) bool { return a.called(name) })
	}
	if i < 0 {
		return Interface{}, false
	}
	return s.Interfaces[i], true
}

// Read reads the network of the calling thread's namespace, once. Where it changes all
// the time, something that is new or gone may be wrong.
func Read() (*Snapshot, error) {
	t := newTable()
	if err := t.readAll(); err != nil && !errors.Is(err, errInterrupted) {
		return nil, err
	}
	return t.snapshot(), nil
}

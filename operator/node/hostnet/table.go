// SPDX-License-Identifier: Apache-2.0

package hostnet

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// table is the network as this process knows it, by lists and by events.
type table struct {
	interfaces map[int]Interface
	addresses  map[addressKey]Address
	// defaults are the interfaces with a default route, per family.
	defaults map[byte][]int
	// stale are the families whose default routes must be listed again. An event may
	// be missing: the kernel does not tell of IPv4 routes that go with an interface or
	// an address.
	stale map[byte]bool
	// dumps counts the lists that were read, listed what was in them.
	dumps, listed int
}

// addressKey is what the kernel tells addresses of one interface by: an IPv4 address may
// be there twice, with different networks.
type addressKey struct {
	ip      netip.Addr
	network netip.Prefix
	index   int
}

func (a Address) key() addressKey { return addressKey{a.IP, a.Network, a.Index} }

func newTable() *table {
	return &table{interfaces: map[int]Interface{}, addresses: map[addressKey]Address{}, defaults: map[byte][]int{}, stale: map[byte]bool{}}
}

// lives counts the interfaces that this process has seen.
var lives atomic.Uint64

var families = []byte{unix.AF_INET, unix.AF_INET6}

// apply applies an event, and reports whether it changed anything.
func (t *table) apply(m message) bool {
	switch m.kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		i, ok := parseLink(m.body)
		if !ok {
			return false
		}
		if m.kind == unix.RTM_DELLINK {
			return t.removeInterface(i.Index)
		}
		return t.addInterface(i)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		a, ok := parseAddress(m.body)
		if !ok {
			return false
		}
		old, known := t.addresses[a.key()]
		if m.kind == unix.RTM_NEWADDR {
			t.addresses[a.key()] = a
			return !known || old != a
		}
		delete(t.addresses, a.key())
		t.stale[unix.AF_INET] = t.stale[unix.AF_INET] || a.IP.Is4()
		return known
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if len(m.body) < unix.SizeofRtMsg || m.body[1] != 0 || m.body[4] != unix.RT_TABLE_MAIN {
			return false
		}
		t.stale[m.body[0]] = true
		return true
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		t.stale[unix.AF_INET], t.stale[unix.AF_INET6] = true, true
		return true
	}
	return false
}

func (t *table) addInterface(i Interface) bool {
	old, known := t.interfaces[i.Index]
	if i.life = old.life; !known {
		i.life = lives.Add(1)
	}
	t.interfaces[i.Index] = i
	if old.Up && !i.Up { // takes its routes along
		t.stale[unix.AF_INET] = true
	}
	return !known || !old.equal(i)
}

func (t *table) removeInterface(index int) bool {
	_, known := t.interfaces[index]
	delete(t.interfaces, index)
	maps.DeleteFunc(t.addresses, func(k addressKey, _ Address) bool { return k.index == index })
	for family, indexes := range t.defaults {
		t.stale[family] = t.stale[family] || slices.Contains(indexes, index)
	}
	return known
}

// readAll lists everything. If a list keeps changing while it is read, the last try
// counts, and readAll returns errInterrupted: something may be missing.
func (t *table) readAll() error {
	interfaces, addresses := map[int]Interface{}, map[addressKey]Address{}
	err := t.list(unix.RTM_GETLINK, linkRequest(), func(m message) bool {
		if i, ok := parseLink(m.body); ok && m.kind == unix.RTM_NEWLINK {
			interfaces[i.Index] = i
		}
		return true
	}, func() { clear(interfaces) })
	if err != nil && !errors.Is(err, errInterrupted) {
		return fmt.Errorf("list interfaces: %w", err)
	}
	interrupted := err
	err = t.list(unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg), func(m message) bool {
		if a, ok := parseAddress(m.body); ok && m.kind == unix.RTM_NEWADDR {
			addresses[a.key()] = a
		}
		return true
	}, func() { clear(addresses) })
	if err != nil && !errors.Is(err, errInterrupted) {
		return fmt.Errorf("list addresses: %w", err)
	}
	interrupted = cmp.Or(interrupted, err)
	maps.DeleteFunc(t.interfaces, func(index int, _ Interface) bool { _, there := interfaces[index]; return !there })
	for _, i := range interfaces {
		t.addInterface(i)
	}
	t.addresses = addresses
	for _, family := range families {
		t.stale[family] = true
	}
	return cmp.Or(t.readDefaults(), interrupted)
}

// dumpTries is how often to ask for a list that changes while it is read.
const dumpTries = 5

// list is dump, with retries. It calls again before each of them, to begin anew.
func (t *table) list(kind uint16, body []byte, each func(message) bool, again func()) (err error) {
	for try := range dumpTries {
		if try > 0 {
			again()
		}
		t.dumps++
		if err = dump(kind, body, func(m message) bool { t.listed++; return each(m) }); !errors.Is(err, errInterrupted) {
			return err
		}
	}
	return err
}

// linkRequest asks for interfaces without their statistics, which take most of the
// time.
func linkRequest() []byte {
	const skipStatistics = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	return appendAttribute(make([]byte, unix.SizeofIfInfomsg), unix.IFLA_EXT_MASK, binary.NativeEndian.AppendUint32(nil, skipStatistics))
}

// readDefaults lists the default routes of the families where they are stale. It
// returns errInterrupted as readAll does.
func (t *table) readDefaults() (interrupted error) {
	for _, family := range families {
		if !t.stale[family] {
			continue
		}
		var routes []route
		body := make([]byte, unix.SizeofRtMsg)
		body[0], body[4], body[7] = family, unix.RT_TABLE_MAIN, unix.RTN_UNICAST
		err := t.list(unix.RTM_GETROUTE, body, func(m message) bool {
			r, ok, zero := parseDefault(m.body)
			if ok && m.body[0] == family {
				routes = append(routes, r)
			}
			// A router may have a million routes. Those to 0.0.0.0 come first.
			return family != unix.AF_INET || zero
		}, func() { routes = nil })
		switch {
		case errors.Is(err, unix.ENOENT): // there is no table main before it has a route
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT): // IPv6 is off
		case errors.Is(err, errInterrupted):
			interrupted = err
		case err != nil:
			return fmt.Errorf("list routes: %w", err)
		}
		indexes, err := t.indexes(routes)
		if err != nil {
			return err
		}
		t.defaults[family], t.stale[family] = indexes, false
	}
	return interrupted
}

// indexes returns the interfaces that routes use.
func (t *table) indexes(routes []route) (all []int, err error) {
	var objects map[uint32][]int
	for _, r := range routes {
		all = append(all, r.indexes...)
		if len(r.indexes) > 0 || r.nexthop == 0 {
			continue
		}
		// With net.ipv4.nexthop_compat_mode=0 a route names the nexthop object alone.
		if objects == nil {
			if objects, err = t.readNexthops(); err != nil {
				return nil, err
			}
		}
		all = append(all, objects[r.nexthop]...)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// readNexthops returns the interfaces that each nexthop object uses.
func (t *table) readNexthops() (map[uint32][]int, error) {
	objects, groups := map[uint32][]int{}, map[uint32][]uint32{}
	err := t.list(unix.RTM_GETNEXTHOP, make([]byte, 8), func(m message) bool {
		id, index, group := parseNexthop(m.body)
		if index != 0 {
			objects[id] = []int{index}
		}
		groups[id] = group
		return true
	}, func() {})
	if err != nil && !errors.Is(err, errInterrupted) {
		return nil, fmt.Errorf("list nexthop objects: %w", err)
	}
	for id, members := range groups {
		for _, member := range members {
			objects[id] = append(objects[id], objects[member]...)
		}
	}
	return objects, nil
}

// snapshot returns what the table holds now.
func (t *table) snapshot() *Snapshot {
	s := &Snapshot{
		Interfaces: slices.Collect(maps.Values(t.interfaces)),
		Addresses:  slices.Collect(maps.Values(t.addresses)),
	}
	slices.SortFunc(s.Interfaces, func(a, b Interface) int { return cmp.Compare(a.Index, b.Index) })
	slices.SortFunc(s.Addresses, func(a, b Address) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), a.IP.Compare(b.IP), cmp.Compare(a.Network.Bits(), b.Network.Bits()))
	})
	for _, family := range families {
		s.Defaults = append(s.Defaults, t.defaults[family]...)
	}
	slices.Sort(s.Defaults)
	s.Defaults = slices.Compact(s.Defaults)
	return s
}

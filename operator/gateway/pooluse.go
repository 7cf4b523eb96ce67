// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// PoolUse is how many addresses of a family a pool has, and how many of those Gateways
// hold.
type PoolUse struct {
	// Config is the name of the BlixtConfig that has the pool.
	Config string
	V6     bool
	// Size is rounded: a pool may have more addresses than an integer.
	Size  float64
	InUse int
}

// poolUses returns those of all pools, sorted.
func poolUses(classes map[string]*class, gateways []*gateway) []PoolUse {
	held := map[netip.Addr]bool{} // Gateways may share addresses
	for _, g := range gateways {
		for _, addr := range g.held {
			held[addr] = true
		}
	}
	var all []PoolUse
	for _, c := range classes {
		if c.config.obj == nil {
			continue
		}
		for _, v6 := range []bool{false, true} {
			u := PoolUse{Config: c.config.obj.Name, V6: v6, Size: c.config.pool.size(v6)}
			if u.Size == 0 || slices.ContainsFunc(all, func(o PoolUse) bool { return o.Config == u.Config && o.V6 == v6 }) {
				continue
			}
			for addr := range held {
				if addr.Is6() == v6 && c.config.pool.contains(addr) {
					u.InUse++
				}
			}
			all = append(all, u)
		}
	}
	slices.SortStableFunc(all, func(a, b PoolUse) int { return cmp.Compare(a.Config, b.Config) }) // IPv4 comes first
	return all
}

// size returns how many addresses of the family the ranges have, counting those once
// that several have.
func (r ranges) size(v6 bool) float64 {
	sorted := slices.Clone(r)
	slices.SortFunc(sorted, func(a, b AddressRange) int { return a.First.Compare(b.First) })
	n := 0.0
	var end netip.Addr // of the ranges so far
	for _, one := range sorted {
		if one.First.Is6() != v6 {
			continue
		}
		first := one.First
		if end.IsValid() && !end.Less(first) {
			first = end.Next()
		}
		if !first.IsValid() || one.Last.Less(first) {
			continue
		}
		n += distance(first, one.Last) + 1
		end = one.Last
	}
	return n
}

// distance returns by how much an address is above another one of its family. Near ones
// are exact.
func distance(from, to netip.Addr) float64 {
	a, b := from.As16(), to.As16()
	low, borrow := bits.Sub64(binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(a[8:]), 0)
	high, _ := bits.Sub64(binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(a[:8]), borrow)
	return float64(high)*(1<<64) + float64(low)
}

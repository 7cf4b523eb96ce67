// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// AddressRange is a range of addresses of one family, both ends included.
type AddressRange struct{ First, Last netip.Addr }

// ParseAddressRange parses a CIDR prefix, a range a-b or a single address. It
// returns an error for anything else.
func ParseAddressRange(text string) (AddressRange, error) {
	var r AddressRange
	var err error
	switch first, last, two := strings.Cut(text, "-"); {
	case two:
		if r.First, err = netip.ParseAddr(strings.TrimSpace(first)); err == nil {
			r.Last, err = netip.ParseAddr(strings.TrimSpace(last))
		}
	case strings.Contains(text, "/"):
		var prefix netip.Prefix
		prefix, err = netip.ParsePrefix(text)
		r = rangeOf(prefix)
	default:
		r.First, err = netip.ParseAddr(text)
		r.Last = r.First
	}
	switch {
	case err != nil:
		return r, fmt.Errorf("%q is not an address, prefix or range", text)
	case r.First.Is6() != r.Last.Is6():
		return r, fmt.Errorf("%q has ends of different families", text)
	case r.Last.Less(r.First):
		return r, fmt.Errorf("%q ends before it begins", text)
	}
	return r, nil
}

// Overlaps reports whether the ranges share an address.
func (r AddressRange) Overlaps(o AddressRange) bool {
	return r.First.Is6() == o.First.Is6() && !r.Last.Less(o.First) && !o.Last.Less(r.First)
}

// parseRange is ParseAddressRange for addresses to serve: it returns an error
// if they cannot be served.
func parseRange(text string) (AddressRange, error) {
	r, err := ParseAddressRange(text)
	if err != nil {
		return r, err
	}
	for _, end := range []netip.Addr{r.First, r.Last} {
		if why := InvalidAddress(end); why != "" {
			return r, fmt.Errorf("%q cannot be served because of %s: %s", text, end, why)
		}
	}
	return r, nil
}

func rangeOf(p netip.Prefix) AddressRange {
	if !p.IsValid() {
		return AddressRange{}
	}
	r := AddressRange{First: p.Masked().Addr()}
	last := r.First.AsSlice()
	for i := p.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 1 << (7 - i%8)
	}
	r.Last, _ = netip.AddrFromSlice(last)
	return r
}

func (r AddressRange) contains(addr netip.Addr) bool {
	return addr.Is6() == r.First.Is6() && !addr.Less(r.First) && !r.Last.Less(addr)
}

// ranges are of both families, in no order.
type ranges []AddressRange

// parseRanges parses each text. It returns an error for the first invalid one,
// with its place in the field.
func parseRanges(field string, texts []string) (ranges, error) {
	var all ranges
	for i, text := range texts {
		r, err := parseRange(text)
		if err != nil {
			return nil, fmt.Errorf("%s[%d] %w", field, i, err)
		}
		all = append(all, r)
	}
	return all, nil
}

func (r ranges) contains(addr netip.Addr) bool {
	return slices.ContainsFunc(r, func(one AddressRange) bool { return one.contains(addr) })
}

// has reports whether there are ranges of the family.
func (r ranges) has(v6 bool) bool {
	return slices.ContainsFunc(r, func(one AddressRange) bool { return one.First.Is6() == v6 })
}

// lowest returns the lowest free address of the family that is not below another
// one, and false if there is none.
func (r ranges) lowest(v6 bool, from netip.Addr, free func(netip.Addr) bool) (netip.Addr, bool) {
	var best netip.Addr
	for _, one := range r {
		if one.First.Is6() != v6 {
			continue
		}
		addr := one.First
		if from.IsValid() && addr.Less(from) {
			addr = from
		}
		for ; one.contains(addr) && (!best.IsValid() || addr.Less(best)); addr = addr.Next() {
			if InvalidAddress(addr) == "" && free(addr) {
				best = addr
				break
			}
		}
	}
	return best, best.IsValid()
}

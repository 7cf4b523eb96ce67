// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// addressRange has both ends included. They are of one family.
type addressRange struct{ first, last netip.Addr }

// parseRange reads a CIDR prefix, a range a-b or a single address. Returns an
// error for anything else, and for addresses that cannot be served.
func parseRange(text string) (addressRange, error) {
	var r addressRange
	var err error
	switch first, last, two := strings.Cut(text, "-"); {
	case two:
		if r.first, err = netip.ParseAddr(strings.TrimSpace(first)); err == nil {
			r.last, err = netip.ParseAddr(strings.TrimSpace(last))
		}
	case strings.Contains(text, "/"):
		var prefix netip.Prefix
		prefix, err = netip.ParsePrefix(text)
		r = rangeOf(prefix)
	default:
		r.first, err = netip.ParseAddr(text)
		r.last = r.first
	}
	switch {
	case err != nil:
		return r, fmt.Errorf("%q is no address, prefix or range", text)
	case r.first.Is6() != r.last.Is6():
		return r, fmt.Errorf("%q has ends of different families", text)
	case r.last.Less(r.first):
		return r, fmt.Errorf("%q ends before it begins", text)
	}
	for _, end := range []netip.Addr{r.first, r.last} {
		if why := unfit(end); why != "" {
			return r, fmt.Errorf("%q cannot be served on: of %s, %s", text, end, why)
		}
	}
	return r, nil
}

func rangeOf(p netip.Prefix) addressRange {
	if !p.IsValid() {
		return addressRange{}
	}
	r := addressRange{first: p.Masked().Addr()}
	last := r.first.AsSlice()
	for i := p.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 1 << (7 - i%8)
	}
	r.last, _ = netip.AddrFromSlice(last)
	return r
}

func (r addressRange) contains(addr netip.Addr) bool {
	return addr.Is6() == r.first.Is6() && !addr.Less(r.first) && !r.last.Less(addr)
}

// ranges are of both families, in no order.
type ranges []addressRange

// parseRanges reads each. Returns an error for the first that is wrong, with
// its place in the field.
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
	return slices.ContainsFunc(r, func(one addressRange) bool { return one.contains(addr) })
}

// has says whether there are ranges of the family.
func (r ranges) has(v6 bool) bool {
	return slices.ContainsFunc(r, func(one addressRange) bool { return one.first.Is6() == v6 })
}

// lowest returns the lowest address of the family that is free.
func (r ranges) lowest(v6 bool, free func(netip.Addr) bool) (netip.Addr, bool) {
	var best netip.Addr
	for _, one := range r {
		if one.first.Is6() != v6 {
			continue
		}
		for addr := one.first; one.contains(addr) && (!best.IsValid() || addr.Less(best)); addr = addr.Next() {
			if unfit(addr) == "" && free(addr) {
				best = addr
				break
			}
		}
	}
	return best, best.IsValid()
}

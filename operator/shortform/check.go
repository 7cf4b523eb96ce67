// SPDX-License-Identifier: Apache-2.0

package shortform

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// check adds what is wrong with flags that are right one by one.
func check(groups []group, wrong *mistakes) {
	type place struct {
		addr     netip.Addr
		port     uint16
		protocol string
	}
	places, names := map[place]Flag{}, map[string]Flag{}
	for _, g := range groups {
		for _, l := range g.listens {
			at := place{l.addr, l.port, l.protocol}
			if first, again := places[at]; again {
				wrong.add(l.Flag, "it is given twice: %s means the same address, port and protocol", first)
			} else if first, taken := names[l.name]; taken {
				wrong.add(l.Flag, "name %s is that of %s already: give another one", l.name, first)
			}
			places[at], names[l.name] = l.Flag, l.Flag
		}
	}
	services := map[string]Flag{}
	for i := range groups {
		g := &groups[i]
		before := len(*wrong)
		g.checkFamilies(wrong)
		g.checkTwice(wrong)
		for _, s := range g.servers() {
			if first, taken := services[s.name]; taken && len(*wrong) == before {
				wrong.add(g.listens[0].Flag, "its backends need the Service %s, which is that of %s already: give another name", s.name, first)
			}
			services[s.name] = g.listens[0].Flag
		}
		g.checkWeights(wrong)
		g.checkPolicies(wrong)
	}
}

// family returns that of an address, such as IPv4.
func family(addr netip.Addr) string {
	if addr.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// checkFamilies finds who has no partner: nothing is translated between families.
func (g *group) checkFamilies(wrong *mistakes) {
	served, wanted := map[string]bool{}, map[string]bool{}
	for _, b := range g.backends {
		served[family(b.addr)] = true
	}
	for _, l := range g.listens {
		if !l.addr.IsValid() {
			wanted["IPv4"], wanted["IPv6"] = true, true
			continue
		}
		f := family(l.addr)
		if wanted[f] = true; !served[f] {
			wrong.add(l.Flag, "none of its --backend flags is %s, and clients of an %s address reach %s backends only", f, f, f)
		}
	}
	for _, b := range g.backends {
		if f := family(b.addr); !wanted[f] {
			wrong.add(b.Flag, "none of its --listen flags is %s, so that no client would reach it", f)
		}
	}
}

// checkTwice finds backends that are the same server for some listener.
func (g *group) checkTwice(wrong *mistakes) {
	told := map[Flag]bool{}
	for _, l := range g.listens {
		seen := map[netip.AddrPort]Flag{}
		for _, b := range g.backends {
			server := netip.AddrPortFrom(b.addr, cmp.Or(b.port, l.port))
			if first, again := seen[server]; again && !told[b.Flag] {
				wrong.add(b.Flag, "it is given twice: %s is %s, too. One with a weight gets more connections", first, server)
				told[b.Flag] = true
			}
			seen[server] = b.Flag
		}
	}
}

// maxRefs is how many backendRefs Gateway API allows in a rule.
const maxRefs = 16

// checkWeights finds weights that no route can have.
func (g *group) checkWeights(wrong *mistakes) {
	all := g.servers()
	first := g.listens[0].Flag
	if len(all) > maxRefs {
		wrong.add(first, "its backends have %d different weights, and a route has room for %d: use fewer", len(all), maxRefs)
		return
	}
	for _, l := range g.listens {
		if !l.addr.IsValid() && !alike(all) {
			wrong.add(l.Flag, "its IPv4 backends have other weights than its IPv6 ones, which one route cannot have: give each family a --listen with an address")
			return
		}
		for _, r := range refsOf(l, all) {
			if r.weight > maxWeight {
				wrong.add(l.Flag, "the backends of weight %d have %s together, and Gateway API allows %s: use smaller weights",
					r.to.weight, phrase.Number(r.weight), phrase.Number(maxWeight))
				return
			}
		}
	}
}

// alike reports whether the servers divide connections over IPv4 as they do over IPv6.
func alike(all []servers) bool {
	var total [2]int
	for _, s := range all {
		total[0] += s.count("IPv4")
		total[1] += s.count("IPv6")
	}
	return total[0] == 0 || total[1] == 0 || !slices.ContainsFunc(all, func(s servers) bool {
		return s.weight > 0 && s.count("IPv4")*total[1] != s.count("IPv6")*total[0]
	})
}

// SPDX-License-Identifier: Apache-2.0

package nginx

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// rule is an allow or a deny of one family.
type rule struct {
	allow bool
	from  netip.Prefix
}

// sources carries allow and deny over. It reports whether the server may be served: not if a
// rule cannot be kept.
func (c settings) sources(f *migrate.Frontend) bool {
	directives := c.own("allow", "deny")
	if directives == nil {
		directives = c.rules
	}
	var rules []rule
	for _, d := range directives {
		if len(d.args) == 1 && d.args[0] == "unix:" {
			f.Note(d.Place, migrate.Unneeded, "%s: no packet comes from a socket file", d)
			continue
		}
		prefixes, err := parseSource(d)
		if err != nil {
			f.Note(d.Place, migrate.Lost, "%s: %s: %s is not served, lest it is open to whom this was to refuse", d, err, c.title())
			return false
		}
		for _, p := range prefixes {
			rules = append(rules, rule{d.name == "allow", p})
		}
	}
	f.Policy.Sources = longestMatch(rules)
	return true
}

func parseSource(d *directive) ([]netip.Prefix, error) {
	if len(d.args) != 1 {
		return nil, fmt.Errorf("it names one network, or all")
	}
	text := d.args[0]
	if text == "all" {
		return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}, nil
	}
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" && !addr.Is4In6() {
		return []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}, nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return nil, fmt.Errorf("%s is no network", clip(text))
	}
	return []netip.Prefix{p.Masked()}, nil
}

// longestMatch returns lists by which the longest match admits and refuses whom the first match
// of the rules does, and nil if that is everybody. Who matches no rule is admitted.
//
// A rule inside of an earlier one never decides, and is left away. Of those that are left a
// longer one comes before a shorter one that holds the same client: so the longest is the first.
func longestMatch(rules []rule) *v1alpha1.PolicySources {
	seen := map[netip.Prefix]bool{}
	var kept []rule
	allows, denies := false, false
	for _, r := range rules {
		if within(seen, r.from) {
			continue
		}
		seen[r.from] = true
		kept = append(kept, r)
		allows, denies = allows || r.allow, denies || !r.allow
	}
	if !denies {
		return nil
	}
	s := &v1alpha1.PolicySources{Action: v1alpha1.ActionReset} // nginx closes the connection
	for _, r := range kept {
		switch {
		case r.allow:
			s.Allow = append(s.Allow, r.from.String())
		case r.from.Bits() > 0 || !allows: // a list of allow refuses all others
			s.Deny = append(s.Deny, r.from.String())
		}
	}
	for _, all := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		if allows && !seen[all] {
			s.Allow = append(s.Allow, all.String())
		}
	}
	return s
}

// within reports whether a network is inside of one of the set, or is one.
func within(set map[netip.Prefix]bool, p netip.Prefix) bool {
	for bits := 0; bits <= p.Bits(); bits++ {
		if set[netip.PrefixFrom(p.Addr(), bits).Masked()] {
			return true
		}
	}
	return false
}

// limits carries limit_conn over: connections of one source, or of all.
func (c settings) limits(f *migrate.Frontend) {
	dry := c.on("limit_conn_dry_run") != nil
	for _, d := range c.of("limit_conn") {
		n, ok := 0, len(d.args) == 2
		if ok {
			n, ok = number(d.args[1])
		}
		if !ok || n < 1 {
			f.Note(d.Place, migrate.Lost, "%s: it names a zone and a number of connections", d)
			continue
		}
		key := c.zoneKey(d.args[0])
		count := int32(min(n, 10_000_000))
		if f.Policy.Limits == nil {
			f.Policy.Limits = &v1alpha1.PolicyLimits{Action: v1alpha1.ActionReset}
		}
		switch {
		case dry:
			f.Note(d.Place, migrate.Changed, "%s: limit_conn_dry_run counts only: set the limit in a BlixtPolicy of mode DryRun", d)
		case isClient(key):
			v4, v6 := int32(32), int32(128)
			f.Policy.Limits.PerSource = &v1alpha1.SourceLimit{Limit: v1alpha1.Limit{Concurrent: &count}, PrefixLength: &v1alpha1.PrefixLength{IPv4: &v4, IPv6: &v6}}
			f.Note(d.Place, migrate.Changed, "%s: each client may have %d connections at once to this listener; nginx counts those to all servers with zone %s", d, n, clip(d.args[0]))
		case key == "$server_port" || key == "$server_addr:$server_port" || key == "$server_addr$server_port":
			f.Policy.Limits.Total = &v1alpha1.TotalLimit{Limit: v1alpha1.Limit{Concurrent: &count}}
		default:
			f.Note(d.Place, migrate.Lost, "%s: Blixt counts connections of a client's address, or all of a listener, not by %s: see limits of a BlixtPolicy", d, clip(key))
		}
		if l := f.Policy.Limits; l.PerSource == nil && l.Total == nil {
			f.Policy.Limits = nil
		}
	}
}

// zoneKey returns what limit_conn_zone counts by.
func (c settings) zoneKey(zone string) string {
	for _, d := range c.shared["limit_conn_zone"] {
		if len(d.args) == 2 && strings.HasPrefix(d.args[1], "zone="+zone+":") {
			return plainVariable(d.args[0])
		}
	}
	return "zone " + zone + ", which is not defined"
}

// plainVariable returns ${name} as $name.
func plainVariable(text string) string { return strings.NewReplacer("${", "$", "}", "").Replace(text) }

// isClient reports whether a key is the client's address.
func isClient(key string) bool {
	key = plainVariable(key)
	return key == "$remote_addr" || key == "$binary_remote_addr"
}

// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// SourceChange is how whom a policy admits differs from what it was. Was or Is is nil if it
// has no sources before or after.
type SourceChange struct {
	Policy string     `json:"policy"`
	Was    *SourceSet `json:"was,omitempty"`
	Is     *SourceSet `json:"is,omitempty"`
}

// diffSources returns what differs between sets of sources, which must be sorted.
func diffSources(was, is []SourceSet) (all []SourceChange) {
	both(was, is, func(a, b *SourceSet) int { return strings.Compare(a.Policy, b.Policy) }, func(a, b *SourceSet) {
		switch {
		case a == nil:
			all = append(all, SourceChange{Policy: b.Policy, Is: b})
		case b == nil:
			all = append(all, SourceChange{Policy: a.Policy, Was: a})
		case !a.Equal(b):
			all = append(all, SourceChange{Policy: a.Policy, Was: a, Is: b})
		}
	})
	return all
}

// line returns the change in words, with at most so many networks of each list; 0: all.
func (c *SourceChange) line(most int) Line {
	if c.Is == nil {
		return Line{Text: "no sources of policy " + c.Policy + " any more"}
	}
	was := c.Was
	if was == nil {
		was = &SourceSet{}
	}
	var parts []string
	for _, list := range []struct {
		name    string
		was, is []netip.Prefix
	}{{"allow", was.Allow, c.Is.Allow}, {"deny", was.Deny, c.Is.Deny}} {
		if text := diffPrefixes(list.was, list.is, most); text != "" {
			parts = append(parts, list.name+" "+text)
		}
	}
	if len(parts) == 0 { // allow: [] of a policy that had none
		parts = append(parts, "all others are admitted")
		if c.Is.OnlyAllowed {
			parts = []string{"all others are refused"}
		}
	}
	return Line{Text: fmt.Sprintf("sources of policy %s: %s", c.Policy, strings.Join(parts, ", "))}
}

// diffPrefixes returns what differs between two sorted lists.
func diffPrefixes(was, is []netip.Prefix, most int) string {
	var signed []string
	both(was, is, func(a, b *netip.Prefix) int { return a.Compare(*b) }, func(a, b *netip.Prefix) {
		switch {
		case a == nil:
			signed = append(signed, "+"+b.String())
		case b == nil:
			signed = append(signed, "-"+a.String())
		}
	})
	if most > 0 && len(signed) > most+1 {
		signed = append(signed[:most], fmt.Sprintf("and %s more changes", phrase.Number(len(signed)-most)))
	}
	return strings.Join(signed, " ")
}

// settingsWords says what policies change of a frontend; "": nothing.
func settingsWords(was, is *Settings) string {
	var parts []string
	if is.Refused != was.Refused && is.Refused != "" {
		parts = append(parts, "all new connections are refused: "+is.Refused)
	} else if is.Refused != was.Refused {
		parts = append(parts, "new connections are not all refused any more")
	}
	if now, before := restrictedBy(was.Restrictions, is.Restrictions); now != before {
		parts = append(parts, fmt.Sprintf("restricted by %s instead of %s", now, before))
	} else if !reflect.DeepEqual(was.Restrictions, is.Restrictions) {
		parts = append(parts, "other restrictions by "+now)
	}
	if was.MaxAge != is.MaxAge {
		parts = append(parts, fmt.Sprintf("maxAge %s instead of %s", orNone(is.MaxAge > 0, is.MaxAge), orNone(was.MaxAge > 0, was.MaxAge)))
	}
	for _, unit := range []struct {
		name    string
		was, is any
	}{
		{"affinity", was.Affinity, is.Affinity}, {"health", was.Health, is.Health}, {"failover", was.Failover, is.Failover},
		{"ports", was.Ports, is.Ports}, {"challenge", was.Challenge, is.Challenge}, {"overload.noBackend", was.DropNoBackend, is.DropNoBackend},
	} {
		switch {
		case reflect.DeepEqual(unit.was, unit.is):
		case isNil(unit.was):
			parts = append(parts, unit.name+" by policy")
		case isNil(unit.is):
			parts = append(parts, "no "+unit.name+" by policy any more")
		default:
			parts = append(parts, "another "+unit.name)
		}
	}
	return strings.Join(parts, ", ")
}

func isNil(v any) bool { r := reflect.ValueOf(v); return r.Kind() == reflect.Pointer && r.IsNil() }

func orNone(is bool, v any) any {
	if !is {
		return "none"
	}
	return v
}

// restrictedBy names the policies of two lists of restrictions.
func restrictedBy(was, is []Restriction) (now, before string) {
	names := func(all []Restriction) string {
		var names []string
		for _, r := range all {
			name := r.Policy
			if r.DryRun {
				name += " (dry run)"
			}
			names = append(names, name)
		}
		return fmt.Sprint(orNone(len(names) > 0, strings.Join(names, ", ")))
	}
	return names(is), names(was)
}

// SPDX-License-Identifier: Apache-2.0

package haproxy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// rule is a line "tcp-request" or "use_backend" with its condition.
type rule struct {
	statement
	stage  string // connection, session or content
	action string // or the name of the backend
	condition
}

// stages are asked in this order. A rule that accepts ends its stage, one that rejects all.
var stages = []string{"connection", "session", "content"}

// split divides words before "if" or "unless".
func split(words []string) (before, from []string) {
	for i, w := range words {
		if w == "if" || w == "unless" {
			return words[:i], slices.Clone(words[i:])
		}
	}
	return words, nil
}

func (p *proxy) useBackend(s statement) {
	before, from := split(s.words[1:])
	if len(before) == 0 {
		return
	}
	p.uses = append(p.uses, rule{statement: s, action: before[0], condition: p.condition(s, from)})
}

// tcpRequest takes "tcp-request STAGE ACTION if CONDITION".
func (p *proxy) tcpRequest(s statement) {
	if len(s.words) > 1 && s.words[1] == "inspect-delay" {
		p.note(s, migrate.Unneeded, "%s: no connection waits for what its client says", quote(s.text))
		return
	}
	if len(s.words) < 3 || !slices.Contains(stages, s.words[1]) {
		p.note(s, migrate.Lost, "%s: write tcp-request connection, session or content, and what to do", quote(s.text))
		return
	}
	before, from := split(s.words[2:])
	if len(before) == 0 {
		p.note(s, migrate.Lost, "%s says nothing to do", quote(s.text))
		return
	}
	r := rule{statement: s, stage: s.words[1], action: before[0], condition: p.condition(s, from)}
	switch {
	case r.action == "accept", r.action == "reject", r.action == "silent-drop":
		p.rules = append(p.rules, r)
	case r.action == "expect-proxy":
		p.note(s, migrate.Lost, "%s: clients begin with a header of the PROXY protocol, which servers do not understand: switch it off at the clients", quote(s.text))
	case strings.HasPrefix(r.action, "track-sc"), strings.HasPrefix(r.action, "sc-"), strings.HasPrefix(r.action, "set-var"),
		strings.HasPrefix(r.action, "unset-var"), r.action == "capture", r.action == "set-log-level":
		p.note(s, migrate.Unneeded, "%s counts or remembers only", quote(s.text))
	default:
		p.note(s, migrate.Lost, "%s: Blixt accepts and refuses connections by their addresses, and does nothing else to them", quote(s.text))
	}
}

var everyone = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// sources returns who may connect to a place, or nil: everybody. Each network that rules name
// is asked about. All other addresses are treated like the smallest network around them.
func sources(rules []rule, named []netip.Prefix, at about) *v1alpha1.PolicySources {
	refused := map[netip.Prefix]bool{}
	reset := false
	for _, network := range named {
		at.source = network
		by := refusedBy(rules, at)
		refused[network] = by != nil
		reset = reset || by != nil && by.action == "reject"
	}
	s := &v1alpha1.PolicySources{Action: v1alpha1.ActionDrop}
	if reset {
		s.Action = v1alpha1.ActionReset
	}
	networks := slices.SortedFunc(func(yield func(netip.Prefix) bool) {
		for n := range refused {
			if !yield(n) {
				return
			}
		}
	}, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	for _, n := range networks {
		switch around, inside := surrounding(refused, n); {
		case inside && around == refused[n], !inside && !refused[n]:
		case refused[n] && inside:
			s.Deny = append(s.Deny, n.String())
		case !refused[n]:
			s.Allow = append(s.Allow, n.String())
		}
	}
	open4, open6 := !refused[everyone[0]], !refused[everyone[1]]
	switch {
	case open4 && open6 && len(s.Allow)+len(s.Deny) == 0:
		return nil
	case open4 && open6 && len(s.Allow) > 0: // exceptions from what is refused
		s.Allow = append([]string{everyone[0].String(), everyone[1].String()}, s.Allow...)
	case open4 && !open6:
		s.Allow = append([]string{everyone[0].String()}, s.Allow...)
	case open6 && !open4:
		s.Allow = append([]string{everyone[1].String()}, s.Allow...)
	case !open4 && !open6 && len(s.Allow) == 0:
		s.Deny = []string{everyone[0].String(), everyone[1].String()}
	}
	return s
}

// named returns the networks that rules name, and everyone.
func named(rules []rule) []netip.Prefix {
	seen := map[netip.Prefix]bool{everyone[0]: true, everyone[1]: true}
	all := slices.Clone(everyone)
	for i := range rules {
		rules[i].all(func(t *test) {
			if t.kind != source {
				return
			}
			for n := range t.networks {
				if !seen[n] {
					seen[n] = true
					all = append(all, n)
				}
			}
		})
	}
	return all
}

// tests returns how many tests the rules have.
func tests(rules []rule) (n int) {
	for i := range rules {
		rules[i].all(func(*test) { n++ })
	}
	return n
}

// surrounding returns the decision for the next network around.
func surrounding(refused map[netip.Prefix]bool, network netip.Prefix) (decision, inside bool) {
	for bits := network.Bits() - 1; bits >= 0; bits-- {
		if d, ok := refused[netip.PrefixFrom(network.Addr(), bits).Masked()]; ok {
			return d, true
		}
	}
	return false, false
}

// refusedBy returns the rule that refuses, or nil. Where it is not known whether a rule holds,
// one that accepts does not, and one that refuses does if it is about a list that is missing, or
// about one of several addresses or ports of a listener: nobody gets in by mistake.
func refusedBy(rules []rule, at about) *rule {
	for _, stage := range stages {
		for i := range rules {
			r := &rules[i]
			if r.stage != stage || r.isLimit() != nil {
				continue
			}
			holds := r.holds(at)
			if r.action == "accept" {
				if holds == yes {
					break
				}
				continue
			}
			if holds == yes || holds == maybe && (r.missing() != "" || r.foreign() == "") {
				return r
			}
		}
	}
	return nil
}

// asksFor reports whether rules ask for something.
func (p *proxy) asksFor(what kind) (asks bool) {
	for _, r := range slices.Concat(p.rules, p.uses) {
		r.all(func(t *test) { asks = asks || t.kind == what })
	}
	return asks
}

// partly reports whether the condition holds for a part of the addresses or ports that are asked
// about, as far as that is known.
func (c *condition) partly(at about) (partly bool) {
	c.all(func(t *test) {
		partly = partly || (t.kind == destination || t.kind == port) && t.holds(at) == maybe
	})
	return partly
}

// missing returns a list of the condition that is not known, or "".
func (c *condition) missing() (name string) {
	c.all(func(t *test) {
		if t.kind == source {
			name = cmp.Or(name, t.missing)
		}
	})
	return name
}

// foreign returns what the condition asks that Blixt does not look at, or "".
func (c *condition) foreign() (text string) {
	c.all(func(t *test) {
		if t.kind == other || t.kind == alive || t.kind == concurrent || t.kind == rate {
			text = cmp.Or(text, t.text)
		}
	})
	return text
}

// isLimit returns the number that the rule bounds, if all that it does is to refuse what is
// above.
func (r *rule) isLimit() *test {
	t := r.single()
	if r.action == "accept" || t == nil || t.kind != concurrent && t.kind != rate || len(t.bounds) != 1 || t.bounds[0].to != 1<<31-1 {
		return nil
	}
	return t
}

// noteRules says what is not known about rules.
func (p *proxy) noteRules() {
	for i := range p.rules {
		r := &p.rules[i]
		if r.isLimit() != nil {
			continue
		}
		missing, foreign := r.missing(), r.foreign()
		switch {
		case missing != "":
			p.note(r.statement, migrate.Lost, "%s: %s is no network, and no list that was given: until it is, who it refuses and who it does not are all refused: name the file behind the configuration, or write the networks into sources of the policy", quote(r.text), quote(missing))
		case foreign == "":
		case r.action != "accept":
			p.note(r.statement, migrate.Lost, "%s: Blixt does not know %s: connections that it refuses are served", quote(r.text), quote(foreign))
		case slices.ContainsFunc(p.rules[i+1:], func(o rule) bool { return o.stage == r.stage && o.action != "accept" }):
			p.note(r.statement, migrate.Lost, "%s: Blixt does not know %s: connections that it accepts are refused if a rule behind it refuses them", quote(r.text), quote(foreign))
		default:
			p.note(r.statement, migrate.Unneeded, "%s accepts what nothing behind it refuses", quote(r.text))
		}
	}
}

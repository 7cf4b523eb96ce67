// SPDX-License-Identifier: Apache-2.0

package haproxy

import (
	"cmp"
	"fmt"
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
	bar := func(format string, args ...any) {
		p.bars = append(p.bars, migrate.Note{Place: s.Place, Effect: migrate.Lost, Text: quote(s.text) + " " + fmt.Sprintf(format, args...)})
	}
	if len(s.words) < 3 || !slices.Contains(stages, s.words[1]) {
		bar("is no rule: write tcp-request connection, session or content, and what to do")
		return
	}
	before, from := split(s.words[2:])
	if len(before) == 0 {
		bar("says nothing to do")
		return
	}
	r := rule{statement: s, stage: s.words[1], action: before[0], condition: p.condition(s, from)}
	action, _, _ := strings.Cut(r.action, "(")
	switch effect := actions[action]; {
	case strings.HasPrefix(r.action, "track-sc"):
		p.track(before)
		fallthrough
	case effect == remembers, strings.HasPrefix(r.action, "sc-"):
		p.note(s, migrate.Unneeded, "%s counts or remembers only", quote(s.text))
	case effect == expectsHeader:
		bar("has clients begin with a header that servers do not understand: switch it off at the clients, and remove the line")
	case effect == others:
		p.note(s, migrate.Lost, notDone, quote(s.text))
	case effect == hidesSource, effect == hidesDestination:
		p.note(s, migrate.Lost, notDone, quote(s.text))
		fallthrough
	default:
		p.rules = append(p.rules, r.split()...)
	}
}

const notDone = "%s: Blixt accepts and refuses connections by their addresses, and does nothing else to them"

// effect is what an action of tcp-request does.
type effect int

const (
	unknown effect = iota // it may refuse
	accepts
	refuses
	remembers        // it counts, or sets a variable
	others           // it does something else to the connection
	expectsHeader    // of which servers know nothing
	hidesSource      // rules behind it do not see the client's address
	hidesDestination // nor the one that it connects to
)

// actions are those of section 4.3 of the manual, without what is in parentheses. Of all others,
// such as lua.NAME, use-service and switch-mode, it is not known what they do.
var actions = map[string]effect{
	"accept": accepts, "reject": refuses, "silent-drop": refuses,
	"set-var": remembers, "set-var-fmt": remembers, "unset-var": remembers, "capture": remembers, "set-log-level": remembers, "do-log": remembers,
	"do-resolve": remembers, "send-spoe-group": remembers, "pause": remembers, "set-nice": remembers,
	"set-mark": others, "set-fc-mark": others, "set-bc-mark": others, "set-tos": others, "set-fc-tos": others, "set-bc-tos": others,
	"set-priority-class": others, "set-priority-offset": others, "set-bandwidth-limit": others, "set-src-port": others, "set-retries": others,
	"expect-proxy": expectsHeader, "expect-netscaler-cip": expectsHeader,
	"set-src": hidesSource, "set-dst": hidesDestination, "set-dst-port": hidesDestination,
}

// split returns a rule for each row of a condition that is about how many connections a client
// has, so that each can become a limit.
func (r *rule) split() (all []rule) {
	if r.not || !r.counts() {
		return []rule{*r}
	}
	for _, row := range r.rows {
		one := *r
		one.rows = [][]term{row}
		all = append(all, one)
	}
	return all
}

var everyone = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// sources returns who may connect, or nil: everybody. Each network that rules name is refused or
// not. All other addresses are treated like the smallest network around them.
func sources(refused map[netip.Prefix]bool, reset bool) *v1alpha1.PolicySources {
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

// networks returns those that rules name, and everyone.
func (g *gate) networks() []netip.Prefix {
	seen := map[netip.Prefix]bool{everyone[0]: true, everyone[1]: true}
	all := slices.Clone(everyone)
	g.each(func(r *rule) {
		r.all(func(t *test) {
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
	})
	return all
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

// counts reports whether the condition is about how many connections a client has.
func (c *condition) counts() (does bool) {
	c.all(func(t *test) { does = does || t.kind == concurrent || t.kind == rate })
	return does
}

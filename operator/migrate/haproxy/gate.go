// SPDX-License-Identifier: Apache-2.0

package haproxy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// gate is what a connection to a place passes before it gets a server. Where it is not known
// whether a rule holds, both is possible: that some connections pass, and that some do not.
type gate struct {
	stages  [][]*rule // of the frontend, in order
	choices []choice
	// ours are the rules of the backends that Blixt gives connections to, whatever is chosen.
	ours [][]*rule
	// takesProxy is true if the client's address is in a header. Stage connection does not see it.
	takesProxy bool

	// doubts are the rules that decide, and of which it is not known whether they hold.
	doubts map[*rule]bool
	unsure map[*rule]bool // those of one question, until it is answered
}

// choice is a line "use_backend", or what is there without one: its rule is nil.
type choice struct {
	*rule
	rules  []*rule
	nobody bool // the backend has no server: nobody is served
}

// verdict is what becomes of the connections of a network.
type verdict struct {
	passes, refused bool // some do, some are
	reset           bool // some are refused by a reset
}

// newGate returns that of a place of a frontend, with the backends that Blixt gives connections
// to. Rules that became limits are no part of it.
func (b *builder) newGate(front, main, standby *proxy, at *place, limited map[*rule]bool) *gate {
	g := &gate{takesProxy: at.takesProxy, doubts: map[*rule]bool{}, unsure: map[*rule]bool{}}
	pick := func(rules []rule, stage string) (some []*rule) {
		for i := range rules {
			if r := &rules[i]; r.stage == stage && !limited[r] {
				some = append(some, r)
			}
		}
		return some
	}
	for _, stage := range stages {
		g.stages = append(g.stages, pick(front.rules, stage))
	}
	content := func(p *proxy) []*rule {
		if p == nil || p == front {
			return nil // asked already
		}
		return pick(front.rulesBehind(p), "content")
	}
	for i := range front.uses {
		r := &front.uses[i]
		p := b.proxies[r.action]
		c := choice{rule: r, rules: content(p), nobody: p != nil && p.servesNobody()}
		if t := r.single(); t != nil && t.kind == alive && c.nobody {
			continue // an excuse while no server is left
		}
		g.choices = append(g.choices, c)
	}
	if p := b.proxies[front.defaultBackend]; p != nil {
		g.choices = append(g.choices, choice{rules: content(p)})
	}
	for _, p := range []*proxy{main, standby} {
		if rules := content(p); len(rules) > 0 {
			g.ours = append(g.ours, rules)
		}
	}
	return g
}

// rulesBehind returns those of a backend that are asked behind those of the frontend: defaults
// that both inherit are asked once.
func (p *proxy) rulesBehind(back *proxy) []rule {
	if back.defaults == nil || back.defaults != p.defaults {
		return back.rules
	}
	own := slices.IndexFunc(back.rules, func(r rule) bool { return r.File == back.File && r.Line > back.Line })
	if own < 0 {
		return nil
	}
	return back.rules[own:]
}

// servesNobody reports whether a backend has no server that may get a connection.
func (p *proxy) servesNobody() bool {
	if p.disabled {
		return true
	}
	for _, s := range effective(p.section) {
		if s.words[0] == "transparent" || len(s.words) > 1 && s.words[0] == "option" && s.words[1] == "transparent" {
			return false
		}
	}
	return !slices.ContainsFunc(p.servers, func(s server) bool { return !s.disabled && s.weight > 0 })
}

// tests returns how many tests one question costs.
func (g *gate) tests() (n int) {
	g.each(func(r *rule) { r.all(func(*test) { n++ }) })
	return n
}

// each calls f with every rule.
func (g *gate) each(f func(*rule)) {
	for _, rules := range slices.Concat(g.stages, g.ours) {
		for _, r := range rules {
			f(r)
		}
	}
	for _, c := range g.choices {
		if c.rule != nil {
			f(c.rule)
		}
		for _, r := range c.rules {
			f(r)
		}
	}
}

// ask returns what becomes of connections of a network, and remembers which rules leave that
// open.
func (g *gate) ask(at about) verdict {
	var v verdict
	clear(g.unsure)
	v.passes = g.passes(&at, &v)
	if v.passes && v.refused {
		maps.Copy(g.doubts, g.unsure)
	}
	return v
}

func (g *gate) passes(at *about, v *verdict) bool {
	for i, rules := range g.stages {
		at.hidden[source] = at.hidden[source] || i > 0 && g.takesProxy
		if !g.stage(rules, at, v) {
			return false
		}
	}
	some := len(g.choices) == 0
	for _, c := range g.choices {
		holds := yes
		if c.rule != nil {
			holds = c.holds(*at)
		}
		if holds == no {
			continue
		}
		within, inside := *at, verdict{}
		got := !c.nobody && g.stage(c.rules, &within, &inside)
		v.refused = v.refused || inside.refused || c.nobody
		v.reset = v.reset || inside.reset
		some = some || got
		if holds == yes {
			break
		}
		if inside.refused || c.nobody {
			g.unsure[c.rule] = true
		}
	}
	for _, rules := range g.ours {
		some = some && g.stage(rules, at, v)
	}
	return some
}

// stage asks the rules of a stage, of which the first one that holds decides. It reports
// whether some connections pass.
func (g *gate) stage(rules []*rule, at *about, v *verdict) bool {
	var accepted []*rule // some connections, maybe
	for _, r := range rules {
		holds := r.holds(*at)
		if holds == no {
			continue
		}
		switch effect := actions[r.action]; {
		case effect == accepts && holds == yes:
			return true
		case effect == accepts:
			accepted = append(accepted, r)
		case effect == hidesSource:
			at.hidden[source] = true
		case effect == hidesDestination:
			at.hidden[destination], at.hidden[port] = true, true
		default:
			v.refused, v.reset = true, v.reset || r.action == "reject"
			for _, a := range accepted {
				g.unsure[a] = true
			}
			if effect == refuses && holds == yes {
				return len(accepted) > 0
			}
			g.unsure[r] = true
		}
	}
	return true
}

// guard has the frontend keep out whom the gate may keep out. What would be open to nobody then,
// as too little is known, is not served.
func (g *gate) guard(b *builder, f *migrate.Frontend, p *proxy, at *place, networks []netip.Prefix, ask about) *v1alpha1.PolicySources {
	refused := map[netip.Prefix]bool{}
	reset, open := false, false
	for _, network := range networks {
		ask.source = network
		v := g.ask(ask)
		refused[network] = v.refused || !v.passes
		open = open || !refused[network]
		reset = reset || v.reset
	}
	f.Unserved = f.Unserved || len(g.doubts) > 0 && !open
	if b.spent += len(g.doubts); b.spent > maxServers {
		f.Unserved = true
		f.Note(at.Place, migrate.Lost, "%s is not served: rules of all frontends ask for too much that is not known: give fewer files", quote(at.text))
		return nil
	}
	g.each(func(r *rule) {
		if !g.doubts[r] {
			return
		}
		why, remedy := r.doubt(at, ask)
		what := "all clients that it may be about are refused, also those whom HAProxy lets in"
		if !open {
			what = fmt.Sprintf("%s is not served at port %d, lest it is open to whom HAProxy keeps out", quote(p.section.text), at.port)
		}
		f.Note(r.Place, migrate.Lost, "%s: %s: %s: %s", quote(r.text), why, what, remedy)
	})
	if f.Unserved && len(g.doubts) > 0 {
		return nil // who may connect is not known
	}
	return sources(refused, reset)
}

// doubt returns why it is not known whether a rule holds, or what it does, and what to do.
func (r *rule) doubt(at *place, ask about) (why, remedy string) {
	missing, foreign := r.missing(), r.foreign()
	const leave = "ask for addresses alone, remove it if it keeps nobody out who must not get in, or leave this port to HAProxy"
	switch counts := r.counts(); {
	case r.stage != "" && actions[r.action] == unknown:
		return "what it does is not known here", leave
	case missing != "":
		return quote(missing) + " is no network, and no list that was given", "name the file behind the configuration, or write the networks in its place"
	case counts:
		return "what it counts is not known here, or no policy limits it as strictly", "remove it, and set limits.perSource of the policy, or leave this port to HAProxy"
	case strings.Contains(foreign, "ssl"):
		return "Blixt does not look into TLS, as " + quote(foreign) + " does", leave
	case foreign != "":
		return "Blixt does not know " + quote(foreign), leave
	case r.partly(ask):
		return fmt.Sprintf("it asks for an address or a port, and %s has others, too", quote(at.text)), "write a bind with an address and a port for it alone"
	}
	return "the address that it asks for comes from a header, or from another rule", leave
}

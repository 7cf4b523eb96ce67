// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// Explained is what holds for a listener and its route, with who says so.
type Explained struct {
	// Names are as in lb.Frontend.
	Gateway  string      `json:"gateway"`
	Listener string      `json:"listener"`
	Route    string      `json:"route,omitempty"`
	Protocol lb.Protocol `json:"protocol"`
	Port     uint16      `json:"port"`
	// Targets are what policies may name, from the Gateway to the route, as in lb.Restriction.
	Targets []string `json:"targets"`
	// Policies are those of these targets.
	Policies []string `json:"policies,omitempty"`
	// Refused is as in lb.Settings.
	Refused string  `json:"refused,omitempty"`
	Values  []Value `json:"values"`
}

// Value is what holds of one field.
type Value struct {
	// Field is that of spec.
	Field string `json:"field"`
	// Value is in words.
	Value string `json:"value"`
	// Policy and Target are where it comes from; "": it is the default.
	Policy string `json:"policy,omitempty"`
	Target string `json:"target,omitempty"`
	// Instead are the policies that say something else, which does not hold.
	Instead []string `json:"insteadOf,omitempty"`
}

// Explain returns what BlixtPolicies make of each listener of Blixt's, in order.
func Explain(objs Objects, o Options) []Explained {
	var all []Explained
	_, gateways := translate(objs, o)
	for _, g := range gateways {
		for _, l := range g.all() {
			if l.protocol != 0 {
				all = append(all, l.explain())
			}
		}
	}
	slices.SortFunc(all, func(a, b Explained) int {
		return cmp.Or(cmp.Compare(a.Gateway, b.Gateway), cmp.Compare(a.Listener, b.Listener))
	})
	return all
}

func (l *listener) explain() Explained {
	x := Explained{Gateway: l.gateway.key().String(), Listener: l.id(), Protocol: l.protocol, Port: uint16(l.spec.Port)}
	meta, kind := l.owner()
	x.Targets = []string{"Gateway/" + x.Gateway}
	if l.set != nil {
		x.Targets = append(x.Targets, kind+"/"+meta.Namespace+"/"+meta.Name)
	}
	x.Targets = append(x.Targets, fmt.Sprintf("%s/%s/%s/%s", kind, meta.Namespace, meta.Name, l.spec.Name))
	if len(l.attached) > 0 {
		x.Route = l.attached[0].frontendName()
		x.Targets = append(x.Targets, x.Route)
	}
	levels := l.levels()
	for _, level := range levels {
		for _, name := range level.names {
			if !slices.Contains(x.Policies, name) {
				x.Policies = append(x.Policies, name)
			}
		}
	}
	idle := l.gateway.policy.idleTimeouts[l.protocol]
	e := l.effective
	if e == nil {
		x.Values = []Value{{Field: idleUnit(l.protocol).String(), Value: shortDuration(idle)}}
		return x
	}
	x.Refused = e.Refused
	for i, r := range e.Restrictions {
		x.addRestriction(r, e.restricting[i])
	}
	for u := range units {
		t := e.by[u]
		switch {
		case t != nil:
			x.Values = append(x.Values, Value{Field: u.String(), Value: t.policy.describe(u), Policy: t.policy.name(), Target: t.restriction.Target, Instead: losers(u, levels, t)})
		case u == idleUnit(l.protocol):
			x.Values = append(x.Values, Value{Field: u.String(), Value: shortDuration(idle)})
		}
	}
	if e.Failover != nil {
		t := l.attached[0].policies.failover
		x.Values = append(x.Values, Value{Field: "failover", Policy: t.policy.name(), Target: t.restriction.Target, Value: fmt.Sprintf(
			"the next group below %d %%, back at %d %% for %s", e.Failover.MinAvailable, e.Failover.Recover, shortDuration(e.Failover.Hold))})
	}
	if e.ports != nil {
		text := fmt.Sprintf("%d-%d", cmp.Or(e.ports.First, x.Port), e.ports.Last)
		if e.ports.Shift {
			text += ", shifted"
		}
		x.Values = append(x.Values, Value{Field: "ports", Value: text, Policy: e.portsBy.policy.name(), Target: e.portsBy.restriction.Target})
	}
	return x
}

func idleUnit(p lb.Protocol) unit {
	if p == lb.UDP {
		return unitUDPIdle
	}
	return unitTCPIdle
}

// losers returns the policies whose word about a unit does not hold.
func losers(u unit, levels []*policyLevel, winner *policyTarget) []string {
	var names []string
	for _, level := range levels {
		for _, t := range level.targets {
			if name := t.policy.name(); t.policy.has[u] && !t.policy.dryRun && t.policy != winner.policy && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

func (x *Explained) addRestriction(r lb.Restriction, t *policyTarget) {
	add := func(field, value string) {
		if r.DryRun {
			value += " (DryRun: counted, not refused)"
		}
		x.Values = append(x.Values, Value{Field: field, Value: value, Policy: r.Policy, Target: r.Target})
	}
	if r.Sources {
		add("sources", describeSources(t.policy.sources, r.ResetSources))
	}
	if r.Limits != nil {
		add("limits", describeLimits(r.Limits))
	}
}

func describeSources(s *lb.SourceSet, reset bool) string {
	var parts []string
	if s.OnlyAllowed {
		parts = append(parts, "allow "+samplePrefixes(s.Allow))
	}
	if len(s.Deny) > 0 {
		parts = append(parts, "deny "+samplePrefixes(s.Deny))
	}
	return strings.Join(parts, "; ") + action(reset)
}

func samplePrefixes(all []netip.Prefix) string {
	const most = 5
	var names []string
	for _, p := range all[:min(len(all), most)] {
		names = append(names, p.String())
	}
	if names == nil {
		return "nobody"
	}
	if more := len(all) - most; more > 0 {
		return fmt.Sprintf("%s and %s more", strings.Join(names, ", "), phrase.Number(more))
	}
	return strings.Join(names, ", ")
}

func action(reset bool) string {
	if reset {
		return "; else reset"
	}
	return "; else drop"
}

func describeLimits(l *lb.Limits) string {
	one := func(l lb.Limit) string {
		var parts []string
		if l.NewPerSecond > 0 {
			parts = append(parts, fmt.Sprintf("%s new/s, burst %s", phrase.Number(int(l.NewPerSecond)), phrase.Number(int(l.Burst))))
		}
		if l.Concurrent > 0 {
			parts = append(parts, phrase.Number(int(l.Concurrent))+" concurrent")
		}
		return strings.Join(parts, ", ")
	}
	var parts []string
	if text := one(l.PerSource); text != "" {
		parts = append(parts, fmt.Sprintf("per source (/%d, /%d) %s", l.Bits4, l.Bits6, text))
	}
	if text := one(l.Total); text != "" {
		parts = append(parts, "total "+text)
	}
	return strings.Join(parts, "; ") + " on each node" + action(l.Reset)
}

// describe returns what the policy says about a unit, in words.
func (r *readPolicy) describe(u unit) string {
	switch u {
	case unitAffinity:
		if r.affinity.Bits4 == 0 {
			return "None"
		}
		text := fmt.Sprintf("ClientAddress /%d, /%d", r.affinity.Bits4, r.affinity.Bits6)
		if r.affinity.Timeout > 0 {
			text += ", timeout " + shortDuration(r.affinity.Timeout)
		}
		return text
	case unitTCPIdle:
		return shortDuration(r.tcp)
	case unitUDPIdle:
		return shortDuration(r.udp)
	case unitMaxAge:
		return shortDuration(r.maxAge)
	case unitPassive:
		if r.passive == nil {
			return "Disabled"
		}
		return fmt.Sprintf("%d in a row, or %d %% of %d in %s; out for %s to %s, at most %d %%", r.passive.Consecutive, r.passive.FailurePercent, r.passive.MinFlows,
			shortDuration(r.passive.Window), shortDuration(r.passive.BaseEjection), shortDuration(r.passive.MaxEjection), r.passive.MaxEjected)
	case unitActive:
		if r.active == nil {
			return "None"
		}
		port := "the backend's port"
		if r.active.Port > 0 {
			port = fmt.Sprintf("port %d", r.active.Port)
		}
		return fmt.Sprintf("%s at %s every %s, timeout %s, rise %d, fall %d", strings.TrimSpace(r.active.Type+" "+r.active.Path), port,
			shortDuration(r.active.Interval), shortDuration(r.active.Timeout), r.active.Rise, r.active.Fall)
	case unitPanic:
		return fmt.Sprintf("%d %%", r.panic)
	case unitNoBackend:
		if r.drop {
			return "Drop"
		}
		return "Reset"
	}
	switch {
	case r.challenge == nil:
		return "Never"
	case r.challenge.Always:
		return "Always"
	}
	return fmt.Sprintf("Auto from %s new/s", phrase.Number(int(r.challenge.NewPerSecond)))
}

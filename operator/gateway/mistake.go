// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// Mistake is a problem that nobody can mean: a name that leads nowhere, a value that
// is not allowed, a port that somebody else has. States are no mistakes: an endpoint
// that is not ready, a weight of 0, an address that is not assigned yet, a full table.
type Mistake struct {
	Problem
	// Subject is the object that has the mistake: Problem.Object without a listener.
	Subject string
	// Causes are the other objects that may be at fault, because they are missing or
	// because of what they say.
	Causes []string
	// Mild is true if it may well be meant, unless it ends what was served.
	Mild bool
	// Value is what is wrong in spec, as far as it is known, after the name of the field that
	// it is in: gatewayClassName/typo.
	Value string
	// Reason is that of the condition, or a word like it.
	Reason string
}

// text returns the message as conditions have it.
func (m *Mistake) text() string { return strings.TrimPrefix(m.Message, m.Reason+": ") }

// Key identifies the mistake, however its message is worded.
func (m *Mistake) Key() string {
	return m.Object + "|" + m.Reason + "|" + strings.Join(m.Causes, "|")
}

func (m *Mistake) compare(o Mistake) int {
	return cmp.Or(m.Problem.compare(o.Problem), slices.Compare(m.Causes, o.Causes))
}

// because names objects that may be at fault.
func (f *fault) because(causes ...string) *fault {
	f.causes = append(f.causes, causes...)
	return f
}

// fieldOf is the field of spec in which objects name those of another kind.
var fieldOf = map[string]string{
	"GatewayClass": "gatewayClassName", "BlixtConfig": "parametersRef", "BlixtGatewayConfig": "infrastructure",
	"Gateway": "parentRefs", "ListenerSet": "parentRefs", "Service": "rules",
}

func newMistake(subject, part string, f *fault) Mistake {
	value := f.value
	if _, listener, is := strings.Cut(part, " listener "); is {
		value = "listeners/" + listener
	} else if value == "" && len(f.causes) > 0 {
		kind, name, _ := strings.Cut(f.causes[0], " ")
		value = fieldOf[kind] + "/" + name[strings.LastIndex(name, "/")+1:]
	}
	return Mistake{
		Value:   value,
		Problem: Problem{Object: subject + part, Message: f.reason + ": " + f.message},
		Subject: subject, Causes: f.causes, Reason: f.reason,
	}
}

// addMistake adds one that no condition reports, next to a note.
func (t *Translation) addMistake(subject, reason, message string, causes ...string) {
	m := newMistake(subject, "", &fault{reason: reason, message: message, causes: causes})
	m.Message = message
	t.Mistakes = append(t.Mistakes, m)
}

// addForeign adds that a Gateway is of a class of another controller.
func (t *Translation) addForeign(gw *gwv1.Gateway, controller gwv1.GatewayController) {
	class := named("GatewayClass", "", string(gw.Spec.GatewayClassName))
	t.addMistake(named("Gateway", gw.Namespace, gw.Name), "Foreign", fmt.Sprintf(
		"%s is not Blixt's: its controllerName is %s. Nothing of the Gateway is served, unless the class has controllerName %s.", class, controller, ControllerName), class)
	t.Mistakes[len(t.Mistakes)-1].Mild = true
}

// findMistakes adds those that conditions report.
func (t *Translation) findMistakes(classes map[string]*class, gateways []*gateway, routes []*route, p *policies) {
	add := func(subject, part string, faults ...*fault) {
		for _, f := range faults {
			if f != nil {
				t.Mistakes = append(t.Mistakes, newMistake(subject, part, f))
			}
		}
	}
	listeners := func(subject string, all []*listener) {
		for _, l := range all {
			add(subject, fmt.Sprintf(" listener %s", l.spec.Name), l.fault(), l.badKinds)
			if l.unserved != nil && l.unserved.reason != string(gwv1.GatewayReasonNoResources) {
				add(subject, fmt.Sprintf(" listener %s", l.spec.Name), l.unserved)
			}
		}
	}
	for _, c := range classes {
		add(named("GatewayClass", "", c.obj.Name), "", c.refused)
	}
	for _, g := range gateways {
		if g.class.refused == nil { // else the class has said so
			add(g.name(), "", g.invalid)
		}
		add(g.name(), "", g.addresses.refusals...)
		listeners(g.name(), g.listeners)
		for _, set := range g.sets {
			add(set.name(), "", set.refused)
			listeners(set.name(), set.listeners)
		}
	}
	for _, r := range routes {
		for _, a := range r.attached {
			add(r.name(), "", a.refused)
			for _, l := range a.taken {
				if f := l.shadows(r); f != nil {
					add(r.name(), "", f)
					t.Mistakes[len(t.Mistakes)-1].Mild = true
				}
			}
		}
		add(r.name(), "", r.backends.faults...)
	}
	if p != nil {
		for _, policy := range p.all {
			add(policy.object(), "", policy.fault)
			for _, target := range policy.targets {
				add(policy.object(), "", target.fault, target.unresolved)
				if f := target.fault; f != nil && f.reason == v1alpha1.PolicyReasonForeign {
					t.Mistakes[len(t.Mistakes)-1].Mild = true
				}
			}
		}
	}
	slices.SortStableFunc(t.Mistakes, func(a, b Mistake) int { return a.compare(b) })
	t.Mistakes = slices.CompactFunc(t.Mistakes, func(a, b Mistake) bool { return a.Problem == b.Problem })
}

// States returns those of the problems that no mistake explains.
func (t *Translation) States() []Problem {
	return slices.DeleteFunc(t.Problems(), func(p Problem) bool {
		// Who has the mistake says so.
		return strings.Contains(p.Message, "see the conditions of each") || slices.ContainsFunc(t.Mistakes, func(m Mistake) bool {
			return (p.Object == m.Object || strings.HasPrefix(p.Object, m.Subject+" ") || strings.HasPrefix(m.Subject, "GatewayClass ")) &&
				strings.Contains(p.Message, m.text())
		})
	})
}

// SPDX-License-Identifier: Apache-2.0

package clusterpage

import (
	"cmp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	"github.com/kubernetes-sigs/blixt/operator/admin/overview"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/page"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

const (
	// maxText is how many bytes a message may have: conditions have up to 32 KiB.
	maxText = 1000
	// maxRoutes is how many routes of a listener are named. One of them serves.
	maxRoutes = 10
)

func clip(text string) string { return phrase.Clip(text, maxText) }

// declared are Gateways, and whose listeners are where.
type declared struct {
	all []page.Declared
	// gateways are indices in all; sets are the Gateways of ListenerSets.
	gateways map[types.NamespacedName]int
	sets     map[types.NamespacedName]int
}

// declare returns Blixt's Gateways in the order of their names, with what is wrong with
// them, their listeners and routes.
func declare(f *doctor.Facts) []page.Declared {
	d := &declared{gateways: map[types.NamespacedName]int{}, sets: map[types.NamespacedName]int{}}
	ours := make([]*gwv1.Gateway, 0, len(f.Gateways))
	for i := range f.Gateways {
		if overview.Ours(f, &f.Gateways[i]) {
			ours = append(ours, &f.Gateways[i])
		}
	}
	slices.SortFunc(ours, func(a, b *gwv1.Gateway) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	d.all = make([]page.Declared, 0, len(ours))
	for _, g := range ours {
		d.addGateway(g)
	}
	for i := range f.ListenerSets {
		d.addSet(&f.ListenerSets[i])
	}
	for i := range f.TCPRoutes {
		r := &f.TCPRoutes[i]
		d.addRoute("TCPRoute", gwv1.TCPProtocolType, r, r.Status.Parents)
	}
	for i := range f.UDPRoutes {
		r := &f.UDPRoutes[i]
		d.addRoute("UDPRoute", gwv1.UDPProtocolType, r, r.Status.Parents)
	}
	return d.all
}

func (d *declared) addGateway(g *gwv1.Gateway) {
	one := page.Declared{Name: g.Namespace + "/" + g.Name, Class: string(g.Spec.GatewayClassName), Verdict: finding.OK}
	for _, a := range g.Status.Addresses {
		one.Addresses = append(one.Addresses, a.Value)
	}
	for _, l := range g.Spec.Listeners {
		one.Listeners = append(one.Listeners, listener("", l.Name, l.Protocol, l.Port))
	}
	for _, found := range overview.CheckGateway(g) {
		blame(&one, found)
	}
	for _, l := range g.Status.Listeners {
		blameListener(&one, string(l.Name), l.Conditions)
	}
	d.gateways[types.NamespacedName{Namespace: g.Namespace, Name: g.Name}] = len(d.all)
	d.all = append(d.all, one)
}

// addSet adds the listeners of a ListenerSet to its Gateway.
func (d *declared) addSet(set *gwv1.ListenerSet) {
	parent := set.Spec.ParentRef
	at, known := d.gateways[types.NamespacedName{Namespace: string(or(parent.Namespace, gwv1.Namespace(set.Namespace))), Name: string(parent.Name)}]
	if !known || !accepted(set.Status.Conditions) {
		return // the Gateway need not know of it
	}
	prefix := set.Namespace + "/" + set.Name + "/"
	d.sets[types.NamespacedName{Namespace: set.Namespace, Name: set.Name}] = at
	for _, l := range set.Spec.Listeners {
		d.all[at].Listeners = append(d.all[at].Listeners, listener(prefix, l.Name, l.Protocol, l.Port))
	}
	for _, l := range set.Status.Listeners {
		blameListener(&d.all[at], prefix+string(l.Name), l.Conditions)
	}
}

func listener(prefix string, name gwv1.SectionName, protocol gwv1.ProtocolType, port gwv1.PortNumber) page.DeclaredListener {
	return page.DeclaredListener{Name: prefix + string(name), Protocol: string(protocol), Port: uint16(port)}
}

// addRoute adds a route to the listeners that it names. One that its Gateway does not
// permit is not named there: everybody may name any Gateway.
func (d *declared) addRoute(kind string, protocol gwv1.ProtocolType, r metav1.Object, parents []gwv1.RouteParentStatus) {
	name := kind + "/" + r.GetNamespace() + "/" + r.GetName()
	for _, p := range parents {
		if p.ControllerName != gateway.ControllerName {
			continue
		}
		c := condition(p.Conditions, string(gwv1.RouteConditionAccepted))
		if c == nil || c.Reason == string(gwv1.RouteReasonNotAllowedByListeners) {
			continue
		}
		parent := types.NamespacedName{Namespace: string(or(p.ParentRef.Namespace, gwv1.Namespace(r.GetNamespace()))), Name: string(p.ParentRef.Name)}
		index, prefix := d.gateways, ""
		if or(p.ParentRef.Kind, "Gateway") == "ListenerSet" {
			index, prefix = d.sets, parent.Namespace+"/"+parent.Name+"/"
		}
		at, known := index[parent]
		if !known {
			continue
		}
		found := overview.CheckRoute(kind, r, []gwv1.RouteParentStatus{p})
		for i := range found {
			found[i].Seen = found[i].Object + ": " + found[i].Seen
			blame(&d.all[at], found[i])
		}
		for i := range d.all[at].Listeners {
			l := &d.all[at].Listeners[i]
			own, is := strings.CutPrefix(l.Name, prefix)
			if !is || strings.Contains(own, "/") || l.Protocol != string(protocol) || // a name has no slash
				p.ParentRef.SectionName != nil && own != string(*p.ParentRef.SectionName) ||
				p.ParentRef.Port != nil && l.Port != uint16(*p.ParentRef.Port) {
				continue
			}
			if len(l.Routes) < maxRoutes {
				l.Routes = append(l.Routes, name)
			}
			if l.Problem == "" && len(found) > 0 {
				l.Problem = clip(found[0].Seen)
			}
		}
	}
}

// blame has a Gateway say what is wrong, unless it says something as bad already.
func blame(one *page.Declared, found finding.Finding) {
	if one.Problem == "" || finding.Worse(found.Verdict, one.Verdict) {
		one.Problem, one.Verdict = clip(found.Seen), found.Verdict
	}
}

// blameListener has a listener say what is wrong with it.
func blameListener(one *page.Declared, name string, conditions []metav1.Condition) {
	c := overview.BadListener(conditions)
	i := slices.IndexFunc(one.Listeners, func(l page.DeclaredListener) bool { return l.Name == name })
	if c == nil || i < 0 {
		return
	}
	one.Listeners[i].Problem = clip(c.Reason + ": " + c.Message)
	blame(one, finding.Finding{Verdict: finding.Failed, Seen: "listener " + name + ": " + c.Reason + ": " + c.Message})
}

func accepted(conditions []metav1.Condition) bool {
	c := condition(conditions, string(gwv1.ListenerSetConditionAccepted))
	return c != nil && c.Status == metav1.ConditionTrue
}

func condition(all []metav1.Condition, kind string) *metav1.Condition {
	i := slices.IndexFunc(all, func(c metav1.Condition) bool { return c.Type == kind })
	if i < 0 {
		return nil
	}
	return &all[i]
}

func or[T any](p *T, other T) T {
	if p == nil {
		return other
	}
	return *p
}

// nodes returns what NodeDataplanes say.
func nodes(all []v1alpha1.NodeDataplane) []page.Node {
	result := make([]page.Node, 0, len(all))
	for i := range all {
		result = append(result, node(&all[i]))
	}
	return result
}

func node(d *v1alpha1.NodeDataplane) page.Node {
	n := page.Node{Name: d.Name, Verdict: finding.OK, Kernel: d.Status.Kernel}
	if len(d.Status.Applications) > 0 {
		a := d.Status.Applications[0]
		n.Frontends, n.Backends, n.Flows, n.Version = int(a.Frontends), int(a.Backends), uint64(max(a.Flows, 0)), short(a.Bytecode.Digest)
	}
	say := func(verdict finding.Level, c *metav1.Condition) {
		n.Verdict, n.Reason = verdict, clip(c.Reason+": "+c.Message)
	}
	ready, drifted := condition(d.Status.Conditions, v1alpha1.NodeReady), condition(d.Status.Conditions, v1alpha1.NodeDrifted)
	switch {
	case ready == nil:
		n.Verdict, n.Reason = finding.Unknown, "no operator has looked at it yet"
	case ready.Status == metav1.ConditionFalse:
		say(finding.Failed, ready)
	case drifted != nil && drifted.Status == metav1.ConditionTrue:
		say(finding.Failed, drifted)
	case ready.Status != metav1.ConditionTrue:
		say(finding.Warning, ready)
	}
	return n
}

// short returns the beginning of a digest, which is enough to tell one from another.
func short(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return hex[:min(12, len(hex))]
}

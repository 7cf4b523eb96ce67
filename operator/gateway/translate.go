// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Translate returns what to serve for the objects, and their status.
func Translate(objs Objects, o Options) Translation {
	t, _ := translate(objs, o)
	return t
}

// translate returns what Translate does, and the Gateways that it comes from.
func translate(objs Objects, o Options) (t Translation, all []*gateway) {
	classes, dataplane := findClasses(&objs, o.LastGood)
	t.Dataplane = dataplane.obj
	t.Endpoints = joinEndpoints(classes)
	s := newEnvironment(&o, objs.Namespaces, dataplane)
	index := t.gateways(&objs, classes, s)
	sets := t.attachSets(&objs, index, s.namespaces)
	gateways := index.sorted()
	s.incumbents = newIncumbency(o.Incumbents, gateways, s)
	for _, g := range gateways {
		findSetConflicts(g, s.incumbents)
		g.ports = g.findPorts()
	}
	assignAddresses(gateways, s)
	t.Incumbents = newIncumbents(gateways, claimAll(gateways, s))
	routes := t.attach(&objs, index, sets, s.namespaces, o.Cluster == nil)
	if o.Cluster == nil {
		t.Incumbents.Routes = preferServing(o.Incumbents, gateways)
	}

	p := attachPolicies(&objs, index, sets, routes, s)
	p.apply(gateways, routes)
	t.Sources = p.usedSources()
	for _, g := range gateways {
		t.serve(g, s)
		t.Gateways = append(t.Gateways, g.status(s))
		for _, set := range g.sets {
			t.ListenerSets = append(t.ListenerSets, set.status())
		}
	}
	for _, r := range routes {
		if len(r.attached) > 0 {
			t.Routes = append(t.Routes, r.status())
		}
	}
	t.Policies = p.statuses()
	for _, c := range classes {
		t.Classes = append(t.Classes, c.status())
	}
	t.LastGood = s.lastGood(classes, gateways)
	if o.Cluster == nil {
		t.findMistakes(classes, gateways, routes, p)
	} else {
		t.Mistakes = nil
		t.Pools = poolUses(classes, gateways)
	}
	t.sort()
	return t, gateways
}

// gatewayIndex has all Gateways by name. Those of other controllers are nil.
type gatewayIndex map[types.NamespacedName]*gateway

// gateways returns all Gateways, and notes those without a GatewayClass.
func (t *Translation) gateways(objs *Objects, classes map[string]*class, s *environment) gatewayIndex {
	others := map[string]gwv1.GatewayController{}
	for i := range objs.GatewayClasses {
		others[objs.GatewayClasses[i].Name] = objs.GatewayClasses[i].Spec.ControllerName
	}
	index, configs := gatewayIndex{}, indexConfigs(objs.GatewayConfigs)
	for i := range objs.Gateways {
		obj := &objs.Gateways[i]
		key := types.NamespacedName{Namespace: obj.Namespace, Name: obj.Name}
		name := string(obj.Spec.GatewayClassName)
		index[key] = nil
		c := classes[name]
		var lost *fault
		if controller, is := others[name]; c == nil && is {
			t.addForeign(obj, controller)
		} else if c == nil {
			lost = faultf(gwv1.GatewayReasonInvalid, "GatewayClass %s does not exist: create it with controllerName %s, or correct spec.gatewayClassName.", name, ControllerName)
			t.addNote(named("Gateway", obj.Namespace, obj.Name), lost.message)
			t.addMistake(named("Gateway", obj.Namespace, obj.Name), lost.reason, lost.message, named("GatewayClass", "", name))
			if good, known := s.LastGood.of(obj); known {
				c = classes[good.Class]
			}
		}
		if c != nil {
			c.inUse = true
			index[key] = newGateway(obj, c, lost, s, configs)
			if scope := obj.Spec.DefaultScope; scope != "" && scope != gwv1.GatewayDefaultScopeNone {
				t.addNote(named("Gateway", obj.Namespace, obj.Name), "spec.defaultScope is ignored: it is experimental. Name the Gateway in parentRefs of its routes.")
			}
		}
	}
	return index
}

// sorted returns Blixt's Gateways in order of precedence.
func (index gatewayIndex) sorted() []*gateway {
	var gateways []*gateway
	for _, g := range index {
		if g != nil {
			gateways = append(gateways, g)
		}
	}
	slices.SortFunc(gateways, func(a, b *gateway) int { return byAge(&a.obj.ObjectMeta, &b.obj.ObjectMeta) })
	return gateways
}

// attach returns all routes in order of precedence, attached to their parents. alone is
// true if there are no tenants, who must not learn of each other.
func (t *Translation) attach(objs *Objects, gateways gatewayIndex, sets map[types.NamespacedName]*listenerSet, namespaces namespaceLabels, alone bool) []*route {
	exists := map[types.NamespacedName]bool{}
	for i := range objs.ListenerSets {
		exists[types.NamespacedName{Namespace: objs.ListenerSets[i].Namespace, Name: objs.ListenerSets[i].Name}] = true
	}
	services := newServiceIndex(objs.Services)
	services.mayTell = alone
	all := sortedRoutes(objs)
	for _, r := range all {
		for _, ref := range r.Spec.ParentRefs {
			kind, key := parentOf(ref, r.Meta.Namespace)
			there := true
			switch kind {
			case "Gateway":
				var g *gateway
				if g, there = gateways[key]; g != nil {
					r.attach(ref, parent{name: g.name(), gateway: g, listeners: g.listeners}, namespaces)
				}
			case "ListenerSet":
				there = exists[key]
				if set := sets[key]; set != nil {
					r.attach(ref, set.parent(), namespaces)
				}
			}
			if !there {
				message := string(kind) + " " + key.String() + " in parentRefs does not exist."
				t.addNote(r.name(), message)
				t.addMistake(r.name(), string(gwv1.RouteReasonNoMatchingParent), message, string(kind)+" "+key.String())
			}
		}
		if r.usesDefaults() {
			t.addNote(r.name(), "spec.useDefaultGateways is ignored: it is experimental. Name the Gateways in parentRefs.")
		}
		if len(r.attached) > 0 {
			r.backends = findBackends(r, services, objs.ReferenceGrants)
		}
	}
	return all
}

// parentOf returns the kind and name of the object that a parentRef refers to.
// The kind is empty if the group is not Gateway API's.
func parentOf(ref gwv1.ParentReference, namespace string) (gwv1.Kind, types.NamespacedName) {
	key := types.NamespacedName{Namespace: string(deref(ref.Namespace, "")), Name: string(ref.Name)}
	if key.Namespace == "" {
		key.Namespace = namespace
	}
	if deref(ref.Group, gwv1.GroupName) != gwv1.GroupName {
		return "", key
	}
	return deref(ref.Kind, "Gateway"), key
}

// serve adds the addresses and frontends of a Gateway. A listener without a
// route is a frontend without backends, which refuses connections.
func (t *Translation) serve(g *gateway, s *environment) {
	if !g.isServed() {
		return
	}
	addresses := slices.Clone(g.addresses.usable)
	for _, l := range g.all() {
		for _, key := range l.keys {
			t.Frontends = append(t.Frontends, l.frontend(key))
			addresses = append(addresses, key.Addr) // node ports are at other addresses
		}
	}
	for _, addr := range addresses {
		t.Addresses = append(t.Addresses, lb.Address{IP: addr, Exclusive: !s.isHost(addr)})
	}
}

func (t *Translation) addNote(object, message string) {
	t.Notes = append(t.Notes, Problem{Object: object, Message: message})
}

func (t *Translation) sort() {
	slices.SortFunc(t.Addresses, func(a, b lb.Address) int { return a.IP.Compare(b.IP) })
	t.Addresses = slices.Compact(t.Addresses)
	slices.SortFunc(t.Frontends, func(a, b Frontend) int { return a.Key.Compare(b.Key) })
	slices.SortFunc(t.Classes, func(a, b ClassStatus) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(t.Gateways, func(a, b GatewayStatus) int { return compareNames(a.NamespacedName, b.NamespacedName) })
	slices.SortFunc(t.ListenerSets, func(a, b ListenerSetStatus) int { return compareNames(a.NamespacedName, b.NamespacedName) })
	slices.SortStableFunc(t.Routes, func(a, b RouteStatus) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), compareNames(a.NamespacedName, b.NamespacedName))
	})
	slices.SortFunc(t.Policies, func(a, b PolicyStatus) int { return compareNames(a.NamespacedName, b.NamespacedName) })
	slices.SortFunc(t.Notes, Problem.compare)
}

func compareNames(a, b types.NamespacedName) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

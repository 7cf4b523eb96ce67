// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Translate returns what to serve for the objects and what to say about them.
func Translate(objs Objects, o Options) Translation {
	var t Translation
	classes := map[string]*class{}
	for i := range objs.GatewayClasses {
		if obj := &objs.GatewayClasses[i]; obj.Spec.ControllerName == ControllerName && classes[obj.Name] == nil {
			classes[obj.Name] = newClass(obj)
			t.Classes = append(t.Classes, classes[obj.Name].status())
		}
	}
	gateways := t.gateways(&objs, classes, &o)
	all := t.attach(&objs, gateways)

	for _, g := range gateways {
		t.serve(g, &o)
		t.Gateways = append(t.Gateways, g.status())
	}
	for _, r := range all {
		if len(r.attached) > 0 {
			t.Routes = append(t.Routes, r.status())
		}
	}
	t.sort()
	return t
}

// gateways returns Blixt's Gateways in order of precedence, with ports claimed.
func (t *Translation) gateways(objs *Objects, classes map[string]*class, o *Options) []*gateway {
	others := map[string]bool{}
	for i := range objs.GatewayClasses {
		others[objs.GatewayClasses[i].Name] = true
	}
	var gateways []*gateway
	for i := range objs.Gateways {
		obj := &objs.Gateways[i]
		name := string(obj.Spec.GatewayClassName)
		if c := classes[name]; c != nil {
			gateways = append(gateways, newGateway(obj, c, o))
		} else if !others[name] {
			t.note(named("Gateway", obj.Namespace, obj.Name), "GatewayClass "+name+
				" does not exist: create it with controllerName "+string(ControllerName)+".")
		}
	}
	slices.SortStableFunc(gateways, func(a, b *gateway) int { return byAge(&a.obj.ObjectMeta, &b.obj.ObjectMeta) })
	taken := claims{}
	for _, g := range gateways {
		for _, l := range g.listeners {
			taken.claim(l, o)
		}
	}
	return gateways
}

// attach returns all routes in order of precedence, attached to their parents.
func (t *Translation) attach(objs *Objects, gateways []*gateway) []*route {
	index := map[types.NamespacedName]*gateway{}
	for _, g := range gateways {
		if key := (types.NamespacedName{Namespace: g.obj.Namespace, Name: g.obj.Name}); index[key] == nil {
			index[key] = g
		}
	}
	exists := map[types.NamespacedName]bool{}
	for i := range objs.Gateways {
		exists[types.NamespacedName{Namespace: objs.Gateways[i].Namespace, Name: objs.Gateways[i].Name}] = true
	}
	namespaces, services := newNamespaceLabels(objs.Namespaces), newServiceIndex(objs.Services)
	all := routes(objs)
	for _, r := range all {
		for _, ref := range r.parents {
			key, ok := parent(ref, r.meta.Namespace)
			switch g := index[key]; {
			case !ok:
			case g != nil:
				r.attach(ref, g, namespaces)
			case !exists[key]:
				t.note(r.name(), "Gateway "+key.String()+" in parentRefs does not exist.")
			}
		}
		if len(r.attached) > 0 {
			r.backends = findBackends(r, services, objs.ReferenceGrants)
		}
	}
	return all
}

// parent returns the Gateway that a parentRef names, and false for other kinds.
func parent(ref gwv1.ParentReference, namespace string) (types.NamespacedName, bool) {
	key := types.NamespacedName{Namespace: string(deref(ref.Namespace, "")), Name: string(ref.Name)}
	if key.Namespace == "" {
		key.Namespace = namespace
	}
	return key, deref(ref.Group, gwv1.GroupName) == gwv1.GroupName && deref(ref.Kind, "Gateway") == "Gateway"
}

// serve adds the addresses and frontends of a Gateway. A listener without a
// route is a frontend without backends: it refuses what comes.
func (t *Translation) serve(g *gateway, o *Options) {
	if g.accepted().Status != metav1.ConditionTrue {
		return
	}
	for _, addr := range g.addresses.usable {
		address := lb.Address{IP: addr, Exclusive: !o.isHost(addr)}
		if !slices.Contains(t.Addresses, address) {
			t.Addresses = append(t.Addresses, address)
		}
		for _, l := range g.listeners {
			if l.fault() == nil {
				t.Frontends = append(t.Frontends, l.frontend(l.key(addr)))
			}
		}
	}
}

func (t *Translation) note(object, message string) {
	t.Notes = append(t.Notes, Problem{Object: object, Message: message})
}

func (t *Translation) sort() {
	slices.SortFunc(t.Addresses, func(a, b lb.Address) int { return a.IP.Compare(b.IP) })
	slices.SortFunc(t.Frontends, func(a, b Frontend) int { return a.Key.Compare(b.Key) })
	slices.SortFunc(t.Classes, func(a, b ClassStatus) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortStableFunc(t.Gateways, func(a, b GatewayStatus) int { return compareNames(a.NamespacedName, b.NamespacedName) })
	slices.SortStableFunc(t.Routes, func(a, b RouteStatus) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), compareNames(a.NamespacedName, b.NamespacedName))
	})
	slices.SortFunc(t.Notes, Problem.compare)
}

func compareNames(a, b types.NamespacedName) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

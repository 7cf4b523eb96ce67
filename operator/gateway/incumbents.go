// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Incumbents are the Gateways and ListenerSets that hold addresses and frontends
// after a translation. The next translation leaves them what they hold, as long
// as they want it: age decides only between objects that want something new. An
// object that is invalid for a while holds what it had, so that nobody else gets
// it meanwhile. Only who deletes an object, or no longer asks, gives it up.
//
// A Gateway that is deleted and created anew is another one: it has another UID.
type Incumbents struct {
	// Objects are sorted. Those that hold nothing are left out.
	Objects []Incumbent `json:"objects"`
	// Routes are those that serve a listener. Known without a cluster only.
	Routes []ServingRoute `json:"routes,omitempty"`
}

// ServingRoute is a route that serves a listener of a Gateway at a frontend.
type ServingRoute struct {
	lb.Key
	// Names are as in lb.Frontend.
	Gateway  string `json:"gateway"`
	Listener string `json:"listener"`
	Route    string `json:"route"`
}

// Incumbent is a Gateway or ListenerSet with what it holds.
type Incumbent struct {
	Kind string `json:"kind"`
	types.NamespacedName
	UID types.UID `json:"uid,omitempty"`
	// Addresses are held by Gateways only. Those of nodes are not among them,
	// unless they are named: nodes share them with everybody.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// Frontends are those of the object's listeners, whatever their names.
	Frontends []lb.Key `json:"frontends,omitempty"`
}

// owner identifies a Gateway or ListenerSet.
type owner struct {
	kind string
	types.NamespacedName
	uid types.UID
}

func ownerOf(kind string, m *metav1.ObjectMeta) owner {
	return owner{kind, types.NamespacedName{Namespace: m.Namespace, Name: m.Name}, m.UID}
}

func (g *gateway) owner() owner { return ownerOf("Gateway", &g.obj.ObjectMeta) }

// incumbency answers who held what before this translation.
type incumbency struct {
	// known is false if the answers are those of stored statuses, which the
	// objects' owners may have forged. Several may then claim the same.
	known     bool
	addresses map[owner][]netip.Addr
	frontends map[owner][]lb.Key
	held      map[heldFrontend]bool
}

type heldFrontend struct {
	owner
	lb.Key
}

// newIncumbency reads what the previous translation left. Without one, as after
// the first start of an operator, statuses must do.
func newIncumbency(previous *Incumbents, gateways []*gateway, s *environment) *incumbency {
	i := &incumbency{addresses: map[owner][]netip.Addr{}, frontends: map[owner][]lb.Key{}, held: map[heldFrontend]bool{}}
	if previous == nil {
		for _, g := range gateways {
			i.readStatus(g, s)
		}
		return i
	}
	i.known = true
	for _, o := range previous.Objects {
		who := owner{o.Kind, o.NamespacedName, o.UID}
		i.addresses[who] = o.Addresses
		for _, key := range o.Frontends {
			i.addFrontend(who, key)
		}
	}
	return i
}

func (i *incumbency) addFrontend(who owner, key lb.Key) {
	if key := (heldFrontend{who, key}); !i.held[key] {
		i.held[key] = true
		i.frontends[who] = append(i.frontends[who], key.Key)
	}
}

// readStatus takes a Gateway's status, and those of its ListenerSets, at their
// word.
func (i *incumbency) readStatus(g *gateway, s *environment) {
	i.addresses[g.owner()] = statusAddresses(g.obj)
	served := slices.Concat(i.addresses[g.owner()], s.everywhere)
	add := func(listeners []*listener, accepted map[gwv1.SectionName]bool) {
		for _, l := range listeners {
			for _, addr := range served {
				if accepted[l.spec.Name] && l.protocol != 0 {
					i.addFrontend(l.ownerID(), l.key(addr))
				}
			}
		}
	}
	accepted := map[gwv1.SectionName]bool{}
	for _, status := range g.obj.Status.Listeners {
		accepted[status.Name] = wasAccepted(status.Conditions, g.obj.Generation)
	}
	add(g.listeners, accepted)
	for _, set := range g.sets {
		accepted := map[gwv1.SectionName]bool{}
		for _, status := range set.obj.Status.Listeners {
			accepted[status.Name] = wasAccepted(status.Conditions, set.obj.Generation)
		}
		add(set.listeners, accepted)
	}
}

// wasAccepted reports whether a listener was accepted as it is now.
func wasAccepted(conditions []metav1.Condition, generation int64) bool {
	c := meta.FindStatusCondition(conditions, string(gwv1.ListenerConditionAccepted))
	return c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == generation
}

// statusAddresses returns the IP addresses in a Gateway's status.
func statusAddresses(gw *gwv1.Gateway) []netip.Addr {
	var all []netip.Addr
	for _, a := range gw.Status.Addresses {
		addr, err := netip.ParseAddr(a.Value)
		if err == nil && deref(a.Type, gwv1.IPAddressType) == gwv1.IPAddressType && !slices.Contains(all, addr) {
			all = append(all, addr)
		}
	}
	return all
}

// holds reports whether the listener's object held the frontend.
func (i *incumbency) holds(l *listener, key lb.Key) bool {
	return i.held[heldFrontend{l.ownerID(), key}]
}

// heldFor returns the frontends that the listener's object held at the
// listener's port. An unsupported protocol stands for each: it is a mistake.
func (i *incumbency) heldFor(l *listener) []lb.Key {
	var keys []lb.Key
	for _, key := range i.frontends[l.ownerID()] {
		if int32(key.Port) == l.spec.Port && (l.protocol == 0 || l.protocol == key.Protocol) {
			keys = append(keys, key)
		}
	}
	return keys
}

// newIncumbents returns who holds what from now on.
func newIncumbents(gateways []*gateway, c claims) Incumbents {
	objects := map[owner]*Incumbent{}
	of := func(who owner) *Incumbent {
		if objects[who] == nil {
			objects[who] = &Incumbent{Kind: who.kind, NamespacedName: who.NamespacedName, UID: who.uid}
		}
		return objects[who]
	}
	for _, g := range gateways {
		if len(g.held) > 0 {
			of(g.owner()).Addresses = g.held
		}
	}
	for key, l := range c.taken {
		o := of(l.ownerID())
		o.Frontends = append(o.Frontends, key)
	}
	var all Incumbents
	for _, o := range objects {
		slices.SortFunc(o.Addresses, netip.Addr.Compare)
		slices.SortFunc(o.Frontends, lb.Key.Compare)
		all.Objects = append(all.Objects, *o)
	}
	slices.SortFunc(all.Objects, func(a, b Incumbent) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), compareNames(a.NamespacedName, b.NamespacedName), cmp.Compare(a.UID, b.UID))
	})
	return all
}

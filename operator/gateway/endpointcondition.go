// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// RouteConditionEndpointsUsable is a condition of routes: whether the Services
// have endpoints for the frontends, of one family at least, and none that Blixt
// leaves out. Gateway API's
// ResolvedRefs is about the Services alone.
const RouteConditionEndpointsUsable = "blixt.x-k8s.io/EndpointsUsable"

// The reasons of RouteConditionEndpointsUsable.
const (
	reasonEndpointsUsable  = "EndpointsUsable"
	reasonEndpointsRefused = "EndpointsRefused" // some are left out
	reasonNoReadyEndpoint  = "NoReadyEndpoint"  // connections are refused
	reasonNotServed        = "NotServed"        // no frontend or Service is the route's
)

// Users finds who uses a Service's endpoints, so that one Service's change costs
// nothing for the others. Frontends are indices in Translation.Frontends.
type Users struct {
	frontends []Frontend
	ofService map[types.NamespacedName][]int
	ofRoute   map[string][]int
	ofGateway map[string][]*Frontend
	policy    *EndpointPolicy
	keys      map[lb.Key]bool
}

// NewUsers returns those of a translation.
func NewUsers(t *Translation, policy *EndpointPolicy) *Users {
	u := &Users{
		frontends: t.Frontends, ofService: map[types.NamespacedName][]int{}, ofRoute: map[string][]int{}, ofGateway: map[string][]*Frontend{},
		policy: policy, keys: make(map[lb.Key]bool, len(t.Frontends)),
	}
	for i := range t.Frontends {
		f := &t.Frontends[i]
		u.keys[f.Key] = true
		u.ofGateway[f.Gateway] = append(u.ofGateway[f.Gateway], f)
		if f.Route != "" {
			u.ofRoute[f.Route] = append(u.ofRoute[f.Route], i)
		}
		for j, ref := range f.Refs {
			if !slices.ContainsFunc(f.Refs[:j], func(r Ref) bool { return r.Service == ref.Service }) {
				u.ofService[ref.Service] = append(u.ofService[ref.Service], i)
			}
		}
	}
	return u
}

// OfGateway returns the frontends of a Gateway, by the name that they have.
func (u *Users) OfGateway(name string) []*Frontend { return u.ofGateway[name] }

// Gateways returns the names of the Gateways that use a Service, as Frontend.Gateway
// has them.
func (u *Users) Gateways(service types.NamespacedName) []string {
	return u.names(service, func(f *Frontend) string { return f.Gateway })
}

// Routes returns the names of the routes that use a Service, as Frontend.Route has
// them.
func (u *Users) Routes(service types.NamespacedName) []string {
	return u.names(service, func(f *Frontend) string { return f.Route })
}

func (u *Users) names(service types.NamespacedName, of func(*Frontend) string) []string {
	names := map[string]bool{}
	for _, i := range u.ofService[service] {
		names[of(&u.frontends[i])] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// EndpointReport says what is wrong with endpoints, as they were at a time. It looks
// at each Service once, however many routes lead there.
type EndpointReport struct {
	users     *Users
	endpoints Endpoints
	refused   map[types.NamespacedName][]Problem
	ready     map[readyKey]bool
}

// readyKey is what readiness for new connections depends on.
type readyKey struct {
	service  types.NamespacedName
	port     string
	protocol lb.Protocol
	v6       bool
}

// Report returns the report on endpoints.
func (u *Users) Report(e Endpoints) *EndpointReport {
	return &EndpointReport{users: u, endpoints: e, refused: map[types.NamespacedName][]Problem{}, ready: map[readyKey]bool{}}
}

// Condition returns RouteConditionEndpointsUsable of a route. Its text does not
// count what is in order, so that it stays the same while endpoints come and go.
func (r *EndpointReport) Condition(route string, generation int64) metav1.Condition {
	u := r.users
	var own []Frontend
	for _, i := range u.ofRoute[route] {
		own = append(own, u.frontends[i])
	}
	if len(own) == 0 {
		return condition(RouteConditionEndpointsUsable, metav1.ConditionUnknown, reasonNotServed, generation, "No listener serves the route: see Accepted.")
	}
	// Gateways mostly have addresses of both families because nodes or pools have:
	// nobody who made a Service of one family did wrong.
	isReady := func(f *Frontend, ref Ref) bool {
		return r.isReady(f, ref) || slices.ContainsFunc(own, func(o Frontend) bool {
			return o.Protocol == f.Protocol && o.Addr.Is6() != f.Addr.Is6() && r.isReady(&o, ref)
		})
	}
	all, reason, more := unserved(own, isReady), reasonNoReadyEndpoint, 0
	if len(all) == 0 {
		reason = reasonEndpointsRefused
	}
	seen := map[types.NamespacedName]bool{}
	for i := range own {
		for _, ref := range own[i].Refs {
			if !seen[ref.Service] {
				seen[ref.Service] = true
				all = append(all, r.refusedOf(ref.Service)...)
				more += r.endpoints[ref.Service].MoreProblems
			}
		}
	}
	if len(seen) == 0 {
		return condition(RouteConditionEndpointsUsable, metav1.ConditionUnknown, reasonNotServed, generation, "No backendRef leads to a Service: see ResolvedRefs.")
	}
	if len(all) == 0 {
		return condition(RouteConditionEndpointsUsable, metav1.ConditionTrue, reasonEndpointsUsable, generation, "Every Service has a ready endpoint.")
	}
	return condition(RouteConditionEndpointsUsable, metav1.ConditionFalse, reason, generation, sample(all, more))
}

// sample returns what is wrong in a few sentences. There are more problems than all.
func sample(all []Problem, more int) string {
	const most = 5
	var words []string
	for _, p := range all[:min(len(all), most)] {
		words = append(words, p.Object+": "+p.Message)
	}
	if more += max(len(all)-most, 0); more > 0 {
		words = append(words, fmt.Sprintf("And %d more.", more))
	}
	return strings.Join(words, " ")
}

// refusedOf returns which endpoints of a Service get no connections.
func (r *EndpointReport) refusedOf(service types.NamespacedName) []Problem {
	if found, known := r.refused[service]; known {
		return found
	}
	all := slices.Clone(r.endpoints[service].Problems)
	for _, port := range r.endpoints[service].Ports {
		for _, endpoint := range port.Endpoints {
			if key := keyOf(endpoint.Addr, port.Protocol); r.users.isFrontend(key) && len(all) < 2*maxProblems {
				all = append(all, loopProblem(service, key))
			}
		}
	}
	r.refused[service] = all
	return all
}

// isReady reports whether a reference of a frontend has an endpoint for new
// connections.
func (r *EndpointReport) isReady(f *Frontend, ref Ref) bool {
	key := readyKey{ref.Service, ref.PortName, f.Protocol, f.Addr.Is6()}
	is, known := r.ready[key]
	if !known {
		is = hasReady(r.endpoints, f, ref)
		r.ready[key] = is
	}
	return is
}

func hasReady(e Endpoints, f *Frontend, ref Ref) bool {
	return slices.ContainsFunc(e[ref.Service].of(ref.PortName, f.Key), func(e Endpoint) bool { return e.State > Draining })
}

// isFrontend reports whether the key is a frontend's on some node.
func (u *Users) isFrontend(key lb.Key) bool {
	if u.keys[key] {
		return true
	}
	if u.policy == nil || !u.policy.nodes[key.Addr] {
		return false
	}
	every := netip.IPv4Unspecified()
	if key.Addr.Is6() {
		every = netip.IPv6Unspecified()
	}
	return u.keys[lb.Key{Addr: every, Protocol: key.Protocol, Port: key.Port}]
}

func keyOf(addr netip.AddrPort, protocol lb.Protocol) lb.Key {
	return lb.Key{Addr: addr.Addr(), Protocol: protocol, Port: addr.Port()}
}

func loopProblem(service types.NamespacedName, key lb.Key) Problem {
	return Problem{Object: named("Service", service.Namespace, service.Name),
		Message: fmt.Sprintf("Endpoint %s is itself a frontend of Blixt. Its share of connections is refused: packets would loop.", key)}
}

// Unserved returns a problem for each Service that has no endpoint for new
// connections to a frontend. Its share of them is refused.
func Unserved(frontends []Frontend, e Endpoints) []Problem {
	return unserved(frontends, func(f *Frontend, ref Ref) bool { return hasReady(e, f, ref) })
}

func unserved(frontends []Frontend, isReady func(*Frontend, Ref) bool) []Problem {
	lacking := map[types.NamespacedName][]string{} // the frontends of each Service
	for i := range frontends {
		f := &frontends[i]
		for _, ref := range f.Refs {
			if ref.Weight == 0 || isReady(f, ref) {
				continue
			}
			if name := f.Key.String(); !slices.Contains(lacking[ref.Service], name) {
				lacking[ref.Service] = append(lacking[ref.Service], name)
			}
		}
	}
	var all []Problem
	for service, names := range lacking {
		all = append(all, Problem{Object: named("Service", service.Namespace, service.Name), Message: "No endpoint is ready for " + phrase.Sample(names) +
			": its share of new connections is refused until an EndpointSlice has one, of that family, protocol and port name."})
	}
	slices.SortFunc(all, func(a, b Problem) int { return cmp.Compare(a.Object, b.Object) })
	return all
}

// SetEndpoints adds RouteConditionEndpointsUsable to the parents of every route.
func (t *Translation) SetEndpoints(r *EndpointReport) {
	for i := range t.Routes {
		t.Routes[i] = t.Routes[i].WithEndpoints(r)
	}
}

// WithEndpoints returns the status with RouteConditionEndpointsUsable of each
// parent. The receiver is not modified.
func (r RouteStatus) WithEndpoints(report *EndpointReport) RouteStatus {
	r.Status.Parents = slices.Clone(r.Status.Parents)
	for i := range r.Status.Parents {
		p := &r.Status.Parents[i]
		now := report.Condition(r.FrontendName(), p.Conditions[0].ObservedGeneration)
		others := slices.DeleteFunc(slices.Clone(p.Conditions), func(c metav1.Condition) bool { return c.Type == now.Type })
		p.Conditions = append(others, now)
	}
	return r
}

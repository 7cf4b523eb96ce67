// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	rtcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// publisher is the first loop: it translates the cluster's objects, publishes the
// result to the agents, and hands it to the other loops. It writes nothing.
type publisher struct {
	*api
	*Options
	cache      cache.Cache
	controller rtcontroller.TypedController[request]
	events     *events
	addressed  *addressIndex
	rollout    *rolloutLoop
	statuses   *statusWriter
	keeper     *incumbentsKeeper
	// serviceCIDRs: the cluster has objects of that kind.
	serviceCIDRs bool
	services     *serviceWriter
	causes       *causes

	// What passes remember.
	started   time.Time
	watched   watchedKinds
	addresses map[types.NamespacedName][]gwv1.GatewayStatusAddress
	current   *translated // nil: there was no complete pass yet
	endpoints *endpointStore
	hostPorts hostPortMemory
	// incumbents are those that the last leader has left; nil: none are known.
	incumbents *gateway.Incumbents
}

// translated is what a pass has made. Once handed over, neither it nor what it
// refers to changes.
type translated struct {
	*snapshot
	gateway.Translation
	policy *gateway.EndpointPolicy
	users  *gateway.Users
	// routes finds a route by the name that frontends have.
	routes    map[string]routeOf
	published published
	// owners are the Gateways by the names of their Services.
	owners map[types.NamespacedName]*gateway.GatewayStatus
	// started is when agents could first connect to this leader.
	started time.Time
}

// published is what was sent to the agents.
type published struct {
	version lb.Version
	// since has the first version that contains each Gateway as it is now: its
	// listeners and routes, not the endpoints, which change all the time.
	since map[types.NamespacedName]lb.Version
	// hash is that of each Gateway as it is now.
	hash   map[types.NamespacedName]uint64
	issued []rollout.Issued
}

// issuedFor is how long versions are remembered.
const issuedFor = 2 * time.Minute

// reconcile runs one pass.
func (p *publisher) reconcile(ctx context.Context, r request) (reconcile.Result, error) {
	if p.started.IsZero() {
		if err := p.rollout.readBoots(ctx); err != nil {
			return reconcile.Result{}, err
		}
		p.started = p.Clock()
		p.causes.lead()
		if p.Leads != nil {
			p.Leads()
		}
	}
	defer p.Liveness.begin("publisher", time.Now())()
	var err error
	switch {
	case r == everything || p.current == nil:
		err = p.publishAll(ctx)
	case r.conditionsOf != types.NamespacedName{}:
		p.setConditions(r.conditionsOf)
	case r.sourcesOf != types.NamespacedName{}:
		err = p.publishSources(ctx, r.sourcesOf)
	default:
		err = p.publishEndpoints(ctx, r.endpointsOf)
	}
	if !errors.Is(ctx.Err(), context.Canceled) { // at its end, nothing is wrong
		p.measures.Count(err)
		p.once.result("publisher", err)
	}
	if r == everything && p.hostPorts.rests() {
		return reconcile.Result{RequeueAfter: p.HostPortRest}, err
	}
	return reconcile.Result{}, err
}

// publishAll reads all objects, and publishes what they ask for.
func (p *publisher) publishAll(ctx context.Context) (err error) {
	watch := p.measures.Start()
	cause, restore := p.causes.take(everything)
	defer func() {
		if err != nil {
			restore()
		}
	}()
	kinds, err := p.readKinds(ctx)
	if err != nil {
		return err
	}
	if p.current != nil {
		if err := kinds.lost(p.current.kinds); err != nil {
			return err
		}
	}
	if err := p.watch(ctx, kinds); err != nil {
		return err
	}
	s, err := p.readSnapshot(ctx, kinds)
	if err != nil {
		return err
	}
	if p.current == nil {
		if p.incumbents, err = p.keeper.read(ctx); err != nil {
			return err
		}
	}
	watch.Lap("read")
	cluster := s.cluster(p.ReservedPorts, p.services.problem)
	t := &translated{snapshot: s, Translation: p.translate(s, cluster), started: p.started}
	t.policy = gateway.NewEndpointPolicy(&t.Translation, cluster, s.objects.Namespaces, p.addressed)
	t.users = gateway.NewUsers(&t.Translation, t.policy)
	watch.Lap("translate")
	endpoints, err := p.readAllEndpoints(ctx, t)
	if err != nil {
		return err
	}
	t.SetEndpoints(t.users.Report(endpoints))
	watch.Lap("endpoints")
	t.routes = t.indexRoutes()
	previous := published{}
	if p.current != nil {
		previous = p.current.published
	}
	p.Fleet.SetNodes(fleetNodes(s.nodes))
	p.endpoints.replace(endpoints)
	p.Fleet.CausedBy(cause)
	t.published = p.record(previous, p.Fleet.Publish(fleet.Snapshot{Unresolved: t.Unresolved, Endpoints: endpoints}))
	t.published.since, t.published.hash = trackGateways(t, previous)
	p.current = t
	watch.Lap("publish")

	// Agents have everything by now. The rest is for people and load balancers.
	t.indexServices()
	p.services.set(t)
	p.statuses.set([]string{"GatewayClass", "TCPRoute", "UDPRoute", "Service"}, slices.Concat(t.classStatuses(), t.routeStatuses(), t.serviceStatuses()))
	p.rollout.latest.Store(t)
	p.rollout.wake()
	p.keeper.set(&t.Incumbents)
	return nil
}

// publishEndpoints publishes the changed endpoints of one Service.
func (p *publisher) publishEndpoints(ctx context.Context, service types.NamespacedName) error {
	if _, serves := p.endpoints.get(service); !serves {
		return nil
	}
	watch := p.measures.Start()
	cause, restore := p.causes.take(request{endpointsOf: service})
	found, err := p.readEndpoints(ctx, service, p.current.policy)
	if err != nil {
		restore()
		return err
	}
	p.endpoints.set(service, found)
	p.Fleet.CausedBy(cause)
	t := *p.current
	t.published = p.record(t.published, p.Fleet.PublishEndpoints(service, found))
	watch.Lap("service")
	p.current = &t
	p.rollout.latest.Store(&t) // the reports of the agents wake it
	p.services.setEndpoints(&t, service)
	return nil
}

// setConditions hands over the statuses of the routes that use a Service.
func (p *publisher) setConditions(service types.NamespacedName) {
	report := p.current.users.Report(p.endpoints.known)
	for _, name := range p.current.users.Routes(service) {
		if w, ok := p.current.endpointStatus(name, report); ok {
			p.statuses.put(w)
		}
	}
}

// translate returns what to serve.
func (p *publisher) translate(s *snapshot, cluster *gateway.Cluster) gateway.Translation {
	cluster.Capacity = lb.Smallest(p.Fleet.Reports())
	cluster.HostListens = *p.rollout.hostListens.Load()
	o := gateway.Options{Cluster: cluster, LastGood: s.lastGood(), Incumbents: p.incumbents}
	if p.current != nil { // it knows what the cache may not have yet
		o.Incumbents = &p.current.Incumbents
		maps.Copy(o.LastGood.Gateways, p.current.LastGood.Gateways)
		o.LastGood.Classes, o.LastGood.Policies = p.current.LastGood.Classes, p.current.LastGood.Policies
	}
	t := gateway.Translate(s.objects, o)
	maps.DeleteFunc(p.addresses, func(name types.NamespacedName, _ []gwv1.GatewayStatusAddress) bool { return s.gateways[name] == nil })
	for _, g := range t.Gateways {
		p.addresses[g.NamespacedName] = g.Status.Addresses
	}
	missing := s.kinds.lacksAny()
	if missing != "" {
		for i := range t.Classes {
			if a := meta.FindStatusCondition(t.Classes[i].Status.Conditions, string(gwv1.GatewayClassConditionStatusAccepted)); a.Status == metav1.ConditionTrue {
				a.Message += " But " + missing
			}
		}
	}
	notes := map[string]string{"cluster": missing}
	for _, n := range t.Notes { // an object may have several
		notes[n.Object] = strings.TrimSpace(notes[n.Object] + " " + n.Message)
	}
	p.once.set("publisher", notes)
	return t
}

// record returns what is published, now that agents are sent a version.
func (p *publisher) record(previous published, version lb.Version) published {
	next := previous
	next.version = version
	if n := len(previous.issued); n == 0 || previous.issued[n-1].Version != version {
		now := p.Clock()
		next.issued = append(slices.DeleteFunc(slices.Clone(previous.issued), func(i rollout.Issued) bool {
			return now.Sub(i.At) > issuedFor
		}), rollout.Issued{Version: version, At: now})
	}
	return next
}

// trackGateways returns the fields since and hash of what was published.
func trackGateways(t *translated, previous published) (since map[types.NamespacedName]lb.Version, hash map[types.NamespacedName]uint64) {
	since, hash = map[types.NamespacedName]lb.Version{}, hashGateways(&t.Unresolved)
	for _, g := range t.Gateways {
		name := g.NamespacedName
		if v, known := previous.since[name]; known && previous.hash[name] == hash[name] {
			since[name] = v
		} else {
			since[name] = t.published.version
		}
	}
	return since, hash
}

// hashGateways hashes the frontends of each Gateway, with the sources that they admit.
func hashGateways(u *gateway.Unresolved) map[types.NamespacedName]uint64 {
	hashes, sources, frontends := map[types.NamespacedName]uint64{}, map[string]uint64{}, u.Frontends
	for i := range u.Sources {
		sources[u.Sources[i].Policy] = hashSources(&u.Sources[i])
	}
	for i := range frontends {
		text, err := json.Marshal(&frontends[i])
		if err != nil { // plain data
			panic(err)
		}
		h := fnv.New64a()
		h.Write(text)
		namespace, name, _ := strings.Cut(frontends[i].Gateway, "/")
		key := types.NamespacedName{Namespace: namespace, Name: name}
		hashes[key] = hashes[key]*31 + h.Sum64()
		for _, r := range frontends[i].Restrictions {
			hashes[key] = hashes[key]*31 + sources[r.Policy]
		}
	}
	return hashes
}

func hashSources(s *lb.SourceSet) uint64 {
	h := fnv.New64a()
	var text []byte
	for _, list := range [][]netip.Prefix{s.Allow, s.Deny} {
		text = strconv.AppendBool(text[:0], s.OnlyAllowed)
		for _, p := range list {
			text, _ = p.AppendBinary(text) // never fails
		}
		h.Write(text)
	}
	return h.Sum64()
}

func fleetNodes(nodes []corev1.Node) []fleet.Node {
	all := make([]fleet.Node, 0, len(nodes))
	for i := range nodes {
		n := &nodes[i]
		all = append(all, fleet.Node{
			Name: n.Name, Zone: n.Labels[corev1.LabelTopologyZone], Addresses: nodeAddresses(n),
			Tunnels: rollout.NodeAddresses(n), PodCIDRs: prefixes(n.Spec.PodCIDRs),
		})
	}
	return all
}

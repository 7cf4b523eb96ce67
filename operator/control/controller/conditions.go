// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// conclude has the data plane run what it should, and writes every status.
func (c *Controller) conclude(ctx context.Context) error {
	var failed errorList
	verdicts, err := c.runDataplane(ctx)
	failed.add(err)
	published := map[types.NamespacedName]rollout.PublishedGateway{}
	for _, g := range c.translation.Gateways {
		p := rollout.PublishedGateway{Since: c.published.since[g.NamespacedName], Service: g.Service}
		if s := c.world.services[types.NamespacedName{Namespace: g.Namespace, Name: serviceName(g.Name)}]; s != nil {
			p.HealthCheckNodePort = s.Spec.HealthCheckNodePort
		}
		published[g.NamespacedName] = p
	}
	progress := rollout.Progress(rollout.Fleet{
		Nodes: verdicts, Problems: c.problems, Reports: c.Fleet.Reports(), Epoch: c.published.version.Epoch,
		Starting: c.Clock().Before(c.started.Add(c.Grace)), Unavailable: c.kinds.noBpfman, ProxyMode: c.world.proxyMode,
	}, published)
	for name, p := range progress {
		if stored := c.world.gateways[name]; stored != nil {
			c.translation.SetProgress(name, p, stored.Status.Conditions)
		}
	}
	failed.add(c.writeStatuses(ctx))
	return failed.err()
}

// writeStatuses writes those that have changed, each once. What is stored is
// read anew: much has happened since the pass began.
func (c *Controller) writeStatuses(ctx context.Context) error {
	var failed errorList
	t := &c.translation
	get := func(key types.NamespacedName, o client.Object) bool {
		err := c.client.Get(ctx, key, o)
		failed.add(client.IgnoreNotFound(err))
		return err == nil
	}
	for _, s := range t.Classes {
		if o := (&gwv1.GatewayClass{}); get(types.NamespacedName{Name: s.Name}, o) {
			failed.add(c.writeClass(ctx, o, s.Status))
		}
	}
	for _, s := range t.Gateways {
		if o := (&gwv1.Gateway{}); get(s.NamespacedName, o) {
			failed.add(c.writeGateway(ctx, o, s.Status))
		}
	}
	for _, s := range t.ListenerSets {
		if o := (&gwv1.ListenerSet{}); get(s.NamespacedName, o) {
			failed.add(c.writeListenerSet(ctx, o, s.Status))
		}
	}
	parents := map[routeKey][]gwv1.RouteParentStatus{}
	for _, s := range t.Routes {
		parents[routeKey{s.Kind, s.NamespacedName}] = s.Status.Parents
	}
	for i := range c.world.objects.TCPRoutes {
		r := &c.world.objects.TCPRoutes[i]
		wanted := parents[routeKey{"TCPRoute", client.ObjectKeyFromObject(r)}]
		if o := (&gwv1.TCPRoute{}); (len(wanted) > 0 || ours(r.Status.Parents)) && get(client.ObjectKeyFromObject(r), o) {
			failed.add(c.writeRoute(ctx, o, wanted))
		}
	}
	for i := range c.world.objects.UDPRoutes {
		r := &c.world.objects.UDPRoutes[i]
		wanted := parents[routeKey{"UDPRoute", client.ObjectKeyFromObject(r)}]
		if o := (&gwv1.UDPRoute{}); (len(wanted) > 0 || ours(r.Status.Parents)) && get(client.ObjectKeyFromObject(r), o) {
			failed.add(c.writeRoute(ctx, o, wanted))
		}
	}
	return failed.err()
}

// routeKey names a route.
type routeKey struct {
	kind gwv1.Kind
	types.NamespacedName
}

// ours tells whether one of the parents is.
func ours(parents []gwv1.RouteParentStatus) bool {
	return slices.ContainsFunc(parents, func(p gwv1.RouteParentStatus) bool { return p.ControllerName == gateway.ControllerName })
}

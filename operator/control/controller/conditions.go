// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// conclude has the data plane run what it should, and writes every status.
func (c *Controller) conclude(ctx context.Context) error {
	var failed errorList
	verdicts, err := c.runDataplane(ctx)
	failed.add(err)
	heard := c.acked()
	for _, g := range c.translation.Gateways {
		if stored := c.world.gateways[g.NamespacedName]; stored != nil {
			p := c.progress(g.NamespacedName, verdicts, heard)
			if g.Service != nil {
				p.Also = podTraffic(g.Service, c.world.proxyMode, c.world.services[types.NamespacedName{Namespace: g.Namespace, Name: serviceName(g.Name)}])
			}
			if p.Nodes > 0 {
				p.Also = strings.TrimSpace(p.Also + " " + c.blocked())
			}
			c.translation.SetProgress(g.NamespacedName, p, stored.Status.Conditions)
		}
	}
	failed.add(c.writeStatuses(ctx))
	return failed.err()
}

// blocked says why other bytecode serves than is asked for, and that will not
// pass; else nothing.
func (c *Controller) blocked() string {
	for _, p := range c.problems {
		if p.Reason == rollout.UpgradeBlocked || p.Reason == rollout.BytecodeRefused {
			return fmt.Sprintf("But not with the bytecode that is asked for: %s: %s: %s", p.Object, p.Reason, p.Message)
		}
	}
	return ""
}

// podTraffic says what is not as with other Gateways of what comes from inside of
// the cluster, and of the health checks that kube-proxy answers with it.
func podTraffic(p *gateway.ServiceSpec, proxyMode string, s *corev1.Service) string {
	switch {
	case p.PodTraffic == v1alpha1.PodTrafficKubeProxy:
		return "What pods and nodes send to it is balanced by kube-proxy, without weights (podTraffic of the BlixtConfig)."
	case p.Source == v1alpha1.SourceNode && proxyMode == gateway.ProxyIPVS:
		return "What a node's own pods and processes send to the node's address is not served, whatever podTraffic of the BlixtConfig says: kube-proxy in mode ipvs would cut nodes off from each other. Run it in mode nftables."
	case p.Source == v1alpha1.SourceNode:
		return "What a node's own pods and processes send to the node's address is not served: set podTraffic of the BlixtConfig to KubeProxy, unless kube-proxy runs in mode ipvs."
	case s != nil && s.Spec.HealthCheckNodePort != 0:
		return fmt.Sprintf("A load balancer that asks nodes for their health, at port %d, gets no answer and may use none: unset podTraffic of the BlixtConfig, and kube-proxy answers.", s.Spec.HealthCheckNodePort)
	}
	return ""
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

// acked returns the newest version that each node has confirmed to this leader.
func (c *Controller) acked() map[string]lb.Version {
	heard := map[string]lb.Version{}
	for _, r := range c.Fleet.Reports() {
		if r.Version.Epoch == c.published.version.Epoch && !r.Draining && r.Version.Sequence >= heard[r.Node].Sequence {
			heard[r.Node] = r.Version
		}
	}
	return heard
}

// progress tells how far the nodes are with a Gateway.
func (c *Controller) progress(key types.NamespacedName, verdicts []rollout.NodeStatus, heard map[string]lb.Version) gateway.Progress {
	var p gateway.Progress
	if p.Why = c.kinds.noBpfman; p.Why != "" {
		return p
	}
	since := c.published.since[key]
	grace := c.Clock().Before(c.started.Add(c.Grace))
	for _, v := range verdicts {
		if !v.Counted {
			continue
		}
		p.Nodes++
		ready := meta.FindStatusCondition(v.Status.Conditions, v1alpha1.NodeReady)
		version, is := heard[v.Node]
		switch {
		case !is && grace:
			p.Unheard = append(p.Unheard, v.Node)
		case ready != nil && ready.Status == metav1.ConditionFalse, ready != nil && !is:
			p.Missing = append(p.Missing, v.Node)
			addReason(&p, fmt.Sprintf("%s: %s: %s", v.Node, ready.Reason, ready.Message))
		case version.Sequence < since.Sequence:
			p.Missing = append(p.Missing, v.Node)
			addReason(&p, fmt.Sprintf("%s: its agent has not confirmed the newest state yet", v.Node))
		}
	}
	if p.Nodes == 0 {
		p.Why = c.whyNoNode(verdicts)
	}
	return p
}

// addReason keeps the first reason: one is enough to begin with.
func addReason(p *gateway.Progress, why string) {
	if p.Why == "" {
		p.Why = why
	}
}

func (c *Controller) whyNoNode(verdicts []rollout.NodeStatus) string {
	for _, problem := range c.problems {
		return problem.Object + ": " + problem.Message
	}
	if len(verdicts) > 0 {
		return "no node that the data plane selects is ready"
	}
	return "the data plane selects no node: correct spec.dataplane.nodes of the BlixtConfig"
}

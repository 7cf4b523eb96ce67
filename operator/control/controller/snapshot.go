// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// world is what the cluster has, as one pass read it. Its objects are those of
// the cache: nothing in them is modified.
type world struct {
	objects  gateway.Objects
	nodes    []corev1.Node
	gateways map[types.NamespacedName]*gwv1.Gateway
	services map[types.NamespacedName]*corev1.Service
	events   []corev1.Event // warnings about Services
	// proxyMode is kube-proxy's; "": nothing tells it.
	proxyMode string
}

// managed selects what the operator has made.
var managed = client.MatchingLabels{v1alpha1.ManagedByLabel: v1alpha1.Manager}

// list lists objects of the cache as they are, or nothing of a kind that the
// cluster lacks.
func (c *Controller) list(ctx context.Context, list client.ObjectList, o ...client.ListOption) error {
	if !c.kinds.has(list) {
		return nil
	}
	if err := c.client.List(ctx, list, append(o, client.UnsafeDisableDeepCopy)...); err != nil {
		return fmt.Errorf("list %T: %w", list, err)
	}
	return nil
}

func (c *Controller) readWorld(ctx context.Context) (*world, error) {
	w := &world{gateways: map[types.NamespacedName]*gwv1.Gateway{}, services: map[types.NamespacedName]*corev1.Service{}}
	var (
		classes    gwv1.GatewayClassList
		gateways   gwv1.GatewayList
		sets       gwv1.ListenerSetList
		tcp        gwv1.TCPRouteList
		udp        gwv1.UDPRouteList
		grants     gwv1.ReferenceGrantList
		services   corev1.ServiceList
		namespaces corev1.NamespaceList
		nodes      corev1.NodeList
		events     corev1.EventList
		configs    v1alpha1.BlixtConfigList
		gwConfigs  v1alpha1.BlixtGatewayConfigList
	)
	for _, l := range []client.ObjectList{&tcp, &udp} {
		if err := c.list(ctx, l); err != nil {
			return nil, err
		}
	}
	// Before Services are listed: of one that comes a moment later there is an event.
	c.interest.set(referred(tcp.Items, udp.Items))
	for _, l := range []client.ObjectList{&classes, &gateways, &sets, &grants, &services, &namespaces, &nodes, &events, &configs, &gwConfigs} {
		if err := c.list(ctx, l); err != nil {
			return nil, err
		}
	}
	w.objects = gateway.Objects{
		GatewayClasses: classes.Items, Gateways: gateways.Items, ListenerSets: sets.Items,
		TCPRoutes: living(tcp.Items), UDPRoutes: living(udp.Items), ReferenceGrants: living(grants.Items),
		Services: services.Items, Namespaces: namespaces.Items, Configs: configs.Items, GatewayConfigs: gwConfigs.Items,
	}
	w.nodes, w.events = nodes.Items, events.Items
	proxy := &corev1.ConfigMap{}
	if err := c.client.Get(ctx, gateway.KubeProxy, proxy); client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("get ConfigMap %s: %w", gateway.KubeProxy, err)
	}
	w.proxyMode = gateway.ProxyMode(proxy)
	for i := range w.objects.Gateways {
		g := &w.objects.Gateways[i]
		key, stored := client.ObjectKeyFromObject(g), *g
		w.gateways[key] = &stored
		// The cache may be behind what we have given already.
		if known, ok := c.addresses[key]; ok {
			g.Status.Addresses = known
		}
	}
	for i := range w.objects.Services {
		s := &w.objects.Services[i]
		w.services[client.ObjectKeyFromObject(s)] = s
	}
	return w, nil
}

// living leaves out what is being deleted.
func living[T any, P interface {
	*T
	metav1.Object
}](items []T) []T {
	return slices.DeleteFunc(slices.Clone(items), func(o T) bool { return P(&o).GetDeletionTimestamp() != nil })
}

// referred are the Services that routes name, there or not.
func referred(tcp []gwv1.TCPRoute, udp []gwv1.UDPRoute) map[types.NamespacedName]bool {
	all := map[types.NamespacedName]bool{}
	add := func(namespace string, refs []gwv1.BackendRef) {
		for _, ref := range refs {
			name := types.NamespacedName{Namespace: namespace, Name: string(ref.Name)}
			if ref.Namespace != nil && *ref.Namespace != "" {
				name.Namespace = string(*ref.Namespace)
			}
			all[name] = true
		}
	}
	for i := range tcp {
		for _, rule := range tcp[i].Spec.Rules {
			add(tcp[i].Namespace, rule.BackendRefs)
		}
	}
	for i := range udp {
		for _, rule := range udp[i].Spec.Rules {
			add(udp[i].Namespace, rule.BackendRefs)
		}
	}
	return all
}

// cluster is what Translate has to know of the cluster.
func (c *Controller) cluster(w *world) *gateway.Cluster {
	k := &gateway.Cluster{Assigned: map[types.NamespacedName]gateway.Assigned{}, ReservedPorts: c.ReservedPorts, ProxyMode: w.proxyMode}
	for i := range w.nodes {
		n := &w.nodes[i]
		k.Nodes = append(k.Nodes, gateway.Node{Name: n.Name, Addresses: nodeAddresses(n), Labels: n.Labels})
	}
	for key, gw := range w.gateways {
		s := w.services[types.NamespacedName{Namespace: key.Namespace, Name: serviceName(key.Name)}]
		switch {
		case s == nil:
		case metav1.IsControlledBy(s, gw):
			given := assigned(s)
			given.Problem = complaint(s, w.events)
			k.Assigned[key] = given
		default:
			k.Assigned[key] = gateway.Assigned{Problem: notOurs(s).Error()}
		}
	}
	return k
}

// nodeAddresses are those that a node has as its own.
func nodeAddresses(n *corev1.Node) []netip.Addr {
	var all []netip.Addr
	for _, a := range n.Status.Addresses {
		if a.Type != corev1.NodeInternalIP && a.Type != corev1.NodeExternalIP {
			continue
		}
		if addr, err := netip.ParseAddr(a.Address); err == nil && !slices.Contains(all, addr.Unmap()) {
			all = append(all, addr.Unmap())
		}
	}
	return all
}

// readEndpoints reads those of one Service.
func (c *Controller) readEndpoints(ctx context.Context, service types.NamespacedName) (gateway.ServiceEndpoints, error) {
	list := &discoveryv1.EndpointSliceList{}
	err := c.list(ctx, list, client.InNamespace(service.Namespace), client.MatchingFields{byService: service.Name})
	return gateway.NewServiceEndpoints(list.Items), err
}

// byService indexes EndpointSlices by the name of their Service.
const byService = "service"

// readBpfman reads what bpfman was asked for, and what it says.
func (c *Controller) readBpfman(ctx context.Context) ([]bpfmanv1.ClusterBpfApplication, []bpfmanv1.ClusterBpfApplicationState, error) {
	var apps bpfmanv1.ClusterBpfApplicationList
	var states bpfmanv1.ClusterBpfApplicationStateList
	if err := c.list(ctx, &apps, managed); err != nil {
		return nil, nil, err
	}
	err := c.list(ctx, &states)
	return apps.Items, states.Items, err
}

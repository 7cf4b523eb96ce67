// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// snapshot is what one pass has read of the cluster. Its objects belong to the
// cache, and must not be modified.
type snapshot struct {
	kinds   kinds
	objects gateway.Objects
	nodes   []corev1.Node
	// hostPorts are the ports of nodes that pods have.
	hostPorts []gateway.HostPort
	// gateways are as they are stored; those of objects have the newest addresses.
	gateways map[types.NamespacedName]*gwv1.Gateway
	services map[types.NamespacedName]*corev1.Service
	warnings []corev1.Event // about Services
	// proxyMode is kube-proxy's; "": unknown.
	proxyMode string
	// serviceCIDRs are the ranges of ClusterIPs, if the cluster tells.
	serviceCIDRs []netip.Prefix
	// problems are why the Services of Gateways are not as they should be.
	problems map[types.NamespacedName]string
}

// managed selects the objects that the operator has made.
var managed = client.MatchingLabels{v1alpha1.ManagedByLabel: v1alpha1.Manager}

func (p *publisher) readSnapshot(ctx context.Context, k kinds) (*snapshot, error) {
	s := &snapshot{kinds: k, gateways: map[types.NamespacedName]*gwv1.Gateway{}, services: map[types.NamespacedName]*corev1.Service{}, problems: map[types.NamespacedName]string{}}
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
		policies   v1alpha1.BlixtPolicyList
	)
	for _, l := range []client.ObjectList{&tcp, &udp} {
		if err := p.list(ctx, k, l); err != nil {
			return nil, err
		}
	}
	// Before Services are listed: one that comes a moment later causes an event.
	listed := gateway.Objects{TCPRoutes: tcp.Items, UDPRoutes: udp.Items}
	p.events.setReferred(referred(listed.Routes()))
	for _, l := range []client.ObjectList{&classes, &gateways, &sets, &grants, &services, &namespaces, &nodes, &events, &configs, &gwConfigs, &policies} {
		if err := p.list(ctx, k, l); err != nil {
			return nil, err
		}
	}
	s.objects = gateway.Objects{
		GatewayClasses: classes.Items, Gateways: gateways.Items, ListenerSets: sets.Items,
		TCPRoutes: living(tcp.Items), UDPRoutes: living(udp.Items), ReferenceGrants: living(grants.Items),
		Services: services.Items, Namespaces: namespaces.Items, Configs: configs.Items, GatewayConfigs: gwConfigs.Items,
		Policies: living(policies.Items),
	}
	s.nodes, s.warnings = nodes.Items, events.Items
	if p.serviceCIDRs {
		cidrs := &networkingv1.ServiceCIDRList{}
		if err := p.list(ctx, kinds{}, cidrs); err != nil {
			return nil, err
		}
		for i := range cidrs.Items {
			s.serviceCIDRs = append(s.serviceCIDRs, prefixes(cidrs.Items[i].Spec.CIDRs)...)
		}
	}
	var pods corev1.PodList
	if err := p.list(ctx, k, &pods, client.MatchingFields{byHostPort: "true"}); err != nil {
		return nil, err
	}
	for i := range pods.Items {
		s.hostPorts = append(s.hostPorts, hostPorts(&pods.Items[i])...)
	}
	s.hostPorts = p.hostPorts.remember(p.Clock(), p.HostPortRest, s.hostPorts)
	proxy := &corev1.ConfigMap{}
	if err := p.client.Get(ctx, gateway.KubeProxy, proxy); client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("get ConfigMap %s: %w", gateway.KubeProxy, err)
	}
	s.proxyMode = gateway.ProxyMode(proxy)
	for i := range s.objects.Gateways {
		g := &s.objects.Gateways[i]
		key, stored := client.ObjectKeyFromObject(g), *g
		s.gateways[key] = &stored
		// The cache may not have the addresses yet that were given last.
		if known, ok := p.addresses[key]; ok {
			g.Status.Addresses = known
		}
	}
	for i := range s.objects.Services {
		service := &s.objects.Services[i]
		s.services[client.ObjectKeyFromObject(service)] = service
	}
	return s, nil
}

// living leaves out objects that are being deleted.
func living[T any, P interface {
	*T
	metav1.Object
}](items []T) []T {
	return slices.DeleteFunc(slices.Clone(items), func(o T) bool { return P(&o).GetDeletionTimestamp() != nil })
}

// referred returns the Services that routes name, whether they exist or not.
func referred(routes []gateway.Route) map[types.NamespacedName]bool {
	all := map[types.NamespacedName]bool{}
	for _, r := range routes {
		for _, ref := range slices.Concat(r.Rules...) {
			name := types.NamespacedName{Namespace: r.Meta.Namespace, Name: string(ref.Name)}
			if ref.Namespace != nil && *ref.Namespace != "" {
				name.Namespace = string(*ref.Namespace)
			}
			all[name] = true
		}
	}
	return all
}

// cluster returns what Translate has to know besides the objects.
// problem returns why the operator could not write a Service.
func (s *snapshot) cluster(reserved []gateway.ReservedRange, problem func(types.NamespacedName) string) *gateway.Cluster {
	k := &gateway.Cluster{
		Assigned: map[types.NamespacedName]gateway.Assigned{}, ReservedPorts: slices.Clone(reserved), HostPorts: s.hostPorts,
		ProxyMode: s.proxyMode, ServiceCIDRs: s.serviceCIDRs,
	}
	for i := range s.nodes {
		n := &s.nodes[i]
		for _, r := range rollout.TunnelPorts(n) {
			if !slices.Contains(k.ReservedPorts, r) {
				k.ReservedPorts = append(k.ReservedPorts, r)
			}
		}
		k.Nodes = append(k.Nodes, gateway.Node{Name: n.Name, Addresses: nodeAddresses(n), PodCIDRs: prefixes(n.Spec.PodCIDRs), Labels: n.Labels})
	}
	for key, gw := range s.gateways {
		service, given := s.serviceOf(key), gateway.Assigned{Problem: phrase.Clip(problem(serviceKey(key)), maxProblem)}
		if given.Problem != "" {
			s.problems[key] = given.Problem
		}
		switch {
		case service == nil:
		case !metav1.IsControlledBy(service, gw):
			given.Problem = notOurs(service)
			s.problems[key] = given.Problem
		default:
			why := cmp.Or(given.Problem, complaint(service, s.warnings))
			given = assigned(service)
			given.Problem = why
		}
		given.Problem = phrase.Clip(given.Problem, maxProblem)
		k.Assigned[key] = given
	}
	return k
}

// maxProblem is how many bytes of what others say of a Service are repeated.
const maxProblem = 500

// lastGood returns what Services remember of their Gateways, for an operator that
// has just started.
func (s *snapshot) lastGood() gateway.LastGood {
	good := gateway.LastGood{Gateways: map[types.NamespacedName]gateway.Parameters{}}
	for key, gw := range s.gateways {
		service := s.serviceOf(key)
		var p gateway.Parameters
		if service != nil && metav1.IsControlledBy(service, gw) && json.Unmarshal([]byte(service.Annotations[v1alpha1.LastGoodAnnotation]), &p) == nil {
			good.Gateways[key] = p
		}
	}
	return good
}

// serviceOf returns the Service that has the name of a Gateway's, or nil.
func (s *snapshot) serviceOf(gateway types.NamespacedName) *corev1.Service {
	return s.services[types.NamespacedName{Namespace: gateway.Namespace, Name: serviceName(gateway.Name)}]
}

// nodeAddresses returns the addresses that a node has itself.
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

// prefixes returns those that the texts are: the API server has checked them.
func prefixes(texts []string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		if p, err := netip.ParsePrefix(text); err == nil {
			all = append(all, p)
		}
	}
	return all
}

// readAllEndpoints reads those of the Services that frontends name.
func (p *publisher) readAllEndpoints(ctx context.Context, t *translated) (gateway.Endpoints, error) {
	all := gateway.Endpoints{}
	for i := range t.Frontends {
		for _, ref := range t.Frontends[i].Refs {
			if _, known := all[ref.Service]; known {
				continue
			}
			found, err := p.readEndpoints(ctx, ref.Service, t.policy)
			if err != nil {
				return nil, err
			}
			all[ref.Service] = found
		}
	}
	return all, nil
}

// readEndpoints reads those of one Service.
func (p *publisher) readEndpoints(ctx context.Context, service types.NamespacedName, policy *gateway.EndpointPolicy) (gateway.ServiceEndpoints, error) {
	list := &discoveryv1.EndpointSliceList{}
	err := p.list(ctx, kinds{}, list, client.InNamespace(service.Namespace), client.MatchingFields{byService: service.Name})
	return gateway.NewServiceEndpoints(list.Items, policy), err
}

// byService indexes EndpointSlices by the name of their Service.
const byService = "service"

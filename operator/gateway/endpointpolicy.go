// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// EndpointPolicy says which addresses the Services of a cluster may have as
// endpoints. Blixt reaches them with the address of a node, which NetworkPolicies
// usually let through, so nobody may name an address that belongs to others in the
// cluster. Only the address is judged: who may write EndpointSlices can forge
// their labels, owners and references to pods.
//
// Nil, for files, refuses nothing.
type EndpointPolicy struct {
	nodes map[netip.Addr]bool
	// gateways are the addresses that are Blixt's alone.
	gateways map[netip.Addr]bool
	// services are the ranges of ClusterIPs.
	services []netip.Prefix
	// pods are the ranges in which only pods have addresses.
	pods    []netip.Prefix
	podOnly ranges
	strict  bool
	allowed []allowance

	namespaces namespaceLabels
	occupants  Occupants
}

// Occupants tells who has an address in the cluster now.
type Occupants interface {
	// Pods returns the pods with the address that have not ended.
	Pods(netip.Addr) []Occupant
	// IsService reports whether a Service has the address: as a ClusterIP, or
	// from a load balancer.
	IsService(netip.Addr) bool
}

// Occupant is a pod that has an address.
type Occupant struct {
	Namespace string
	// Node is the name of the pod's node.
	Node string
	// HostNetwork: the address is its node's, too.
	HostNetwork bool
	// Terminating pods may have lost the address to another one already.
	Terminating bool
}

// NewOccupant returns what matters of a pod.
func NewOccupant(p *corev1.Pod) Occupant {
	return Occupant{Namespace: p.Namespace, Node: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork, Terminating: p.DeletionTimestamp != nil}
}

// PodAddresses returns the addresses that a pod has. No tenant can choose them: the
// kubelet reports them. A pod that has ended has none, as they may be another's.
func PodAddresses(p *corev1.Pod) []netip.Addr {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return nil
	}
	var all []netip.Addr
	for _, ip := range p.Status.PodIPs {
		all = appendAddr(all, ip.IP)
	}
	return all
}

// ServiceAddresses returns the addresses that Kubernetes and load balancers have
// given a Service. Those of spec.externalIPs are left out: they may be anybody's, and
// a tenant could so have others' endpoints refused.
func ServiceAddresses(s *corev1.Service) []netip.Addr {
	var all []netip.Addr
	for _, ip := range s.Spec.ClusterIPs { // or None
		all = appendAddr(all, ip)
	}
	for _, ingress := range s.Status.LoadBalancer.Ingress { // or a name
		all = appendAddr(all, ingress.IP)
	}
	return all
}

// appendAddr appends an address, unless the text is none.
func appendAddr(all []netip.Addr, text string) []netip.Addr {
	if addr, err := netip.ParseAddr(text); err == nil {
		return append(all, addr.Unmap())
	}
	return all
}

// joinEndpoints joins what the BlixtConfigs of all classes say: an endpoint belongs
// to a Service, not to a class.
func joinEndpoints(classes map[string]*class) v1alpha1.Endpoints {
	var all v1alpha1.Endpoints
	for _, name := range slices.Sorted(maps.Keys(classes)) {
		if obj := classes[name].config.obj; obj != nil {
			e := &obj.Spec.Endpoints
			all.Strict = all.Strict || e.Strict
			all.PodCIDRs = append(all.PodCIDRs, e.PodCIDRs...)
			all.Allowed = append(all.Allowed, e.Allowed...)
		}
	}
	return all
}

func parseEndpoints(e *v1alpha1.Endpoints) (podOnly ranges, allowed []allowance, err error) {
	if podOnly, err = parseRanges("spec.endpoints.podCIDRs", e.PodCIDRs); err != nil {
		return nil, nil, err
	}
	allowed, err = parseAllowed("spec.endpoints.allowed", e.Allowed)
	return podOnly, allowed, err
}

// NewEndpointPolicy returns the policy for what a translation serves in a cluster.
func NewEndpointPolicy(t *Translation, c *Cluster, namespaces []corev1.Namespace, who Occupants) *EndpointPolicy {
	p := &EndpointPolicy{
		nodes: map[netip.Addr]bool{}, gateways: map[netip.Addr]bool{}, services: c.ServiceCIDRs,
		strict: t.Endpoints.Strict, namespaces: newNamespaceLabels(namespaces), occupants: who,
	}
	p.podOnly, p.allowed, _ = parseEndpoints(&t.Endpoints) // valid, or its class would be refused
	for i := range c.Nodes {
		for _, addr := range c.Nodes[i].Addresses {
			p.nodes[addr.Unmap()] = true
		}
		p.pods = append(p.pods, c.Nodes[i].PodCIDRs...)
	}
	for _, addr := range t.Addresses {
		p.gateways[addr.IP] = addr.Exclusive
	}
	return p
}

// metadataServices are the addresses at which clouds tell a node its credentials,
// besides those that are link-local: AWS, Google Cloud, Azure, Alibaba, Oracle.
var metadataServices = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("fd20:ce::254"), netip.MustParseAddr("168.63.129.16"),
	netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("192.0.0.192"),
}

// nat64 is the prefix by which IPv6 hosts reach IPv4 (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// refuses returns why a Service of the namespace may not have the address as an
// endpoint, or "".
func (p *EndpointPolicy) refuses(namespace string, addr netip.Addr) string {
	if p == nil {
		return ""
	}
	if nat64.Contains(addr) {
		bytes := addr.As16()
		addr = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	allowed := func(a allowance) bool {
		return a.addresses.contains(addr) && a.namespaces.Matches(p.namespaces.of(namespace))
	}
	if slices.ContainsFunc(p.allowed, allowed) {
		return ""
	}
	own, why := p.judgePods(namespace, addr)
	within := func(prefix netip.Prefix) bool { return prefix.Contains(addr) }
	switch {
	case own:
		return ""
	case why != "":
		return why
	case addr.IsLinkLocalUnicast():
		return "it is a link-local address"
	case slices.Contains(metadataServices, addr):
		return "it is the address of a cloud's metadata service"
	case p.nodes[addr]:
		return "it is the address of a node, and no pod of namespace " + namespace + " has it by hostNetwork"
	case p.gateways[addr]:
		return "it is the address of a Gateway"
	case slices.ContainsFunc(p.services, within) || p.occupants.IsService(addr):
		return "it is the address of a Service"
	case p.strict || p.podOnly.contains(addr) || slices.ContainsFunc(p.pods, within):
		return "no pod of namespace " + namespace + " has it"
	}
	return ""
}

// nodeOf returns the node of an endpoint that is not refused: that of the pod that
// has the address or, if no pod has it, the one that the EndpointSlice names.
// Slices that people write often name none, or a wrong one, and the node of a pod
// is the only one that the pod's answers pass.
func (p *EndpointPolicy) nodeOf(addr netip.Addr, named string) string {
	if p == nil {
		return named
	}
	for _, o := range p.occupants.Pods(addr) {
		if !o.Terminating {
			return o.Node
		}
	}
	return named
}

// judgePods returns whether the address is that of pods of the namespace, or why
// it is not. Both are empty if no pod has it but such as share it with a node.
//
// A pod that terminates may have lost its address to a new one. If pods of two
// namespaces have an address, it is not known whose it is: it is nobody's until
// the kubelets have reported again.
func (p *EndpointPolicy) judgePods(namespace string, addr netip.Addr) (own bool, why string) {
	all := p.occupants.Pods(addr)
	if slices.ContainsFunc(all, func(o Occupant) bool { return o.HostNetwork && o.Namespace == namespace }) {
		return true, ""
	}
	lives := slices.ContainsFunc(all, func(o Occupant) bool { return !o.HostNetwork && !o.Terminating })
	for _, o := range all {
		switch {
		case o.HostNetwork || lives && o.Terminating:
		case o.Namespace == namespace:
			own = true
		default:
			why = "it is the address of a pod of another namespace"
		}
	}
	return own && why == "", why
}

// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// environment is where Gateways are served: the options, indexed for queries.
type environment struct {
	*Options
	namespaces namespaceLabels
	// hosts are the addresses that belong to a host itself.
	hosts map[netip.Addr]bool
	// nodes are the addresses of the nodes that the data plane selects, sorted.
	nodes []netip.Addr
	// everywhere holds the unspecified address of each family that nodes have.
	everywhere []netip.Addr
	// reserved are the ports that belong to the hosts, for every Gateway.
	reserved []ReservedRange
	// hostPorts are those of pods, sorted by pod. nodeOf are the nodes that addresses
	// belong to, and selected those nodes that the data plane selects.
	hostPorts map[Port][]HostPort
	nodeOf    map[netip.Addr]string
	selected  map[string]bool
	// incumbents held addresses and frontends before.
	incumbents *incumbency
	capacity   *capacity
	// known is what has been read of policies.
	known map[types.NamespacedName]KnownPolicy
}

func newEnvironment(o *Options, namespaces []corev1.Namespace, dataplane *config) *environment {
	s := &environment{Options: o, namespaces: newNamespaceLabels(namespaces),
		hosts: map[netip.Addr]bool{}, nodeOf: map[netip.Addr]string{}, selected: map[string]bool{}, known: map[types.NamespacedName]KnownPolicy{}}
	s.capacity = newCapacity(s)
	if o.Cluster == nil {
		s.reserved = o.ReservedPorts
		for _, addr := range o.HostAddresses {
			s.hosts[addr] = true
		}
		return s
	}
	s.reserved = o.Cluster.ReservedPorts
	s.hostPorts = map[Port][]HostPort{}
	for _, p := range slices.SortedFunc(slices.Values(o.Cluster.HostPorts), HostPort.compare) {
		port := Port{p.Protocol, p.Port}
		s.hostPorts[port] = append(s.hostPorts[port], p)
	}
	for _, node := range o.Cluster.Nodes {
		selected := dataplane.nodes.Matches(labels.Set(node.Labels))
		for _, addr := range node.Addresses {
			addr = addr.Unmap()
			s.hosts[addr], s.nodeOf[addr], s.selected[node.Name] = true, node.Name, selected
			if selected && InvalidAddress(addr) == "" {
				s.nodes = append(s.nodes, addr)
			}
		}
	}
	slices.SortFunc(s.nodes, netip.Addr.Compare)
	s.nodes = slices.Compact(s.nodes)
	for _, every := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if slices.ContainsFunc(s.nodes, func(addr netip.Addr) bool { return addr.Is6() == every.Is6() }) {
			s.everywhere = append(s.everywhere, every)
		}
	}
	return s
}

// isHost reports whether the address belongs to a host, and with it the ports
// that Blixt does not serve.
func (s *environment) isHost(addr netip.Addr) bool { return addr.IsUnspecified() || s.hosts[addr] }

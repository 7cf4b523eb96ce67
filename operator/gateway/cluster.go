// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Cluster is what Translate needs to know of a cluster beyond the objects.
type Cluster struct {
	// Nodes are all of the cluster's.
	Nodes []Node `json:"nodes,omitempty"`
	// Assigned is what Gateways were given, by their names. Source
	// LoadBalancer alone reads it.
	Assigned map[types.NamespacedName]Assigned `json:"-"`
	// ReservedPorts are unavailable at addresses of nodes, whatever a
	// BlixtConfig says: node ports, ephemeral ports, and the tunnels of nodes.
	ReservedPorts []ReservedRange `json:"reservedPorts,omitempty"`
	// Capacity is that of the smallest tables of a node. Zero: the default.
	Capacity lb.Capacity `json:"capacity,omitzero"`
	// HostPorts are the ports of nodes that pods have.
	HostPorts []HostPort `json:"hostPorts,omitempty"`
	// HostListens are the ports at which nodes were seen to listen themselves,
	// where listeners have them, too.
	HostListens []Port `json:"hostListens,omitempty"`
	// ProxyMode is kube-proxy's mode; "" if it is not known whether and how
	// kube-proxy runs.
	ProxyMode string `json:"proxyMode,omitempty"`
	// ServiceCIDRs are the ranges of ClusterIPs, as far as they are known.
	ServiceCIDRs []netip.Prefix `json:"serviceCIDRs,omitempty"`
}

// Node is a node of the cluster.
type Node struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// PodCIDRs are the ranges from which the node's pods get their addresses, if
	// Kubernetes assigns them.
	PodCIDRs []netip.Prefix `json:"podCIDRs,omitempty"`
	// Labels decide whether the data plane in force selects the node.
	Labels map[string]string `json:"labels,omitempty"`
}

// HostPort is a port of a node that a pod has.
type HostPort struct {
	// Pod is namespace/name.
	Pod string `json:"pod"`
	// Node is where the pod runs.
	Node string `json:"node"`
	// Address is the node's; zero: each of the node's. An unspecified one is each of
	// the family.
	Address  netip.Addr  `json:"address,omitzero"`
	Protocol lb.Protocol `json:"protocol"`
	Port     uint16      `json:"port"`
	// Gone: the pod does not have it any more, but its successor may want it soon.
	Gone bool `json:"gone,omitempty"`
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// compare has ports that pods have before those that they had.
func (p HostPort) compare(o HostPort) int {
	return cmp.Or(boolCompare(p.Gone, o.Gone), cmp.Compare(p.Pod, o.Pod), cmp.Compare(p.Node, o.Node), cmp.Compare(p.Protocol, o.Protocol),
		cmp.Compare(p.Port, o.Port), p.Address.Compare(o.Address))
}

// Assigned is what the cluster assigned to the Service of a Gateway.
type Assigned struct {
	// Addresses and Hostnames are those of status.loadBalancer.ingress.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Hostnames []string     `json:"hostnames,omitempty"`
	// NodePorts are the node ports of the Service, by its ports.
	NodePorts map[Port]uint16 `json:"nodePorts,omitempty"`
	// Problem is the latest error that somebody, such as the load balancer's
	// controller, reported for the Service, or "".
	Problem string `json:"problem,omitempty"`
}

// Port is a port of a protocol.
type Port struct {
	Protocol lb.Protocol `json:"protocol"`
	Port     uint16      `json:"port"`
}

// String returns protocol and port, like TCP/80.
func (p Port) String() string { return fmt.Sprintf("%s/%d", p.Protocol, p.Port) }

// MarshalText returns String: in JSON, ports are keys.
func (p Port) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is the reverse of MarshalText. It returns an error for anything
// but TCP or UDP, a slash and a port.
func (p *Port) UnmarshalText(text []byte) error {
	protocol, port, _ := strings.Cut(string(text), "/")
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("parse port %q: want one like TCP/80", text)
	}
	p.Port = uint16(number)
	return p.Protocol.UnmarshalText([]byte(protocol))
}

// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// ReservedRange is a range of ports, both ends included, of one protocol or, if
// Protocol is zero, of both.
type ReservedRange struct {
	Protocol lb.Protocol `json:"protocol,omitempty"`
	First    uint16      `json:"first"`
	Last     uint16      `json:"last"`
	// Use is what the ports are for, as a message says it: "SSH of the host".
	Use string `json:"use,omitempty"`
}

func (r ReservedRange) contains(key lb.Key) bool {
	return (r.Protocol == 0 || r.Protocol == key.Protocol) && r.First <= key.Port && key.Port <= r.Last
}

// String returns the ports as a message names them: 80, 1024-65535 or UDP 53.
func (r ReservedRange) String() string {
	text := fmt.Sprintf("%d-%d", r.First, r.Last)
	if r.First == r.Last {
		text = fmt.Sprint(r.First)
	}
	if r.Protocol != 0 {
		text = r.Protocol.String() + " " + text
	}
	return text
}

// portPolicy says which ports of hosts' addresses listeners may have.
type portPolicy struct{ allowed, reserved []ReservedRange }

// defaultAllowed is the default of the CRD, too.
var defaultAllowed = []ReservedRange{{First: 53, Last: 53}, {First: 80, Last: 80}, {First: 443, Last: 443}, {First: 1024, Last: 65535}}

// infrastructure are the ports by which nodes are reached and run the cluster. On a
// node that has no socket there yet, such as one that is about to start its tunnels,
// a listener would cut the nodes off from each other.
var infrastructure = []ReservedRange{
	// IANA's registry.
	{Protocol: lb.TCP, First: 22, Last: 22, Use: "SSH of the nodes"},
	{Protocol: lb.UDP, First: 67, Last: 68, Use: "DHCP of the nodes"},
	{First: 111, Last: 111, Use: "rpcbind of the nodes"},
	{Protocol: lb.UDP, First: 123, Last: 123, Use: "NTP of the nodes"},
	{Protocol: lb.UDP, First: 546, Last: 547, Use: "DHCPv6 of the nodes"},
	// RFC 4271, 5881; Calico, MetalLB, Cilium, kube-router.
	{Protocol: lb.TCP, First: 179, Last: 179, Use: "BGP, such as Calico's"},
	{Protocol: lb.UDP, First: 3784, Last: 3785, Use: "BFD, such as MetalLB's"},
	// RFC 7296, 3948.
	{Protocol: lb.UDP, First: 500, Last: 500, Use: "IPsec"},
	{Protocol: lb.UDP, First: 4500, Last: 4500, Use: "IPsec"},
	// RFC 7348; Calico (Network requirements), Docker Swarm, OpenShift.
	{Protocol: lb.UDP, First: 4789, Last: 4789, Use: "VXLAN tunnels, such as Calico's"},
	// Linux's default (drivers/net/vxlan); flannel (Documentation/backends.md),
	// K3s, Cilium (System Requirements).
	{Protocol: lb.UDP, First: 8472, Last: 8472, Use: "VXLAN tunnels, such as flannel's and Cilium's"},
	// RFC 8926; Antrea, OVN-Kubernetes, Cilium.
	{Protocol: lb.UDP, First: 6081, Last: 6081, Use: "Geneve tunnels, such as Antrea's and OVN's"},
	// flannel (pkg/backend/udp).
	{Protocol: lb.UDP, First: 8285, Last: 8285, Use: "UDP tunnels of flannel"},
	// flannel (pkg/backend/wireguard), Calico (FelixConfiguration), Antrea, Kilo.
	{Protocol: lb.UDP, First: 51820, Last: 51821, Use: "WireGuard tunnels, such as flannel's and Calico's"},
	// Cilium (System Requirements).
	{Protocol: lb.UDP, First: 51871, Last: 51871, Use: "WireGuard tunnels of Cilium"},
	// Weave Net (FAQ).
	{Protocol: lb.TCP, First: 6783, Last: 6783, Use: "Weave Net"},
	{Protocol: lb.UDP, First: 6783, Last: 6784, Use: "Weave Net"},
	// Calico (Network requirements).
	{Protocol: lb.TCP, First: 5473, Last: 5473, Use: "Calico's Typha"},
	// Cilium (System Requirements).
	{Protocol: lb.TCP, First: 4240, Last: 4240, Use: "Cilium's health checks"},
	{Protocol: lb.TCP, First: 4244, Last: 4244, Use: "Cilium's Hubble"},
	// Antrea (Network Requirements).
	{First: 10349, Last: 10351, Use: "Antrea"},
	// OVN-Kubernetes.
	{Protocol: lb.TCP, First: 6641, Last: 6642, Use: "OVN's databases"},
	// MetalLB (Requirements).
	{First: 7946, Last: 7946, Use: "memberlist of MetalLB"},
	// Kubernetes (Ports and Protocols); the metrics of kubeadm's etcd.
	{Protocol: lb.TCP, First: 2379, Last: 2381, Use: "etcd"},
	{Protocol: lb.TCP, First: 6443, Last: 6443, Use: "the API server"},
	// RKE2 (Networking requirements).
	{Protocol: lb.TCP, First: 9345, Last: 9345, Use: "RKE2's supervisor"},
	// MicroK8s (Services and ports).
	{Protocol: lb.TCP, First: 16443, Last: 16443, Use: "MicroK8s' API server"},
	// Kubernetes (pkg/cluster/ports, k8s.io/cloud-provider): kubelet, kube-proxy,
	// controllers and scheduler.
	{Protocol: lb.TCP, First: 10248, Last: 10260, Use: "the kubelet and its neighbours"},
	// Prometheus' node-exporter.
	{Protocol: lb.TCP, First: 9100, Last: 9100, Use: "node-exporter"},
}

// parsePorts reads a field of a BlixtConfig. Its error names the invalid item.
func parsePorts(field string, list []v1alpha1.ProtocolPorts) (ports []ReservedRange, err error) {
	for i, p := range list {
		r := ReservedRange{First: uint16(p.First), Last: uint16(p.Last)}
		switch p.Protocol {
		case corev1.ProtocolTCP:
			r.Protocol = lb.TCP
		case corev1.ProtocolUDP:
			r.Protocol = lb.UDP
		case "":
		default:
			return nil, fmt.Errorf("%s[%d] has protocol %q, which is neither TCP nor UDP", field, i, p.Protocol)
		}
		if p.First < 1 || p.Last > 65535 || p.First > p.Last {
			return nil, fmt.Errorf("%s[%d] %d-%d is not a range of ports", field, i, p.First, p.Last)
		}
		ports = append(ports, r)
	}
	return ports, nil
}

// find returns the first of the ranges that has the port, or nil.
func find(ranges []ReservedRange, key lb.Key) *ReservedRange {
	if i := slices.IndexFunc(ranges, func(r ReservedRange) bool { return r.contains(key) }); i >= 0 {
		return &ranges[i]
	}
	return nil
}

// names reports whether an entry of allowedPorts is this port alone.
func (p *portPolicy) names(key lb.Key) bool {
	return slices.ContainsFunc(p.allowed, func(r ReservedRange) bool { return r.First == r.Last && r.contains(key) })
}

// namesAll reports whether each port has an entry of its own in allowedPorts.
func (p *portPolicy) namesAll(protocol lb.Protocol, first, last uint16) bool {
	for port := first; ; port++ {
		if !p.names(lb.Key{Protocol: protocol, Port: port}) {
			return false
		}
		if port == last {
			return true
		}
	}
}

// refusal is why a listener may not get a port of a host's address.
type refusal struct {
	// reason is that of the warning, if the listener has the port nevertheless.
	// Empty: no listener keeps the port, whoever had it before.
	reason string
	// why says who has the port and what to do, for a sentence that begins with the
	// port.
	why string
	// seen: only what Blixt itself has seen counts as a listener's having had the
	// port before. A tenant who forged the status of his Gateway could take a port
	// from a pod when the operator starts.
	seen bool
	// passing: it is over soon, and nothing to warn of.
	passing bool
}

// refuses returns why listeners may not get the port of a host's address, or nil.
func (s *environment) refuses(key lb.Key, c *config) *refusal {
	const use = ": use another port or address."
	if !s.isHost(key.Addr) {
		return nil
	}
	if r := find(s.reserved, key); r != nil {
		return &refusal{why: "is reserved for " + r.use() + use}
	}
	if s.Cluster == nil {
		return nil
	}
	if find(c.ports.reserved, key) != nil {
		return &refusal{why: "is reserved by " + c.addressesField("reservedPorts") + use}
	}
	if r := find(infrastructure, key); r != nil && !c.ports.names(key) {
		return &refusal{why: fmt.Sprintf("is reserved for %s: use another port or address. If no node needs it for that, the administrator can allow it by an entry of its own in %s.",
			r.use(), c.addressesField("allowedPorts"))}
	}
	if p := s.hostPort(key); p != nil && p.Gone {
		return &refusal{reason: v1alpha1.ReasonHostPort, seen: true, passing: true,
			why: fmt.Sprintf("was a hostPort of Pod %s on node %s until a moment ago, and waits for the pod's successor: use another port or address, or wait.", p.Pod, p.Node)}
	} else if p != nil {
		return &refusal{reason: v1alpha1.ReasonHostPort, why: fmt.Sprintf("is a hostPort of Pod %s on node %s%s", p.Pod, p.Node, use), seen: true}
	}
	if find(c.ports.allowed, key) == nil {
		var names []string
		for _, r := range c.ports.allowed {
			names = append(names, r.String())
		}
		return &refusal{reason: v1alpha1.ReasonPortNotAllowed, why: fmt.Sprintf("is not allowed by %s, which has %s: use one of those or another address, or have the administrator allow it.",
			c.addressesField("allowedPorts"), phrase.Join(names))}
	}
	return nil
}

// hostPort returns a pod's port that is the same as that of the key, or nil. A key
// of all nodes is served by those that the data plane selects.
func (s *environment) hostPort(key lb.Key) *HostPort {
	same := s.hostPorts[Port{key.Protocol, key.Port}]
	for i := range same {
		p := &same[i]
		own := s.nodeOf[key.Addr] == p.Node
		if key.Addr.IsUnspecified() {
			own = s.selected[p.Node]
		}
		if addr := p.Address; addr.IsValid() {
			own = own && addr.Is6() == key.Addr.Is6() && !addr.IsLoopback() &&
				(addr == key.Addr || addr.IsUnspecified() || key.Addr.IsUnspecified())
		}
		if own {
			return p
		}
	}
	return nil
}

func (r *ReservedRange) use() string {
	if r.Use == "" {
		return "the host"
	}
	return r.Use
}

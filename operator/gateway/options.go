// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/netip"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Options say what the administrator and the host allow. The zero value
// serves every address that a Gateway asks for, as an address of its own.
type Options struct {
	// HostAddresses are those that the host has itself: their other ports
	// belong to the host.
	HostAddresses []netip.Addr `json:"hostAddresses,omitempty"`
	// DefaultAddresses are given to a Gateway that does not say which it wants.
	DefaultAddresses []netip.Addr `json:"defaultAddresses,omitempty"`
	// AllowedAddresses are those that a Gateway may ask for. Nil allows all;
	// an empty list allows none. DefaultAddresses are allowed anyway.
	AllowedAddresses []AllowedAddresses `json:"allowedAddresses,omitempty"`
	// ReservedPorts cannot be listened on at HostAddresses.
	ReservedPorts []ReservedRange `json:"reservedPorts,omitempty"`
	// Cluster is nil where there is none. With it the fields above mean
	// nothing: BlixtConfigs and nodes decide.
	Cluster *Cluster `json:"cluster,omitempty"`
}

// AllowedAddresses lets Gateways of a class and namespace ask for addresses.
type AllowedAddresses struct {
	// Class and Namespace limit who may ask; empty means anybody.
	Class     string       `json:"class,omitempty"`
	Namespace string       `json:"namespace,omitempty"`
	Prefix    netip.Prefix `json:"prefix"`
}

// ReservedRange is some ports of one protocol, or of both when Protocol is zero.
type ReservedRange struct {
	Protocol lb.Protocol `json:"protocol,omitempty"`
	First    uint16      `json:"first"`
	Last     uint16      `json:"last"`
}

// StandaloneReservedPorts returns the ports that a load balancer without
// Kubernetes leaves to its host: SSH, lest a typo lock the administrator out.
func StandaloneReservedPorts() []ReservedRange {
	return []ReservedRange{{Protocol: lb.TCP, First: 22, Last: 22}}
}

func (o *Options) allowed(class, namespace string, addr netip.Addr) bool {
	if o.AllowedAddresses == nil {
		return true
	}
	return slices.ContainsFunc(o.AllowedAddresses, func(a AllowedAddresses) bool {
		return (a.Class == "" || a.Class == class) &&
			(a.Namespace == "" || a.Namespace == namespace) && a.Prefix.Contains(addr)
	})
}

// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/netip"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Options are what the administrator and the host allow. The zero value serves
// every address that a Gateway names, as an address that the host does not
// have.
type Options struct {
	// HostAddresses are the host's own: ports of them that Blixt does not serve
	// belong to the host.
	HostAddresses []netip.Addr `json:"hostAddresses,omitempty"`
	// DefaultAddresses are assigned to a Gateway that names no address.
	DefaultAddresses []netip.Addr `json:"defaultAddresses,omitempty"`
	// AllowedAddresses are the addresses that a Gateway may name. Nil allows
	// all; an empty list allows none. DefaultAddresses are always allowed.
	AllowedAddresses []AllowedAddresses `json:"allowedAddresses,omitempty"`
	// ReservedPorts are unavailable at HostAddresses.
	ReservedPorts []ReservedRange `json:"reservedPorts,omitempty"`
	// EphemeralPorts are those from which the host connects: no range of ports takes them at
	// HostAddresses. Nil: Linux's default.
	EphemeralPorts []ReservedRange `json:"ephemeralPorts,omitempty"`
	// Capacity is that of the tables. Zero: no limit.
	Capacity lb.Capacity `json:"capacity,omitzero"`
	// Incumbents are those of the previous translation. Nil: there was none, and
	// the statuses of the objects say who holds what.
	Incumbents *Incumbents `json:"incumbents,omitempty"`
	// LastGood is from the previous translation.
	LastGood LastGood `json:"-"`
	// FlowRecords is whether flows of a Gateway are recorded that does not choose;
	// empty: they are not.
	FlowRecords v1alpha1.FlowRecords `json:"flowRecords,omitempty"`
	// Cluster is nil without a cluster. With a cluster, the fields above are
	// ignored: BlixtConfigs and nodes decide.
	Cluster *Cluster `json:"cluster,omitempty"`
}

// AllowedAddresses allows Gateways of a class and namespace to name addresses.
type AllowedAddresses struct {
	// Class and Namespace restrict who may; empty means any.
	Class     string       `json:"class,omitempty"`
	Namespace string       `json:"namespace,omitempty"`
	Prefix    netip.Prefix `json:"prefix"`
}

// StandaloneReservedPorts returns the ports that a load balancer without
// Kubernetes leaves to its host: SSH, so that a typo does not lock the
// administrator out.
func StandaloneReservedPorts() []ReservedRange {
	return []ReservedRange{{Protocol: lb.TCP, First: 22, Last: 22, Use: "SSH of the host"}}
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

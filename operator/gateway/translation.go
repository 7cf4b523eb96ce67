// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Translation is the result of Translate: frontends that name Services, and the
// status of every object that is Blixt's. Each list is sorted, so that equal
// objects give equal translations.
type Translation struct {
	Unresolved
	Classes      []ClassStatus
	Gateways     []GatewayStatus
	ListenerSets []ListenerSetStatus
	Routes       []RouteStatus
	Policies     []PolicyStatus
	// Incumbents are for the Options of the next translation.
	Incumbents Incumbents
	// Dataplane is the BlixtConfig, one of Objects, whose spec.dataplane is in
	// force. Nil: every default.
	Dataplane *v1alpha1.BlixtConfig
	// LastGood is for the next translation.
	LastGood LastGood
	// Endpoints joins spec.endpoints of the BlixtConfigs of all classes.
	Endpoints v1alpha1.Endpoints
	// Pools are in use by Gateways of a cluster.
	Pools []PoolUse
	// Notes are problems for which no status has a place, such as a Gateway
	// whose GatewayClass does not exist.
	Notes []Problem
	// Mistakes are found without a cluster only, where they are to be refused. They
	// are among Problems, too.
	Mistakes []Mistake
}

// Unresolved is a state whose backends are still the names of Services. It is
// the same for every node; Resolve makes a node's lb.State of it. Addresses and
// Frontends are sorted like those of a normalized lb.State.
type Unresolved struct {
	Addresses []lb.Address
	Frontends []Frontend
	// Sources are as in lb.State.
	Sources []lb.SourceSet
}

// Frontend is an address, protocol and port with the Services behind it. It is
// plain data.
type Frontend struct {
	// Key.Addr is unspecified (0.0.0.0 or ::) for a frontend at every address
	// of that family that a node itself has.
	lb.Key
	// Gateway, Listener and Route are as in lb.Frontend.
	Gateway, Listener, Route string
	IdleTimeout              time.Duration
	Refs                     []Ref
	// Reject is the weight of invalid references, as lb.Frontend.Reject.
	Reject uint64
	// LocalOnly excludes endpoints on other nodes.
	LocalOnly bool
	// PreserveClient and Records are as in lb.Frontend.
	PreserveClient bool
	Records        bool
	// Settings are what BlixtPolicies say.
	lb.Settings
}

// Ref refers to a port of a Service. Its protocol is the frontend's.
type Ref struct {
	Service types.NamespacedName
	// PortName is the name of the Service's port, which EndpointSlices repeat.
	PortName string
	// Port is its number, by which routes name it.
	Port   uint16
	Weight uint32
	// Priority is that of the group of backends, with Settings.Failover: the smallest that is
	// available serves.
	Priority int
}

// ClassStatus is the status of a GatewayClass.
type ClassStatus struct {
	Name   string
	Status gwv1.GatewayClassStatus
	// InUse is true if the class has Gateways: it should then have the
	// finalizer gateway-exists-finalizer.gateway.networking.k8s.io.
	InUse bool
}

// GatewayStatus is the status of a Gateway. The Programmed conditions of the
// Gateway and its listeners are False if no data plane can change that, and
// otherwise Unknown with reason Pending: SetProgress sets them.
type GatewayStatus struct {
	types.NamespacedName
	Status gwv1.GatewayStatus
	// Service is nil for a Gateway that is refused as a whole, or without a
	// cluster.
	Service *ServiceSpec
}

// ListenerSetStatus is the status of a ListenerSet, with Programmed as in
// GatewayStatus.
type ListenerSetStatus struct {
	types.NamespacedName
	// Gateway is the parent.
	Gateway types.NamespacedName
	Status  gwv1.ListenerSetStatus
}

// listenerSetReasonParentNotProgrammed is a reason of Programmed that Gateway
// API documents, but defines no constant for.
const listenerSetReasonParentNotProgrammed gwv1.ListenerSetConditionReason = "ParentNotProgrammed"

// RouteStatus is the status of a TCPRoute or UDPRoute. It contains the parents
// that are Blixt's; a route without such parents is not listed.
type RouteStatus struct {
	Kind gwv1.Kind
	types.NamespacedName
	Status gwv1.RouteStatus
}

// PolicyStatus is the status of a BlixtPolicy. Each is listed, also one that concerns no Gateway
// of Blixt's. Conditions Programmed are False with reason Overridden if no data plane can
// change that, and otherwise False with reason Reconciling: SetPolicyProgress sets them.
type PolicyStatus struct {
	types.NamespacedName
	Status v1alpha1.BlixtPolicyStatus
	// Gateways are those of Status.Ancestors, in the same order. The zero value is a target that
	// is missing.
	Gateways []types.NamespacedName
	// programmed are the conditions Programmed of Status.Ancestors once all nodes serve the
	// Gateway. Those without a type do not depend on nodes.
	programmed []metav1.Condition
}

// DataplaneSpec returns spec.dataplane of the BlixtConfig in force; nil: there is none.
func (t *Translation) DataplaneSpec() *v1alpha1.Dataplane {
	if t.Dataplane == nil {
		return nil
	}
	return t.Dataplane.Spec.Dataplane
}

// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// BlixtPolicy says what traffic may do, for TCP and UDP alike: who may connect and how
// often, which backends are healthy, and how long connections last.
//
// Restrictions add up: the sources and limits of every policy on the way from Gateway
// to route must all admit a connection. Choices have one winner: by default that of the
// most specific target. Ports and failover belong to their target.
//
// It is an Inherited policy in the sense of GEP-713.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=blixtpolicies,shortName=bpol,categories=blixt;gateway-api
// +kubebuilder:metadata:labels="gateway.networking.k8s.io/policy=Inherited"
// +kubebuilder:printcolumn:name="Target",type=string,JSONPath=".spec.targetRefs[0].name"
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=".spec.mode"
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=".status.ancestors[0].conditions[?(@.type==\"Accepted\")].status"
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=".status.ancestors[0].conditions[?(@.type==\"Programmed\")].reason"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=".metadata.creationTimestamp"
type BlixtPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec BlixtPolicySpec `json:"spec"`
	// +optional
	Status BlixtPolicyStatus `json:"status,omitzero"`
}

// BlixtPolicyList is a list of BlixtPolicies.
//
// +kubebuilder:object:root=true
type BlixtPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []BlixtPolicy `json:"items"`
}

// BlixtPolicySpec says what traffic of the targets may do.
type BlixtPolicySpec struct {
	// targetRefs are what the policy is for: Gateways and ListenerSets, with
	// sectionName one of their listeners, and TCPRoutes and UDPRoutes, all in the
	// policy's namespace.
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	TargetRefs []gwv1.LocalPolicyTargetReferenceWithSectionName `json:"targetRefs"`

	// strategy says which policy has the last word about choices (affinity,
	// idleTimeout, maxAge, health, overload). Defaults: that of the most specific
	// target. Overrides: this one, over all more specific ones.
	// +optional
	// +kubebuilder:default=Defaults
	Strategy PolicyStrategy `json:"strategy,omitempty"`

	// mode DryRun counts what sources and limits would refuse, and refuses nothing. All
	// other fields are ignored then.
	// +optional
	// +kubebuilder:default=Enforce
	Mode PolicyMode `json:"mode,omitempty"`

	// +optional
	Sources *PolicySources `json:"sources,omitempty"`
	// +optional
	Limits *PolicyLimits `json:"limits,omitempty"`
	// +optional
	Affinity *PolicyAffinity `json:"affinity,omitempty"`
	// +optional
	IdleTimeout *PolicyIdleTimeout `json:"idleTimeout,omitempty"`
	// +optional
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
	// +optional
	Health *PolicyHealth `json:"health,omitempty"`
	// +optional
	Failover *PolicyFailover `json:"failover,omitempty"`
	// +optional
	Ports *PolicyPorts `json:"ports,omitempty"`
	// +optional
	Overload *PolicyOverload `json:"overload,omitempty"`
}

// PolicyStrategy says which policy's choices win.
type PolicyStrategy string

// Which policy's choices win.
const (
	StrategyDefaults  PolicyStrategy = "Defaults"
	StrategyOverrides PolicyStrategy = "Overrides"
)

// PolicyMode says whether a policy refuses, or only counts.
type PolicyMode string

// Whether a policy refuses.
const (
	ModeEnforce PolicyMode = "Enforce"
	ModeDryRun  PolicyMode = "DryRun"
)

// RefusalAction is what happens to a packet that is refused.
type RefusalAction string

// What happens to a packet that is refused. UDP is always dropped.
const (
	ActionDrop  RefusalAction = "Drop"
	ActionReset RefusalAction = "Reset"
)

// PolicySources says who may connect.
type PolicySources struct {
	// allow, if given, refuses every source that is not in one of these networks, of
	// both families.
	// +optional
	// +listType=atomic
	Allow []string `json:"allow,omitempty"`
	// deny refuses sources in these networks. The longest match of allow and deny
	// counts; of equal ones deny.
	// +optional
	// +listType=atomic
	Deny []string `json:"deny,omitempty"`
	// +optional
	// +kubebuilder:default=Drop
	Action RefusalAction `json:"action,omitempty"`
}

// PolicyLimits bounds new and concurrent connections, on each node for itself.
type PolicyLimits struct {
	// +optional
	PerSource *SourceLimit `json:"perSource,omitempty"`
	// +optional
	Total *TotalLimit `json:"total,omitempty"`
	// +optional
	// +kubebuilder:default=Drop
	Action RefusalAction `json:"action,omitempty"`
}

// Limit bounds connections.
type Limit struct {
	// +optional
	NewPerSecond *int32 `json:"newPerSecond,omitempty"`
	// +optional
	Burst *int32 `json:"burst,omitempty"`
	// +optional
	Concurrent *int32 `json:"concurrent,omitempty"`
}

// SourceLimit is for each source by itself.
type SourceLimit struct {
	Limit `json:",inline"`
	// +optional
	PrefixLength *PrefixLength `json:"prefixLength,omitempty"`
}

// TotalLimit is for all connections to a target together.
type TotalLimit struct {
	Limit `json:",inline"`
}

// PrefixLength says how many bits of an address make a source.
type PrefixLength struct {
	// +optional
	// +kubebuilder:default=32
	IPv4 *int32 `json:"ipv4,omitempty"`
	// +optional
	// +kubebuilder:default=64
	IPv6 *int32 `json:"ipv6,omitempty"`
}

// AffinityType is what leads to the same backend.
type AffinityType string

// What leads to the same backend.
const (
	AffinityNone          AffinityType = "None"
	AffinityClientAddress AffinityType = "ClientAddress"
)

// PolicyAffinity leads the same client to the same backend.
type PolicyAffinity struct {
	Type AffinityType `json:"type"`
	// +optional
	PrefixLength *PrefixLength `json:"prefixLength,omitempty"`
	// timeout has a node remember a client's backend so long after its last new
	// connection, also when others come and go.
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}

// PolicyIdleTimeout says how long flows without packets last.
type PolicyIdleTimeout struct {
	// +optional
	TCP *metav1.Duration `json:"tcp,omitempty"`
	// +optional
	UDP *metav1.Duration `json:"udp,omitempty"`
}

// Switch turns something on or off.
type Switch string

// Whether something is on.
const (
	Enabled  Switch = "Enabled"
	Disabled Switch = "Disabled"
)

// PolicyHealth says which backends are healthy.
type PolicyHealth struct {
	// +optional
	Passive *PassiveHealth `json:"passive,omitempty"`
	// +optional
	Active *ActiveHealth `json:"active,omitempty"`
	// +optional
	PanicPercent *int32 `json:"panicPercent,omitempty"`
}

// PassiveHealth judges backends by the connections that they get.
type PassiveHealth struct {
	// +optional
	// +kubebuilder:default=Enabled
	Mode Switch `json:"mode,omitempty"`
	// +optional
	// +kubebuilder:default=5
	Consecutive *int32 `json:"consecutive,omitempty"`
	// +optional
	// +kubebuilder:default="1s"
	AnswerWithin *metav1.Duration `json:"answerWithin,omitempty"`
	// +optional
	// +kubebuilder:default=50
	FailurePercent *int32 `json:"failurePercent,omitempty"`
	// +optional
	// +kubebuilder:default=20
	MinFlows *int32 `json:"minFlows,omitempty"`
	// +optional
	// +kubebuilder:default="10s"
	Window *metav1.Duration `json:"window,omitempty"`
	// +optional
	// +kubebuilder:default="30s"
	BaseEjection *metav1.Duration `json:"baseEjection,omitempty"`
	// +optional
	// +kubebuilder:default="300s"
	MaxEjection *metav1.Duration `json:"maxEjection,omitempty"`
	// +optional
	// +kubebuilder:default=50
	MaxEjectedPercent *int32 `json:"maxEjectedPercent,omitempty"`
}

// CheckType is how a backend is checked.
type CheckType string

// How a backend is checked.
const (
	CheckNone CheckType = "None"
	CheckTCP  CheckType = "TCP"
	CheckUDP  CheckType = "UDP"
	CheckHTTP CheckType = "HTTP"
)

// ActiveHealth checks backends.
type ActiveHealth struct {
	Type CheckType `json:"type"`
	// port of the check; 0: the backend's own.
	// +optional
	// +kubebuilder:default=0
	Port *int32 `json:"port,omitempty"`
	// +optional
	// +kubebuilder:default="5s"
	Interval *metav1.Duration `json:"interval,omitempty"`
	// +optional
	// +kubebuilder:default="2s"
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// +optional
	// +kubebuilder:default=2
	Rise *int32 `json:"rise,omitempty"`
	// +optional
	// +kubebuilder:default=3
	Fall *int32 `json:"fall,omitempty"`
	// +optional
	UDP *UDPCheck `json:"udp,omitempty"`
	// +optional
	HTTP *HTTPCheck `json:"http,omitempty"`
}

// UDPCheck sends a datagram and expects an answer.
type UDPCheck struct {
	// payload of the datagram, base64.
	Payload []byte `json:"payload"`
	// expect is what the answer begins with, base64; empty: any answer.
	// +optional
	Expect []byte `json:"expect,omitempty"`
}

// HTTPCheck asks for a page.
type HTTPCheck struct {
	// +optional
	// +kubebuilder:default="/"
	Path string `json:"path,omitempty"`
	// +optional
	Host string `json:"host,omitempty"`
	// statuses that are healthy: numbers and ranges.
	// +optional
	// +listType=atomic
	// +kubebuilder:default={"200-399"}
	Statuses []string `json:"statuses,omitempty"`
}

// PolicyFailover has some backends of a route stand by.
type PolicyFailover struct {
	// backends of the route that are not in the first group. All others have priority 0.
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	Backends []FailoverBackend `json:"backends"`
	// +optional
	// +kubebuilder:default=1
	MinAvailablePercent *int32 `json:"minAvailablePercent,omitempty"`
	// +optional
	// +kubebuilder:default=50
	RecoverPercent *int32 `json:"recoverPercent,omitempty"`
	// +optional
	// +kubebuilder:default="30s"
	HoldTime *metav1.Duration `json:"holdTime,omitempty"`
}

// FailoverBackend is a backendRef of the route.
type FailoverBackend struct {
	// +optional
	Namespace *gwv1.Namespace `json:"namespace,omitempty"`
	Name      gwv1.ObjectName `json:"name"`
	// +optional
	Port *gwv1.PortNumber `json:"port,omitempty"`
	// priority of the group: the smallest that is available serves.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3
	Priority int32 `json:"priority"`
}

// TargetPort says which port of a backend gets connections to a port of a range.
type TargetPort string

// Which port of a backend gets connections to a port of a range.
const (
	TargetKeep  TargetPort = "Keep"  // the same port
	TargetShift TargetPort = "Shift" // the Service's port, and as much higher as the port is above the listener's
)

// PolicyPorts has a listener serve more than its port.
type PolicyPorts struct {
	// +optional
	EndPort *gwv1.PortNumber `json:"endPort,omitempty"`
	// +optional
	All *bool `json:"all,omitempty"`
	// +optional
	// +kubebuilder:default=Keep
	Target TargetPort `json:"target,omitempty"`
}

// PolicyOverload says what happens without backends, and in a flood.
type PolicyOverload struct {
	// +optional
	NoBackend RefusalAction `json:"noBackend,omitempty"`
	// +optional
	SYNChallenge *SYNChallenge `json:"synChallenge,omitempty"`
}

// ChallengeMode says when clients are challenged.
type ChallengeMode string

// When clients are challenged.
const (
	ChallengeNever  ChallengeMode = "Never"
	ChallengeAuto   ChallengeMode = "Auto"
	ChallengeAlways ChallengeMode = "Always"
)

// SYNChallenge has clients prove, before they get a flow, that their address is not forged.
type SYNChallenge struct {
	Mode ChallengeMode `json:"mode"`
	// newPerSecond, on one frontend and node, from which mode Auto challenges.
	// +optional
	// +kubebuilder:default=20000
	NewPerSecond *int32 `json:"newPerSecond,omitempty"`
}

// BlixtPolicyStatus says where the policy holds.
type BlixtPolicyStatus struct {
	// ancestors are the Gateways that the policy concerns, at most 16: the worst ones.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Ancestors []gwv1.PolicyAncestorStatus `json:"ancestors,omitempty"`
	// targets say what has become of each of targetRefs.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Targets []PolicyTargetStatus `json:"targets,omitempty"`
}

// PolicyTargetStatus says what has become of one of targetRefs.
type PolicyTargetStatus struct {
	Kind gwv1.Kind       `json:"kind"`
	Name gwv1.ObjectName `json:"name"`
	// +optional
	SectionName *gwv1.SectionName `json:"sectionName,omitempty"`
	// frontends is how many addresses with a port the policy concerns by this target.
	Frontends int32 `json:"frontends"`
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions"`
}

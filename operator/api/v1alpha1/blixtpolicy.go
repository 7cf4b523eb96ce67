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
//
// +kubebuilder:validation:XValidation:rule="has(self.sources) || has(self.limits) || has(self.affinity) || has(self.idleTimeout) || has(self.maxAge) || has(self.health) || has(self.failover) || has(self.ports) || has(self.overload)",message="the policy says nothing: set at least one of sources, limits, affinity, idleTimeout, maxAge, health, failover, ports and overload"
// +kubebuilder:validation:XValidation:rule="!has(self.mode) || self.mode != 'DryRun' || has(self.sources) || has(self.limits)",message="mode DryRun counts what sources and limits would refuse, and ignores all else: set one of them, or mode Enforce"
// +kubebuilder:validation:XValidation:rule="!has(self.strategy) || self.strategy != 'Overrides' || self.targetRefs.all(t, t.kind != 'TCPRoute' && t.kind != 'UDPRoute')",message="nothing is more specific than a route: with strategy Overrides target Gateways and ListenerSets, or use Defaults"
// +kubebuilder:validation:XValidation:rule="!has(self.failover) || self.targetRefs.all(t, t.kind == 'TCPRoute' || t.kind == 'UDPRoute')",message="failover is about the backendRefs of a route: target TCPRoutes and UDPRoutes only, and put all else into another policy"
// +kubebuilder:validation:XValidation:rule="!has(self.ports) || self.targetRefs.all(t, has(t.sectionName))",message="ports are about a listener: name it by sectionName in every targetRef, and put all else into another policy"
type BlixtPolicySpec struct {
	// targetRefs are what the policy is for: Gateways and ListenerSets, with
	// sectionName one of their listeners, and TCPRoutes and UDPRoutes, all in the
	// policy's namespace. A policy of a Gateway holds for everything behind it; one with
	// sectionName for that listener of the Gateway alone, not for listeners of that name
	// in ListenerSets.
	//
	// A target that does not exist is protected by nothing once it does, until the policy
	// names it: condition Accepted and status.targets tell of it. To take a protected
	// route away, delete the route before its policy.
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(p1, self.all(p2, p1.group == p2.group && p1.kind == p2.kind && p1.name == p2.name ? has(p1.sectionName) == has(p2.sectionName) : true))",message="sectionName must be specified in all or none of the references to the same target"
	// +kubebuilder:validation:XValidation:rule="self.all(p1, self.exists_one(p2, p1.group == p2.group && p1.kind == p2.kind && p1.name == p2.name && (has(p1.sectionName) ? p1.sectionName : '') == (has(p2.sectionName) ? p2.sectionName : '')))",message="the same target is named twice: remove one"
	// +kubebuilder:validation:items:XValidation:rule="self.group == 'gateway.networking.k8s.io' && self.kind in ['Gateway', 'ListenerSet', 'TCPRoute', 'UDPRoute']",message="want group gateway.networking.k8s.io and kind Gateway, ListenerSet, TCPRoute or UDPRoute"
	// +kubebuilder:validation:items:XValidation:rule="!has(self.sectionName) || self.kind == 'Gateway' || self.kind == 'ListenerSet'",message="sectionName is a listener of a Gateway or ListenerSet: leave it away for routes, which have one rule"
	TargetRefs []gwv1.LocalPolicyTargetReferenceWithSectionName `json:"targetRefs"`

	// strategy says which policy has the last word about choices: affinity,
	// idleTimeout.tcp, idleTimeout.udp, maxAge, health.passive, health.active,
	// health.panicPercent, overload.noBackend and overload.synChallenge, each as a whole.
	// Defaults: that of the most specific target. Overrides: this one, over all more
	// specific ones. Of two policies of the same target the older one wins.
	// +optional
	// +kubebuilder:validation:Enum=Defaults;Overrides
	// +kubebuilder:default=Defaults
	Strategy PolicyStrategy `json:"strategy,omitempty"`

	// mode DryRun counts what sources and limits would refuse, and refuses nothing. All
	// other fields are ignored then.
	// +optional
	// +kubebuilder:validation:Enum=Enforce;DryRun
	// +kubebuilder:default=Enforce
	Mode PolicyMode `json:"mode,omitempty"`

	// sources say who may connect. Those of every policy on the way from Gateway to
	// route must admit a client: a route's policy narrows what its Gateway's admits, and
	// never widens it.
	//
	// They hold at every address and port of the targets. The node that the packet
	// enters by asks, before anything is translated, and once. Pods and nodes are asked
	// like everybody else. A pod whose address the network masquerades counts as its
	// node. Pings are not asked.
	//
	// A connection whose source is denied later ends within a second.
	//
	// A list that a node has no room for leaves the list before it in force. Where none
	// was in force, all new connections are refused (condition Programmed: NoCapacity).
	// +optional
	Sources *PolicySources `json:"sources,omitempty"`

	// limits bound new and concurrent connections, on each node for itself. Those of
	// every policy on the way from Gateway to route hold, each over its own target: total
	// in a Gateway's policy is one sum of all that the Gateway serves.
	//
	// Each node counts for itself: what a target gets in all depends on how many nodes
	// its clients reach. A connection over a limit is not made, and does not count. Only
	// those that begin count, not those that a node takes over from one that failed.
	// +optional
	Limits *PolicyLimits `json:"limits,omitempty"`

	// affinity leads the same client to the same backend.
	//
	// It leads there through all nodes: on every port of the target, by TCP and UDP,
	// where these lead to the same Services with the same weights. A backend that is
	// unready, terminating or ejected is never kept.
	// +optional
	Affinity *PolicyAffinity `json:"affinity,omitempty"`

	// idleTimeout is how long a flow without packets is kept. It comes before
	// idleTimeouts of a BlixtGatewayConfig.
	//
	// tcp and udp are choices of their own.
	// +optional
	IdleTimeout *PolicyIdleTimeout `json:"idleTimeout,omitempty"`

	// maxAge ends a flow that has lasted so long, busy or not: TCP by a reset of both
	// ends, a UDP client gets a new flow. Each flow ends up to a tenth earlier, so that
	// clients do not come back all at once. Default: flows last as long as they like.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1m') && duration(self) <= duration('8760h')",message="want a duration of 1m to 8760h, such as 24h"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`

	// health takes backends out that do not work. It never makes one available that
	// Kubernetes calls unready.
	//
	// Readiness comes first, then active, then passive, then failover. passive, active
	// and panicPercent are choices of their own.
	// +optional
	Health *PolicyHealth `json:"health,omitempty"`

	// failover has some backends of a route stand by. It holds for the route that the
	// policy targets, and is not inherited.
	//
	// The group with the smallest priority that has enough available backends, ready and
	// healthy ones, gets the new connections. Connections stay where they are. Without
	// health, what is ready is healthy.
	// +optional
	Failover *PolicyFailover `json:"failover,omitempty"`

	// ports has a listener serve more ports than its own. It holds for the listener that
	// the policy targets, and is not inherited.
	//
	// A listener of another port comes before a range, and a range before all. Of ranges
	// that overlap the older policy counts. Ports that a node needs itself are never
	// taken.
	// +optional
	Ports *PolicyPorts `json:"ports,omitempty"`

	// overload says what clients get while there is no backend, and in a flood of new
	// connections.
	//
	// noBackend and synChallenge are choices of their own.
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
//
// +kubebuilder:validation:Enum=Drop;Reset
type RefusalAction string

// What happens to a packet that is refused. UDP is always dropped.
const (
	ActionDrop  RefusalAction = "Drop"
	ActionReset RefusalAction = "Reset"
)

// PolicySources says who may connect.
//
// +kubebuilder:validation:XValidation:rule="has(self.allow) || has(self.deny)",message="set allow or deny, or remove sources"
// +kubebuilder:validation:XValidation:rule="(has(self.allow) ? size(self.allow) : 0) + (has(self.deny) ? size(self.deny) : 0) <= 10000",message="allow and deny have more than 10000 networks together: merge networks that are side by side"
type PolicySources struct {
	// allow, if given, refuses every source that is not in one of these networks, of
	// both families: a list with IPv4 networks only refuses all IPv6 clients.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10000
	Allow []Network `json:"allow,omitempty"`

	// deny refuses sources in these networks. The longest match of allow and deny
	// counts: deny 10.1.0.0/16 is an exception from allow 10.0.0.0/8, and allow
	// 10.1.2.0/24 one from that. Of equal ones deny counts.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10000
	Deny []Network `json:"deny,omitempty"`

	// action is what who is refused gets. Drop: nothing, so that forged sources get no
	// answer either. Reset: a TCP reset, so that clients fail at once; UDP is dropped.
	// +optional
	// +kubebuilder:default=Drop
	Action RefusalAction `json:"action,omitempty"`
}

// Network is an IPv4 or IPv6 network such as 192.0.2.0/24 or 2001:db8::/32. One address is
// a network with /32 or /128.
//
// +kubebuilder:validation:MaxLength=43
// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="want a network, such as 192.0.2.0/24 or 2001:db8::/32, or one address, such as 192.0.2.1/32; IPv4 networks are not written as IPv6"
// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self).masked() == cidr(self)",message="the address has bits behind the prefix: write the first address of the network",messageExpression="'%s has bits behind the prefix: write %s'.format([self, string(cidr(self).masked())])"
type Network = string

// PolicyLimits bounds new and concurrent connections.
//
// +kubebuilder:validation:XValidation:rule="has(self.perSource) || has(self.total)",message="set perSource or total, or remove limits"
type PolicyLimits struct {
	// perSource bounds each source by itself. A node remembers the last sources, as many as
	// it has room for; one that it has forgotten begins again. So against a flood from
	// very many sources total helps, and perSource does not.
	// +optional
	PerSource *SourceLimit `json:"perSource,omitempty"`

	// total bounds all connections to a target together. Each of targetRefs has its own.
	// +optional
	Total *TotalLimit `json:"total,omitempty"`

	// action is what a connection over a limit gets. Drop: nothing; TCP clients try again
	// after a second, so that they come late instead of never. Reset: a TCP reset; UDP is
	// dropped.
	// +optional
	// +kubebuilder:default=Drop
	Action RefusalAction `json:"action,omitempty"`
}

// Limit bounds connections.
//
// +kubebuilder:validation:XValidation:rule="has(self.newPerSecond) || has(self.concurrent)",message="set newPerSecond or concurrent"
// +kubebuilder:validation:XValidation:rule="!has(self.burst) || has(self.newPerSecond)",message="burst is about newPerSecond: set that, too"
type Limit struct {
	// newPerSecond is how many connections may begin in a second: in t seconds at most
	// newPerSecond x t + burst. For UDP a connection begins with the first datagram of a
	// client's address and port.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000000
	NewPerSecond *int32 `json:"newPerSecond,omitempty"`

	// burst is how many may begin at once, after a time without any. Default: newPerSecond.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000000
	Burst *int32 `json:"burst,omitempty"`

	// concurrent is how many connections may be established at once. Those that are
	// half open are not counted. A node counts again about every second: between two counts
	// it may be exceeded by as many as its processors establish at that moment.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000000
	Concurrent *int32 `json:"concurrent,omitempty"`
}

// SourceLimit is for each source by itself.
type SourceLimit struct {
	Limit `json:",inline"`

	// prefixLength makes a source of all addresses that begin alike. Default: 32 bits of
	// IPv4, and 64 of IPv6, of which a customer usually has all addresses.
	// +optional
	PrefixLength *PrefixLength `json:"prefixLength,omitempty"`
}

// TotalLimit is for all connections to a target together.
type TotalLimit struct {
	Limit `json:",inline"`
}

// PrefixLength says how many bits of an address make a source.
type PrefixLength struct {
	// ipv4 is for IPv4 addresses.
	// +optional
	// +kubebuilder:validation:Minimum=8
	// +kubebuilder:validation:Maximum=32
	// +kubebuilder:default=32
	IPv4 *int32 `json:"ipv4,omitempty"`

	// ipv6 is for IPv6 addresses.
	// +optional
	// +kubebuilder:validation:Minimum=32
	// +kubebuilder:validation:Maximum=128
	// +kubebuilder:default=64
	IPv6 *int32 `json:"ipv6,omitempty"`
}

// AffinityType is what leads to the same backend.
//
// +kubebuilder:validation:Enum=None;ClientAddress
type AffinityType string

// What leads to the same backend.
const (
	AffinityNone          AffinityType = "None"
	AffinityClientAddress AffinityType = "ClientAddress"
)

// PolicyAffinity leads the same client to the same backend.
//
// +kubebuilder:validation:XValidation:rule="!has(self.timeout) || self.type == 'ClientAddress'",message="a timeout is for type ClientAddress: set that, or remove the timeout"
type PolicyAffinity struct {
	// type is what leads to the same backend. None: nothing, also where a less specific
	// policy says ClientAddress. ClientAddress: the client's address, or its first bits.
	// Few clients, or many behind one address, then load backends unequally.
	Type AffinityType `json:"type"`

	// prefixLength has all addresses that begin alike meet the same backend. Default: 32
	// bits of IPv4, 64 of IPv6.
	// +optional
	PrefixLength *PrefixLength `json:"prefixLength,omitempty"`

	// timeout has a node remember a client's backend so long after its last new
	// connection, also when others come and go. Other nodes do not know it. Without a
	// timeout a client may move when backends come, and moves when its own goes.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('10s') && duration(self) <= duration('24h')",message="want a duration of 10s to 24h, such as 3h"
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}

// PolicyIdleTimeout says how long flows without packets last.
//
// +kubebuilder:validation:XValidation:rule="has(self.tcp) || has(self.udp)",message="set tcp or udp, or remove idleTimeout"
type PolicyIdleTimeout struct {
	// tcp is for TCP flows that are established. Linux waits 2h before it sends
	// keepalives.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('10s') && duration(self) <= duration('168h')",message="want a duration of 10s to 168h, such as 2h15m"
	TCP *metav1.Duration `json:"tcp,omitempty"`

	// udp is for UDP flows.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('24h')",message="want a duration of 1s to 24h, such as 5m"
	UDP *metav1.Duration `json:"udp,omitempty"`
}

// Switch turns something on or off.
//
// +kubebuilder:validation:Enum=Enabled;Disabled
type Switch string

// Whether something is on.
const (
	Enabled  Switch = "Enabled"
	Disabled Switch = "Disabled"
)

// PolicyHealth says which backends are healthy.
//
// +kubebuilder:validation:XValidation:rule="has(self.passive) || has(self.active) || has(self.panicPercent)",message="set passive, active or panicPercent, or remove health"
type PolicyHealth struct {
	// passive judges backends by the connections that they get anyway.
	//
	// A TCP connection fails if its SYN is not answered in time, is reset or
	// unreachable; a UDP one if it is unreachable: silence is no failure there. What a
	// policy refused does not count. Silence counts from at least two networks (/24,
	// /64) of clients, as one client may be shut out on purpose. The nodes report, and
	// Blixt decides for all of them.
	//
	// A backend that is ejected gets no new connections until its time is up. Then it
	// gets one at a time, until one succeeds.
	// +optional
	Passive *PassiveHealth `json:"passive,omitempty"`

	// active asks backends at intervals.
	//
	// Each is checked from up to three nodes, of which the majority decides. If all
	// backends fail at once, the check itself is suspected, and not obeyed. Checks come
	// from the agents' pods, or from the process with blixt run: NetworkPolicies of the
	// backends must let these in.
	// +optional
	Active *ActiveHealth `json:"active,omitempty"`

	// panicPercent: while fewer of the ready backends are healthy, and no other group can
	// take over, all ready ones serve, as if nobody had asked for health. 0: never.
	// Default: 50, where passive or active is in force.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	PanicPercent *int32 `json:"panicPercent,omitempty"`
}

// PassiveHealth judges backends by the connections that they get.
//
// +kubebuilder:validation:XValidation:rule="!has(self.baseEjection) || !has(self.maxEjection) || duration(self.baseEjection) <= duration(self.maxEjection)",message="baseEjection is longer than maxEjection"
type PassiveHealth struct {
	// mode Disabled judges nobody, also where a less specific policy does.
	// +optional
	// +kubebuilder:default=Enabled
	Mode Switch `json:"mode,omitempty"`

	// consecutive failures eject a backend.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +kubebuilder:default=5
	Consecutive *int32 `json:"consecutive,omitempty"`

	// answerWithin is how long a backend may take to answer a SYN.
	// +optional
	// +kubebuilder:default="1s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('100ms') && duration(self) <= duration('1m')",message="want a duration of 100ms to 1m, such as 1s"
	AnswerWithin *metav1.Duration `json:"answerWithin,omitempty"`

	// failurePercent of at least minFlows connections within window eject a backend, too.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +kubebuilder:default=50
	FailurePercent *int32 `json:"failurePercent,omitempty"`

	// minFlows is how many connections it takes before failurePercent counts.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	// +kubebuilder:default=20
	MinFlows *int32 `json:"minFlows,omitempty"`

	// window is how long failures are summed up for failurePercent.
	// +optional
	// +kubebuilder:default="10s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('10m')",message="want a duration of 1s to 10m, such as 10s"
	Window *metav1.Duration `json:"window,omitempty"`

	// baseEjection is how long a backend is ejected at first. It doubles each time.
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('24h')",message="want a duration of 1s to 24h, such as 30s"
	BaseEjection *metav1.Duration `json:"baseEjection,omitempty"`

	// maxEjection is how long a backend is ejected at most.
	// +optional
	// +kubebuilder:default="300s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('24h')",message="want a duration of 1s to 24h, such as 5m"
	MaxEjection *metav1.Duration `json:"maxEjection,omitempty"`

	// maxEjectedPercent of a Service's backends are ejected at the same time, rounded
	// down; one of two or more always may be, and the last never. It does not bound active.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +kubebuilder:default=50
	MaxEjectedPercent *int32 `json:"maxEjectedPercent,omitempty"`
}

// CheckType is how a backend is checked.
//
// +kubebuilder:validation:Enum=None;TCP;UDP;HTTP
type CheckType string

// How a backend is checked.
const (
	CheckNone CheckType = "None"
	CheckTCP  CheckType = "TCP"
	CheckUDP  CheckType = "UDP"
	CheckHTTP CheckType = "HTTP"
)

// ActiveHealth checks backends.
//
// +kubebuilder:validation:XValidation:rule="(self.type == 'UDP') == has(self.udp)",message="type UDP needs udp with a payload, and no other type has it"
// +kubebuilder:validation:XValidation:rule="(self.type == 'HTTP') == has(self.http)",message="type HTTP needs http, such as {path: /healthz}, and no other type has it"
// +kubebuilder:validation:XValidation:rule="!has(self.timeout) || !has(self.interval) || duration(self.timeout) <= duration(self.interval)",message="timeout is longer than interval"
type ActiveHealth struct {
	// type is how a backend is checked. None: not at all, also where a less specific
	// policy does. TCP: a connection is accepted. UDP: a datagram is answered. HTTP: a
	// GET has a status that is healthy.
	Type CheckType `json:"type"`

	// port of the check; 0: the backend's own.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:default=0
	Port *int32 `json:"port,omitempty"`

	// interval is how often a node checks a backend.
	// +optional
	// +kubebuilder:default="5s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('1h')",message="want a duration of 1s to 1h, such as 5s"
	Interval *metav1.Duration `json:"interval,omitempty"`

	// timeout is how long a check may take, at most interval.
	// +optional
	// +kubebuilder:default="2s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('100ms') && duration(self) <= duration('1m')",message="want a duration of 100ms to 1m, such as 2s"
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// rise is after how many successes in a row a backend is healthy again.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +kubebuilder:default=2
	Rise *int32 `json:"rise,omitempty"`

	// fall is after how many failures in a row a backend is not healthy any more.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +kubebuilder:default=3
	Fall *int32 `json:"fall,omitempty"`

	// udp is the datagram of type UDP.
	// +optional
	UDP *UDPCheck `json:"udp,omitempty"`

	// http is the request of type HTTP.
	// +optional
	HTTP *HTTPCheck `json:"http,omitempty"`
}

// UDPCheck sends a datagram and expects an answer.
type UDPCheck struct {
	// payload of the datagram, base64, at most 512 bytes.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=684
	Payload []byte `json:"payload"`

	// expect is what the answer begins with, base64, at most 512 bytes. Default: any answer.
	// +optional
	// +kubebuilder:validation:MaxLength=684
	Expect []byte `json:"expect,omitempty"`
}

// HTTPCheck asks for a page.
type HTTPCheck struct {
	// path is what is asked for.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.matches('^/[!-~]*$')",message="want a path that begins with / and has no spaces, such as /healthz"
	// +kubebuilder:default="/"
	Path string `json:"path,omitempty"`

	// host is the header Host. Default: the backend's address.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{1,5})?$')",message="want a host name, such as www.example.com"
	Host string `json:"host,omitempty"`

	// statuses that are healthy: numbers and ranges.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=7
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$') && (size(self) == 3 || self.substring(0, 3) <= self.substring(4))",message="want a status or a range, such as 204 or 200-399"
	// +kubebuilder:default={"200-399"}
	Statuses []string `json:"statuses,omitempty"`
}

// PolicyFailover has some backends of a route stand by.
//
// +kubebuilder:validation:XValidation:rule="!has(self.minAvailablePercent) || !has(self.recoverPercent) || self.recoverPercent >= self.minAvailablePercent",message="recoverPercent is below minAvailablePercent: groups would take turns without end"
type PolicyFailover struct {
	// backends of the route that are not in the first group. All others have priority 0:
	// at least one must be left.
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=15
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.exists_one(b, a.name == b.name && (has(a.__namespace__) ? a.__namespace__ : '') == (has(b.__namespace__) ? b.__namespace__ : '') && (has(a.port) ? a.port : 0) == (has(b.port) ? b.port : 0)))",message="the same backend is named twice: remove one"
	Backends []FailoverBackend `json:"backends"`

	// minAvailablePercent of a group's backends must be available. Below, the next group
	// gets the new connections at once.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +kubebuilder:default=1
	MinAvailablePercent *int32 `json:"minAvailablePercent,omitempty"`

	// recoverPercent of a group's backends must be available for holdTime before it gets
	// new connections again.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +kubebuilder:default=50
	RecoverPercent *int32 `json:"recoverPercent,omitempty"`

	// holdTime is how long a group must have recovered.
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('0s') && duration(self) <= duration('24h')",message="want a duration of 0s to 24h, such as 30s"
	HoldTime *metav1.Duration `json:"holdTime,omitempty"`
}

// FailoverBackend is a backendRef of the route, by what the route calls it.
type FailoverBackend struct {
	// namespace of the Service. Default: the policy's.
	// +optional
	Namespace *gwv1.Namespace `json:"namespace,omitempty"`

	// name of the Service.
	Name gwv1.ObjectName `json:"name"`

	// port of the Service. Default: every backendRef of this name.
	// +optional
	Port *gwv1.PortNumber `json:"port,omitempty"`

	// priority of the group: the smallest that is available serves.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3
	Priority int32 `json:"priority"`
}

// TargetPort says which port of a backend gets connections to a port of a range.
//
// +kubebuilder:validation:Enum=Keep;Shift
type TargetPort string

// Which port of a backend gets connections to a port of a range.
const (
	TargetKeep  TargetPort = "Keep"  // the same port
	TargetShift TargetPort = "Shift" // the Service's port, and as much higher as the port is above the listener's
)

// PolicyPorts has a listener serve more than its port.
//
// +kubebuilder:validation:XValidation:rule="has(self.endPort) != has(self.all)",message="set exactly one of endPort and all"
type PolicyPorts struct {
	// endPort is the last port of the range, which begins with the listener's port.
	// +optional
	EndPort *gwv1.PortNumber `json:"endPort,omitempty"`

	// all true: every port of the address that no listener serves.
	// +optional
	// +kubebuilder:validation:Enum=true
	All *bool `json:"all,omitempty"`

	// target is which port of a backend gets connections to a port of the range. Keep:
	// the same port. Shift: the Service's port, and as much higher as the port is above
	// the listener's.
	// +optional
	// +kubebuilder:default=Keep
	Target TargetPort `json:"target,omitempty"`
}

// PolicyOverload says what happens without backends, and in a flood.
//
// +kubebuilder:validation:XValidation:rule="has(self.noBackend) || has(self.synChallenge)",message="set noBackend or synChallenge, or remove overload"
type PolicyOverload struct {
	// noBackend is what a new connection gets while a route has no backend. Reset: a TCP
	// reset, at once. Drop: nothing, so that clients try again until there is one. UDP is
	// dropped. Default: Reset.
	// +optional
	NoBackend RefusalAction `json:"noBackend,omitempty"`

	// synChallenge has TCP clients prove that their address is not forged before they cost
	// a flow.
	//
	// The first SYN of a client is answered with a cookie that only a client at that
	// address can answer. The client answers with a reset, repeats its SYN, and is known
	// from then on. A flood of forged SYNs so leaves no trace; genuine clients lose ten
	// milliseconds with Linux, and up to a second with others.
	// +optional
	SYNChallenge *SYNChallenge `json:"synChallenge,omitempty"`
}

// ChallengeMode says when clients are challenged.
//
// +kubebuilder:validation:Enum=Never;Auto;Always
type ChallengeMode string

// When clients are challenged.
const (
	ChallengeNever  ChallengeMode = "Never"
	ChallengeAuto   ChallengeMode = "Auto"
	ChallengeAlways ChallengeMode = "Always"
)

// SYNChallenge has clients prove that their address is not forged.
type SYNChallenge struct {
	// mode says when clients are challenged. Never: not at all, also where a less specific
	// policy does. Auto: while connections begin faster than newPerSecond. Always.
	Mode ChallengeMode `json:"mode"`

	// newPerSecond, on one frontend and node, from which mode Auto challenges.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000000
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
	// conditions are Accepted and, of failover, ResolvedRefs.
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions"`
}

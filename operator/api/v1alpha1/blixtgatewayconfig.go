// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BlixtGatewayConfig holds the decisions of a Gateway's owner. The Gateway's
// infrastructure.parametersRef names it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories=blixt
// +kubebuilder:printcolumn:name="Policy",type=string,JSONPath=".spec.externalTrafficPolicy"
// +kubebuilder:printcolumn:name="Client",type=string,JSONPath=".spec.clientAddress"
// +kubebuilder:printcolumn:name="Addresses",type=string,JSONPath=".spec.addressSource"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=".metadata.creationTimestamp"
type BlixtGatewayConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	// +kubebuilder:default={}
	Spec BlixtGatewayConfigSpec `json:"spec,omitzero"`
}

// BlixtGatewayConfigList is a list of BlixtGatewayConfigs.
//
// +kubebuilder:object:root=true
type BlixtGatewayConfigList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []BlixtGatewayConfig `json:"items"`
}

// BlixtGatewayConfigSpec holds the decisions of a Gateway's owner.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.clientAddress) && self.clientAddress == 'Node' && has(self.externalTrafficPolicy) && self.externalTrafficPolicy == 'Local')",message="with externalTrafficPolicy Local all backends see the client's address: remove clientAddress Node, or use policy Cluster"
type BlixtGatewayConfigSpec struct {
	// externalTrafficPolicy Local uses only backends of the node that received
	// the connection; they see the client's address. Cluster uses all backends;
	// what those of other nodes see, clientAddress says.
	// +optional
	// +kubebuilder:validation:Enum=Cluster;Local
	// +kubebuilder:default=Cluster
	ExternalTrafficPolicy TrafficPolicy `json:"externalTrafficPolicy,omitempty"`

	// clientAddress is whose address backends on other nodes see, with policy
	// Cluster. Preserve: that of the client, wherever the nodes can preserve it.
	// Node: that of the node that received the connection.
	//
	// Preserve needs Blixt on the backend's node, and a network that lets the
	// nodes' messages pass, which nodes probe. A backend that cannot be reached so
	// goes on seeing the node's address: the Gateway's condition
	// blixt.x-k8s.io/ClientAddressPreserved says for how many backends, and why. What
	// admits the nodes' addresses only, as a NetworkPolicy or the settings of a
	// database do, must admit clients before: blixt doctor names such NetworkPolicies.
	// A change holds for new connections.
	//
	// Default: Preserve. A Gateway that was served before Blixt had this field has
	// Node until its owner sets Preserve.
	// +optional
	// +kubebuilder:validation:Enum=Preserve;Node
	ClientAddress ClientAddress `json:"clientAddress,omitempty"`

	// idleTimeouts are how long a flow without packets is kept.
	// +optional
	IdleTimeouts IdleTimeouts `json:"idleTimeouts,omitzero"`

	// flowRecords Enabled has each node remember the last flows of this Gateway, once
	// they have ended: who talked to which backend, when and how much, and why the
	// flow ended. blixt flows shows them. They contain clients' addresses. A change
	// holds for flows that begin afterwards.
	//
	// Default: Disabled; with blixt run, what --flow-records says.
	// +optional
	// +kubebuilder:validation:Enum=Enabled;Disabled
	FlowRecords FlowRecords `json:"flowRecords,omitempty"`

	// addressSource of this Gateway: one that the BlixtConfig of its class
	// allows. Default: the class's.
	// +optional
	AddressSource AddressSource `json:"addressSource,omitempty"`
}

// TrafficPolicy is which backends a node uses.
type TrafficPolicy string

// Which backends a node uses.
const (
	TrafficPolicyCluster TrafficPolicy = "Cluster"
	TrafficPolicyLocal   TrafficPolicy = "Local"
)

// ClientAddress is whose address backends on other nodes see.
type ClientAddress string

// Whose address backends on other nodes see.
const (
	ClientAddressPreserve ClientAddress = "Preserve"
	ClientAddressNode     ClientAddress = "Node"
)

// FlowRecords is whether flows are recorded.
type FlowRecords string

// Whether flows are recorded.
const (
	FlowRecordsEnabled  FlowRecords = "Enabled"
	FlowRecordsDisabled FlowRecords = "Disabled"
)

// IdleTimeouts are how long a flow without packets is kept.
type IdleTimeouts struct {
	// tcp is the timeout of TCP flows. Default: 2h15m, longer than Linux waits
	// before it sends keepalives.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('10s') && duration(self) <= duration('168h')",message="want a duration of 10s to 168h, such as 2h15m"
	TCP *metav1.Duration `json:"tcp,omitempty"`

	// udp is the timeout of UDP flows. Default: 2m, the least that RFC 4787 allows.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('5s') && duration(self) <= duration('24h')",message="want a duration of 5s to 24h, such as 90s"
	UDP *metav1.Duration `json:"udp,omitempty"`
}

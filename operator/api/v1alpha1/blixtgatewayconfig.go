// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// BlixtGatewayConfig is what the owner of a Gateway may decide: the Gateway's
// infrastructure.parametersRef names it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:categories=blixt
// +kubebuilder:printcolumn:name="Policy",type=string,JSONPath=".spec.externalTrafficPolicy"
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

// BlixtGatewayConfigSpec is what the owner of a Gateway may decide.
type BlixtGatewayConfigSpec struct {
	// externalTrafficPolicy Local uses only backends of the node that received
	// the connection, which see the client's address. Cluster uses all: those of
	// other nodes see the address of the node.
	// +optional
	// +kubebuilder:validation:Enum=Cluster;Local
	// +kubebuilder:default=Cluster
	ExternalTrafficPolicy TrafficPolicy `json:"externalTrafficPolicy,omitempty"`

	// idleTimeouts are how long a flow without packets is remembered.
	// +optional
	IdleTimeouts IdleTimeouts `json:"idleTimeouts,omitzero"`

	// addressSource of this Gateway, of those that its class allows.
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

// IdleTimeouts are how long a flow without packets is remembered.
type IdleTimeouts struct {
	// tcp is two hours and a quarter by default: longer than Linux waits before
	// it sends keepalives.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('10s') && duration(self) <= duration('168h')",message="want a duration of 10s to 168h, such as 2h15m"
	TCP *metav1.Duration `json:"tcp,omitempty"`

	// udp is one minute by default.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('5s') && duration(self) <= duration('24h')",message="want a duration of 5s to 24h, such as 90s"
	UDP *metav1.Duration `json:"udp,omitempty"`
}

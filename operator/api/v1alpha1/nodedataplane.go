// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NodeDataplane is what the kernel of one node runs and serves for Blixt. It
// has the node's name; the operator writes it, and nobody else should. What
// changes all the time (lastContact, backends, flows, version, ackedAt,
// packetsSeenAt) is up to five minutes old while nothing else changes, so that
// 1,000 nodes are some three writes a second: no column shows it, blixt status and
// the metrics of the agents have it as it is.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=blixt,shortName=ndp
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=".status.conditions[?(@.type=='Ready')].status"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=".status.conditions[?(@.type=='Ready')].reason"
// +kubebuilder:printcolumn:name="Drifted",type=string,JSONPath=".status.conditions[?(@.type=='Drifted')].status"
// +kubebuilder:printcolumn:name="Frontends",type=integer,JSONPath=".status.applications[0].frontends"
// +kubebuilder:printcolumn:name="Program",type=integer,JSONPath=".status.applications[0].programID"
// +kubebuilder:printcolumn:name="Bytecode",type=string,JSONPath=".status.applications[0].bytecode.digest",priority=1
// +kubebuilder:printcolumn:name="Kernel",type=string,JSONPath=".status.kernel",priority=1
type NodeDataplane struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Status NodeDataplaneStatus `json:"status,omitzero"`
}

// NodeDataplaneList is a list of NodeDataplanes.
//
// +kubebuilder:object:root=true
type NodeDataplaneList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []NodeDataplane `json:"items"`
}

// The conditions of a NodeDataplane.
const (
	// NodeReady is True while the node serves what it should, and Unknown when
	// its agent is not heard of: the kernel goes on serving what it has.
	NodeReady = "Ready"
	// NodeDrifted is True while the kernel holds something else than was asked
	// for: another program, fewer links, what another writer wrote.
	NodeDrifted = "Drifted"
)

// NodeDataplaneStatus is what the kernel of one node runs and serves.
type NodeDataplaneStatus struct {
	// kernel is the node's kernel release.
	// +optional
	Kernel string `json:"kernel,omitempty"`

	// lastContact is when the node's agent was heard of last.
	// +optional
	LastContact *metav1.Time `json:"lastContact,omitempty"`

	// applications are the programs of Blixt on the node, the one that takes new
	// connections first. There are two during an upgrade.
	// +optional
	// +listType=map
	// +listMapKey=name
	Applications []ApplicationStatus `json:"applications,omitempty"`

	// conditions are Ready and Drifted.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +patchStrategy=merge
	// +patchMergeKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty" patchStrategy:"merge" patchMergeKey:"type"`
}

// ApplicationStatus is one program of Blixt on a node.
type ApplicationStatus struct {
	// name of the ClusterBpfApplication.
	Name string `json:"name"`

	// bytecode that was asked for.
	Bytecode BytecodeStatus `json:"bytecode"`

	// pod of the agent that writes the maps, in the operator's namespace.
	// +optional
	Pod string `json:"pod,omitempty"`

	// programID in the kernel, as bpfman says; while pod has the maps of an
	// earlier program, that one's.
	// +optional
	ProgramID *int64 `json:"programID,omitempty"`

	// links by which packets come to the program, as bpfman says.
	// +optional
	// +listType=atomic
	Links []LinkStatus `json:"links,omitempty"`

	// layout of the maps.
	// +optional
	Layout int32 `json:"layout,omitempty"`

	// draining is true while the program serves only connections that it has.
	// +optional
	Draining bool `json:"draining,omitempty"`

	// frontends served: addresses, protocols and ports.
	// +optional
	Frontends int32 `json:"frontends"`

	// backends known.
	// +optional
	Backends int32 `json:"backends"`

	// flows at the agent's last count.
	// +optional
	Flows int64 `json:"flows"`

	// version is what the maps hold.
	// +optional
	Version StateVersion `json:"version,omitzero"`

	// ackedAt is when the agent wrote that version.
	// +optional
	AckedAt *metav1.Time `json:"ackedAt,omitempty"`

	// packetsSeenAt is when the program was last known to see packets: its
	// heartbeat.
	// +optional
	PacketsSeenAt *metav1.Time `json:"packetsSeenAt,omitempty"`
}

// BytecodeStatus identifies bytecode.
type BytecodeStatus struct {
	// image repository.
	// +optional
	Image string `json:"image,omitempty"`
	// digest of the image.
	Digest string `json:"digest"`
	// signedBy is the fingerprint (SHA-256) of the key whose signature was
	// verified, empty if none was asked for.
	// +optional
	SignedBy string `json:"signedBy,omitempty"`
}

// LinkStatus is one attachment of a program.
type LinkStatus struct {
	Interface string `json:"interface"`
	// +kubebuilder:validation:Enum=Ingress;Egress
	Direction string `json:"direction"`
	// linkID of bpfman: 32 bits without a sign.
	// +optional
	LinkID *int64 `json:"linkID,omitempty"`
	// attached as bpfman says, or why not.
	Status string `json:"status"`
}

// StateVersion orders what the operator tells agents.
type StateVersion struct {
	// epoch grows with every leader.
	Epoch int64 `json:"epoch"`
	// sequence grows with every change in an epoch.
	Sequence int64 `json:"sequence"`
}

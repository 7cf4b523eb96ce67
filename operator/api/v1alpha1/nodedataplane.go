// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NodeDataplane reports what the kernel of one node runs and serves for Blixt.
// It has the node's name. The operator writes it, and nobody else should.
//
// Fields that change constantly (lastContact, backends, flows, version,
// ackedAt, packetsSeenAt, counts and pairs of clientAddress) may be up to five minutes old, which limits writes:
// 1,000 nodes make about three a second. For current values use blixt status
// or the agents' metrics.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=blixt,shortName=ndp
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=".status.conditions[?(@.type=='Ready')].status"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=".status.conditions[?(@.type=='Ready')].reason"
// +kubebuilder:printcolumn:name="Drifted",type=string,JSONPath=".status.conditions[?(@.type=='Drifted')].status"
// +kubebuilder:printcolumn:name="Clients",type=boolean,JSONPath=".status.clientAddress.announced",priority=1
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
	// NodeReady is True while the node serves what it should, and Unknown while
	// its agent does not report: the kernel continues to serve what it has.
	NodeReady = "Ready"
	// NodeDrifted is True while the kernel differs from what was requested:
	// another program, missing links, or maps that somebody else has written.
	NodeDrifted = "Drifted"
)

// NodeDataplaneStatus reports what the kernel of one node runs and serves.
type NodeDataplaneStatus struct {
	// kernel is the node's kernel release.
	// +optional
	Kernel string `json:"kernel,omitempty"`

	// lastContact is when the node's agent last reported.
	// +optional
	LastContact *metav1.Time `json:"lastContact,omitempty"`

	// applications are Blixt's programs on the node, first the one that takes
	// new connections. There are two during an upgrade.
	// +optional
	// +listType=map
	// +listMapKey=name
	Applications []ApplicationStatus `json:"applications,omitempty"`

	// boot is the number of the kernel's boot, by which other nodes tell messages of
	// the node from those before it booted. Without it, the next one is 1.
	// +optional
	Boot *BootStatus `json:"boot,omitempty"`

	// clientAddress says whether backends on other nodes see their clients. It is
	// unset while no program on the node can announce them.
	// +optional
	ClientAddress *ClientAddressStatus `json:"clientAddress,omitempty"`

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

	// bytecode that was requested.
	Bytecode BytecodeStatus `json:"bytecode"`

	// pod of the agent that writes the maps, in the operator's namespace.
	// +optional
	Pod string `json:"pod,omitempty"`

	// programID is the program's ID in the kernel, as bpfman reports it. While
	// pod still has the maps of a previous program, it is that program's.
	// +optional
	ProgramID *int64 `json:"programID,omitempty"`

	// links attach the program to interfaces, as bpfman reports them.
	// +optional
	// +listType=atomic
	Links []LinkStatus `json:"links,omitempty"`

	// layout is the number of the maps' layout.
	// +optional
	Layout int32 `json:"layout,omitempty"`

	// draining is true while the program serves only the connections that it
	// has.
	// +optional
	Draining bool `json:"draining,omitempty"`

	// drainingSince is since when the program is to serve only the connections
	// that it has. After spec.dataplane.drainTimeout of the BlixtConfig, what is left
	// of them is cut.
	// +optional
	DrainingSince *metav1.Time `json:"drainingSince,omitempty"`

	// frontends is how many frontends are served: addresses with protocol and
	// port.
	// +optional
	Frontends int32 `json:"frontends"`

	// backends is how many backends all frontends have.
	// +optional
	Backends int32 `json:"backends"`

	// flows is how many flows the agent counted last.
	// +optional
	Flows int64 `json:"flows"`

	// version of the state that the maps hold.
	// +optional
	Version StateVersion `json:"version,omitzero"`

	// ackedAt is when the agent wrote that version.
	// +optional
	AckedAt *metav1.Time `json:"ackedAt,omitempty"`

	// packetsSeenAt is when the program was last known to see packets, its
	// heartbeat.
	// +optional
	PacketsSeenAt *metav1.Time `json:"packetsSeenAt,omitempty"`

	// answeredElsewhereAt is when a connection last began whose backend, on this
	// node, answers by an interface without the program: its client gets no
	// answer that it knows.
	// +optional
	AnsweredElsewhereAt *metav1.Time `json:"answeredElsewhereAt,omitempty"`
}

// BootStatus is a boot of a node's kernel.
type BootStatus struct {
	// id is the kernel's, a new one with each boot.
	// +kubebuilder:validation:MaxLength=64
	ID string `json:"id"`
	// number is that of the boot before and one more. After 65535 comes 1.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Number int32 `json:"number"`
}

// ClientAddressStatus says whether backends see their clients, in both directions:
// backends on other nodes those that come in by this node, and backends on this
// node those that come in by others. Counts are of the program that takes new
// connections.
type ClientAddressStatus struct {
	// announced reports whether other nodes may announce clients to this node, whose
	// program then undoes the translation of their addresses.
	Announced bool `json:"announced"`
	// reason is why they may not: EarlierVersion (agent or program undo nothing),
	// NotAcked (the maps do not hold the key yet that signs), NoHeartbeat (the program
	// sees no packets), Away (the agent has not reported), NoAddress (no address of the
	// node can be believed).
	// +optional
	Reason string `json:"reason,omitempty"`
	// message is what it comes to, in words.
	// +optional
	Message string `json:"message,omitempty"`

	// backends is how many there are on other nodes that are to see their clients.
	// +optional
	Backends int32 `json:"backends"`
	// unannounced is how many of them see this node's address, by reason: one of
	// those above if it is the other node's, NoKey (this node has none), NotProbed
	// (the other node was not asked yet), NoAnswer (something between the nodes drops
	// the messages), NoPeer (there is no Blixt on the other node).
	// +optional
	// +listType=map
	// +listMapKey=reason
	Unannounced []UnannouncedStatus `json:"unannounced,omitempty"`

	// peers is how many other nodes there are.
	// +optional
	Peers int32 `json:"peers"`
	// failing is how many of them do not answer in each form of message that they should.
	// +optional
	Failing int32 `json:"failing"`
	// pairs are some of the other nodes, the worst first.
	// +optional
	// +listType=map
	// +listMapKey=node
	// +kubebuilder:validation:MaxItems=16
	Pairs []PairStatus `json:"pairs,omitempty"`

	// ignoredAddresses are those of the node's devices that other nodes do not take for
	// its own: neither the Node object, nor its annotations, nor its podCIDRs name
	// them, or they are those of another node or of a pod.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	IgnoredAddresses []string `json:"ignoredAddresses,omitempty"`
}

// UnannouncedStatus is a number of backends that see a node's address.
type UnannouncedStatus struct {
	// reason is why they do.
	Reason string `json:"reason"`
	// backends is how many there are.
	Backends int32 `json:"backends"`
}

// PairStatus is how a node gets on with another node.
type PairStatus struct {
	// node is the other one.
	Node string `json:"node"`
	// unanswered are the forms of messages that it has not answered, as
	// "TCP/IPv4, UDP/IPv6 alone".
	// +optional
	Unanswered string `json:"unanswered,omitempty"`
	// backends is how many there are on it that see this node's address.
	// +optional
	Backends int32 `json:"backends"`
	// undone is how many connections from it were given their client's address here.
	// +optional
	Undone int64 `json:"undone"`
	// plain is how many connections from it keep its address.
	// +optional
	Plain int64 `json:"plain"`
	// refused is how many messages from it were not genuine, or too old.
	// +optional
	Refused int64 `json:"refused"`
	// asked is how often this node had to ask it for a client.
	// +optional
	Asked int64 `json:"asked"`
}

// BytecodeStatus identifies bytecode.
type BytecodeStatus struct {
	// image repository.
	// +optional
	Image string `json:"image,omitempty"`
	// digest of the image.
	Digest string `json:"digest"`
	// signedBy is the fingerprint (SHA-256) of the key whose signature was
	// verified. Empty if no key was required.
	// +optional
	SignedBy string `json:"signedBy,omitempty"`
}

// LinkStatus is one attachment of a program.
type LinkStatus struct {
	// interface that the program is attached to.
	Interface string `json:"interface"`
	// direction of the packets that it sees there.
	// +kubebuilder:validation:Enum=Ingress;Egress
	Direction string `json:"direction"`
	// linkID is bpfman's number of the link, 32 bits without a sign.
	// +optional
	LinkID *int64 `json:"linkID,omitempty"`
	// status is bpfman's: attached, or why not.
	Status string `json:"status"`
}

// StateVersion orders the states that the operator sends to agents.
type StateVersion struct {
	// epoch grows with every leader.
	Epoch int64 `json:"epoch"`
	// sequence grows with every change in an epoch.
	Sequence int64 `json:"sequence"`
}

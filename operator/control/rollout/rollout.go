// SPDX-License-Identifier: Apache-2.0

// Package rollout decides what runs on the nodes. In come the data plane of
// a BlixtConfig and what Kubernetes, bpfman and the agents say; out go the
// objects to apply and delete, who drains where, and a verdict on each node.
// It is pure: the same input gives the same output, and time is an argument.
//
// Plan says which programs there should be, Objects what to apply for them,
// Judge how each node does, and Sum what a Gateway may say of that. All of
// them look at the time: they are to be asked again after Pace, even if
// nothing has happened.
package rollout

import (
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Pace is how often to ask again while nothing happens.
const Pace = 15 * time.Second

// Release is what belongs to the operator's installation.
type Release struct {
	// Namespace of the operator, and of the agents.
	Namespace string `json:"namespace"`
	// AgentImage is the image of the agents.
	AgentImage string `json:"agentImage"`
	// Bytecode is the image used where a BlixtConfig names none, by digest.
	Bytecode string `json:"bytecode"`
	// ServiceAccount of the agents.
	ServiceAccount string `json:"serviceAccount"`
	// CAConfigMap has the certificates in ca.crt by which agents know the operator.
	CAConfigMap string `json:"caConfigMap"`
	// Operator is where agents connect to, as host:port.
	Operator string `json:"operator"`
	// Audience of the agents' tokens.
	Audience string `json:"audience"`
	// ImagePullSecrets of the agents' pods, in Namespace.
	ImagePullSecrets []string `json:"imagePullSecrets,omitempty"`
	// LogLevel of the agents; empty: their default.
	LogLevel string `json:"logLevel,omitempty"`
	// Owners of all objects: the GatewayClasses that they are for. When the last
	// of them goes, so does the data plane.
	Owners []metav1.OwnerReference `json:"owners,omitempty"`
}

// Cluster is what is known of the cluster.
type Cluster struct {
	Nodes        []corev1.Node                         `json:"nodes,omitempty"`
	Applications []bpfmanv1.ClusterBpfApplication      `json:"applications,omitempty"`
	States       []bpfmanv1.ClusterBpfApplicationState `json:"states,omitempty"`
	// Pods are those of the agents.
	Pods []corev1.Pod `json:"pods,omitempty"`
	// Reports are the agents' last words.
	Reports []lb.Report `json:"reports,omitempty"`
	// Dataplanes are as stored: they remember what an operator that has only
	// just started has not heard yet.
	Dataplanes []v1alpha1.NodeDataplane `json:"dataplanes,omitempty"`
	// Issued are the versions of the last minute or more, oldest first; the
	// last one is what agents should have.
	Issued []Issued `json:"issued,omitempty"`
	// Started is when agents could first reach this operator.
	Started time.Time `json:"started"`
	// NarrowLinkIDs tells that the CRD of the states has int32 link ids, half
	// of which the API server then refuses.
	NarrowLinkIDs bool `json:"narrowLinkIDs,omitempty"`
	// Refused says why the bytecode that is asked for must not be loaded, such
	// as that no key has signed it; empty: it may be.
	Refused string `json:"refused,omitempty"`
	// Signers has the fingerprints of the keys that have signed images.
	Signers map[string]string `json:"signers,omitempty"`
}

// Issued is a version of the state that agents are sent, and since when.
type Issued struct {
	Version lb.Version `json:"version"`
	At      time.Time  `json:"at"`
}

// Selector matches the nodes that take part.
func Selector(spec v1alpha1.Dataplane) labels.Selector {
	selector, err := metav1.LabelSelectorAsSelector(&spec.Nodes)
	if err != nil {
		return labels.Nothing() // as bpfman takes it: an error, and no node
	}
	return selector
}

// Default returns what a BlixtConfig says of the data plane, with the default
// of each field that it leaves out. Nil is a BlixtConfig that says nothing. With
// the primary interface go the tunnels that nodes tell of, by Names.
func Default(d *v1alpha1.Dataplane, r Release, nodes []corev1.Node) v1alpha1.Dataplane {
	var spec v1alpha1.Dataplane
	if d != nil {
		spec = *d.DeepCopy()
	}
	if spec.Bytecode == nil {
		spec.Bytecode = &v1alpha1.Bytecode{Image: r.Bytecode}
	}
	if i := spec.Interfaces; i.Primary == nil && i.Names == nil && i.Discover == nil {
		spec.Interfaces.Primary = new(true)
	}
	if spec.Interfaces.Primary != nil {
		spec.Interfaces.Names = tunnels(spec, nodes)
	}
	if spec.Interfaces.Discover != nil && spec.Interfaces.Discover.Exclude == nil {
		spec.Interfaces.Discover.Exclude = []string{"lo"}
	}
	if spec.Priority == nil {
		spec.Priority = new(int32(50))
	}
	if spec.SNATPorts == (v1alpha1.PortRange{}) {
		spec.SNATPorts = v1alpha1.PortRange{First: int32(lb.DefaultSNATPorts.First), Last: int32(lb.DefaultSNATPorts.Last)}
	}
	if d == nil || d.DrainTimeout.Duration == 0 {
		spec.DrainTimeout.Duration = time.Hour
	}
	if spec.Agent.Tolerations == nil {
		spec.Agent.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	}
	if spec.Agent.PriorityClassName == "" {
		spec.Agent.PriorityClassName = "system-node-critical"
	}
	return spec
}

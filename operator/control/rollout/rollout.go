// SPDX-License-Identifier: Apache-2.0

// Package rollout decides what runs on the nodes. In come the data plane of
// a BlixtConfig and what Kubernetes, bpfman and the agents report; out go the
// objects to apply and delete, which application drains where, and the status of
// each node. It is pure: the same input gives the same output, and time is an
// argument.
//
// Plan returns the applications that there are to be, Objects what to apply and
// delete for them, Judge the status of each node, and Progress how far the nodes
// are with each Gateway. Plan and Judge depend on the time: the controller calls
// them again every ten seconds even if nothing has happened.
//
// An application is a ClusterBpfApplication: one program, with maps of its own,
// on each selected node. How far it has come on a node is its phase (phase.go);
// what follows from the phases are the tables in drain.go.
package rollout

import (
	"cmp"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

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
	// CAConfigMap has, in ca.crt, the certificates by which agents recognise the
	// operator.
	CAConfigMap string `json:"caConfigMap"`
	// Operator is the host:port that agents connect to.
	Operator string `json:"operator"`
	// Audience of the agents' tokens.
	Audience string `json:"audience"`
	// ImagePullSecrets of the agents' pods, in Namespace.
	ImagePullSecrets []string `json:"imagePullSecrets,omitempty"`
	// LogLevel of the agents; empty: their default.
	LogLevel string `json:"logLevel,omitempty"`
	// Owners of all objects: the GatewayClasses that they are for. Deleting the
	// last of them deletes the data plane.
	Owners []metav1.OwnerReference `json:"owners,omitempty"`
}

// Cluster is what is known of the cluster at one moment.
type Cluster struct {
	Nodes        []corev1.Node                         `json:"nodes,omitempty"`
	Applications []bpfmanv1.ClusterBpfApplication      `json:"applications,omitempty"`
	States       []bpfmanv1.ClusterBpfApplicationState `json:"states,omitempty"`
	// Pods are those of the agents.
	Pods []corev1.Pod `json:"pods,omitempty"`
	// Reports are the last ones of the agents.
	Reports []lb.Report `json:"reports,omitempty"`
	// Dataplanes are as stored: an operator that has just started learns from
	// them what agents have not reported to it yet.
	Dataplanes []v1alpha1.NodeDataplane `json:"dataplanes,omitempty"`
	// Issued are the versions of the last minute or more, oldest first; agents
	// should have the last one.
	Issued []Issued `json:"issued,omitempty"`
	// Started is when agents could first connect to this operator.
	Started time.Time `json:"started"`
	// NarrowLinkIDs reports whether link ids are int32 in the CRD of the states:
	// the API server then refuses half of them.
	NarrowLinkIDs bool `json:"narrowLinkIDs,omitempty"`
	// Refused is why the bytecode that is asked for must not be loaded, such as
	// that no key has signed it; empty: it may be.
	Refused string `json:"refused,omitempty"`
	// Signers has, by image, the fingerprint of the key that has signed it.
	Signers map[string]string `json:"signers,omitempty"`
}

// Issued is a version of the state, and the time since which agents are sent it.
type Issued struct {
	Version lb.Version `json:"version"`
	At      time.Time  `json:"at"`
}

// Selector matches the nodes that take part.
func Selector(spec v1alpha1.Dataplane) labels.Selector {
	selector, err := metav1.LabelSelectorAsSelector(&spec.Nodes)
	if err != nil {
		return labels.Nothing() // for bpfman, too, it is an error, and selects no node
	}
	return selector
}

// Default returns the data plane of a BlixtConfig, nil: it has none, with a
// default for each field that it leaves out. If it selects the primary
// interface, Names has the tunnels that nodes announce as well.
func Default(d *v1alpha1.Dataplane, r Release, nodes []corev1.Node) v1alpha1.Dataplane {
	var spec v1alpha1.Dataplane
	if d != nil {
		spec = *d.DeepCopy()
	}
	if spec.Bytecode == nil {
		spec.Bytecode = &v1alpha1.Bytecode{}
	}
	spec.Bytecode.Image = cmp.Or(spec.Bytecode.Image, r.Bytecode)
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
	if spec.RemoteBackends.MasqueradeMark == nil {
		spec.RemoteBackends.MasqueradeMark = new(int32(lb.DefaultMasqueradeMark))
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

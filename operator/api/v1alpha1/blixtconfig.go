// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// BlixtConfig is what the administrator decides for the Gateways of a class,
// and for the data plane of the cluster's nodes: the parametersRef of a
// GatewayClass names it. A class without one has every default.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=blixt
// +kubebuilder:printcolumn:name="Addresses",type=string,JSONPath=".spec.addresses.source"
// +kubebuilder:printcolumn:name="Bytecode",type=string,JSONPath=".spec.dataplane.bytecode.image",priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=".metadata.creationTimestamp"
type BlixtConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	// +kubebuilder:default={}
	Spec BlixtConfigSpec `json:"spec,omitzero"`
}

// BlixtConfigList is a list of BlixtConfigs.
//
// +kubebuilder:object:root=true
type BlixtConfigList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []BlixtConfig `json:"items"`
}

// BlixtConfigSpec is what the administrator decides.
type BlixtConfigSpec struct {
	// dataplane says what runs on which nodes. One data plane serves a node for
	// all classes: of several BlixtConfigs that classes name, that of the oldest
	// is used, and a class whose BlixtConfig asks for another is not accepted.
	// +optional
	Dataplane *Dataplane `json:"dataplane,omitempty"`

	// addresses says where the addresses of Gateways come from, and which may
	// be asked for.
	// +optional
	// +kubebuilder:default={}
	Addresses Addresses `json:"addresses,omitzero"`
}

// Dataplane is what runs on which nodes.
type Dataplane struct {
	// bytecode is the eBPF program that bpfman loads. Default: the one that the
	// operator was released with.
	// +optional
	Bytecode *Bytecode `json:"bytecode,omitempty"`

	// interfaces are those that the program attaches to, at ingress and egress.
	// +optional
	// +kubebuilder:default={primary: true}
	Interfaces Interfaces `json:"interfaces,omitzero"`

	// priority among the programs of an interface: the lower sees packets first.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	// +kubebuilder:default=50
	Priority *int32 `json:"priority,omitempty"`

	// nodes selects the nodes that take part. Default: all.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn'] ? has(e.values) && size(e.values) > 0 : e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || size(e.values) == 0))",message="matchExpressions: operators are In and NotIn, with values, and Exists and DoesNotExist, without"
	Nodes metav1.LabelSelector `json:"nodes,omitzero"`

	// snatPorts are the source ports of connections to backends on other nodes:
	// outside the nodes' ephemeral ports and Kubernetes' node ports. A program
	// uses one half of them, so that during an upgrade two can run.
	// +optional
	// +kubebuilder:default={first: 11000, last: 29999}
	// +kubebuilder:validation:XValidation:rule="self.first != self.last",message="want two ports at least: a program uses one half of them"
	SNATPorts PortRange `json:"snatPorts,omitzero"`

	// drainTimeout is how long the program of before an upgrade may serve the
	// connections that it has. What is left then is cut.
	// +optional
	// +kubebuilder:default="1h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('0s')",message="want a duration, such as 90s or 1h30m"
	DrainTimeout metav1.Duration `json:"drainTimeout,omitzero"`

	// agent is the pod on each node that writes what the program serves.
	// +optional
	Agent Agent `json:"agent,omitzero"`
}

// Bytecode is an OCI image with an eBPF program.
type Bytecode struct {
	// image by digest: repository@sha256:…
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^@\\\\s]+@sha256:[0-9a-f]{64}$')",message="name the image by digest, as repository@sha256:<64 hexadecimal digits>: a tag may mean something else tomorrow"
	Image string `json:"image"`

	// pullSecret names a Secret of type kubernetes.io/dockerconfigjson.
	// +optional
	PullSecret *SecretReference `json:"pullSecret,omitempty"`

	// verificationKeys are public keys in PEM, as cosign writes them. An image
	// that none of them has signed is never loaded. Empty: signatures are not
	// looked at.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=4096
	// +kubebuilder:validation:items:XValidation:rule="self.trim().startsWith('-----BEGIN PUBLIC KEY-----') && self.trim().endsWith('-----END PUBLIC KEY-----')",message="want one public key in PEM, whole, from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----"
	VerificationKeys []string `json:"verificationKeys,omitempty"`
}

// SecretReference names a Secret.
type SecretReference struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// Interfaces selects network interfaces of a node, in one of three ways.
//
// +kubebuilder:validation:XValidation:rule="[has(self.primary), has(self.names), has(self.discover)].filter(x, x).size() == 1",message="set exactly one of primary, names and discover"
type Interfaces struct {
	// primary is the interface that has the node's address, with the tunnels to
	// other nodes that annotations of flannel and Calico tell of.
	// +optional
	// +kubebuilder:validation:Enum=true
	Primary *bool `json:"primary,omitempty"`

	// names of interfaces; each must exist on every node.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=15
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^[^/\\\\s]+$') && !(self in ['.', '..'])",message="want the name of an interface, such as eth0; patterns go to discover"
	Names []string `json:"names,omitempty"`

	// discover takes what is there, and what appears later.
	// +optional
	Discover *Discover `json:"discover,omitempty"`
}

// Discover takes the interfaces that are there.
type Discover struct {
	// allow limits it to these names; /x/ is a regular expression.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:XValidation:rule="self.startsWith('/') ? self.size() > 2 && self.endsWith('/') && (''.matches(self.substring(1, size(self) - 1)) ? true : true) : self.matches('^[^/\\\\s]+$')",message="want the name of an interface, or a regular expression between slashes, such as /eth[0-9]+/"
	Allow []string `json:"allow,omitempty"`

	// exclude leaves these names out.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:XValidation:rule="self.startsWith('/') ? self.size() > 2 && self.endsWith('/') && (''.matches(self.substring(1, size(self) - 1)) ? true : true) : self.matches('^[^/\\\\s]+$')",message="want the name of an interface, or a regular expression between slashes, such as /eth[0-9]+/"
	// +kubebuilder:default={lo}
	Exclude []string `json:"exclude,omitempty"`
}

// Agent is the pod on each node.
type Agent struct {
	// seccompProfile is the path of a Localhost profile, relative to the
	// kubelet's folder of profiles. Needed in namespaces that enforce Pod
	// Security "restricted"; without one the agent confines itself.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('/') && !self.split('/').exists(p, p == '..')",message="want a path below the kubelet's folder of profiles, such as profiles/blixt-agent.json"
	SeccompProfile string `json:"seccompProfile,omitempty"`

	// resources of its container.
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitzero"`

	// tolerations of taints. Default: all, as nodes that get traffic must serve it.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`

	// priorityClassName of the pod.
	// +optional
	// +kubebuilder:default=system-node-critical
	// +kubebuilder:validation:MaxLength=253
	PriorityClassName string `json:"priorityClassName,omitempty"`
}

// PortRange is a range of ports, both ends included.
//
// +kubebuilder:validation:XValidation:rule="self.first <= self.last",message="first is greater than last"
type PortRange struct {
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	First int32 `json:"first"`
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Last int32 `json:"last"`
}

// AddressSource is where the addresses of a Gateway come from.
//
// +kubebuilder:validation:Enum=LoadBalancer;Pool;Node
type AddressSource string

const (
	// SourceLoadBalancer takes what the cluster's implementation of Services of
	// type LoadBalancer assigns: a cloud, MetalLB and so on.
	SourceLoadBalancer AddressSource = "LoadBalancer"
	// SourcePool takes addresses of the pool, which the administrator has routed
	// to the nodes.
	SourcePool AddressSource = "Pool"
	// SourceNode serves on the addresses that the nodes have anyway.
	SourceNode AddressSource = "Node"
)

// Addresses says where addresses come from, and which may be asked for.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.source) && self.source == 'Pool' || has(self.alsoSources) && 'Pool' in self.alsoSources) || has(self.pool) && self.pool.size() > 0",message="source Pool needs addresses: name some in pool"
type Addresses struct {
	// source of the addresses of Gateways that do not choose one.
	// +optional
	// +kubebuilder:default=LoadBalancer
	Source AddressSource `json:"source,omitempty"`

	// alsoSources are those that a Gateway may choose by its BlixtGatewayConfig
	// besides source.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=3
	AlsoSources []AddressSource `json:"alsoSources,omitempty"`

	// loadBalancerClass of the Services of source LoadBalancer.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$')",message="want a name as labels have, such as example.com/internal"
	LoadBalancerClass *string `json:"loadBalancerClass,omitempty"`

	// pool has CIDR prefixes (192.0.2.0/28, of which every address is given
	// out), ranges (192.0.2.10-192.0.2.20) and single addresses.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=79
	// +kubebuilder:validation:items:XValidation:rule="isIP(self) || isCIDR(self) || (self.split('-').size() == 2 && self.split('-').all(a, isIP(a)) && ip(self.split('-')[0]).family() == ip(self.split('-')[1]).family())",message="want an address, a prefix or a range, such as 192.0.2.1, 192.0.2.0/28 or 192.0.2.10-192.0.2.20"
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self) || cidr(self).masked() == cidr(self)",message="the address has bits behind the prefix: write the first address of the prefix, or leave out its length"
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self) ? cidr(self).ip().isGlobalUnicast() : self.split('-').all(a, !isIP(a) || ip(a).isGlobalUnicast())",message="want addresses that one host can have: not unspecified, loopback, link-local or multicast"
	Pool []string `json:"pool,omitempty"`

	// allowed are the addresses that a Gateway may ask for in spec.addresses,
	// besides those of the pool. Of source LoadBalancer every address may be
	// asked for: whoever assigns it decides.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Allowed []AllowedAddresses `json:"allowed,omitempty"`

	// reservedPorts cannot be listened on at addresses of nodes. Node ports,
	// ephemeral ports and snatPorts are reserved always.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:default={{first: 22, last: 22}, {first: 2379, last: 2380}, {first: 6443, last: 6443}, {first: 10250, last: 10259}}
	ReservedPorts []PortRange `json:"reservedPorts,omitempty"`

	// podTraffic is who balances what pods and nodes send to the address of a
	// Gateway: Blixt, or kube-proxy, which knows no weights. Default: KubeProxy
	// for source Node, as what a node sends to itself passes no interface that
	// Blixt is attached to, where ConfigMap kube-proxy of namespace kube-system
	// has kube-proxy run, as kubeadm does; KubeProxy for source LoadBalancer with
	// policy Local, as kube-proxy answers the health checks of load balancers
	// then; Blixt for all others. What comes from outside is Blixt's always.
	// kube-proxy in mode ipvs takes addresses of other nodes for the node's own,
	// and cuts nodes off from each other: where that ConfigMap says ipvs, it is
	// Blixt for source Node, whatever is asked for. Where there is none, do not
	// ask for KubeProxy in that mode.
	// +optional
	PodTraffic PodTraffic `json:"podTraffic,omitempty"`
}

// PodTraffic is who balances what pods and nodes send to a Gateway.
//
// +kubebuilder:validation:Enum=Blixt;KubeProxy
type PodTraffic string

// Who balances what pods and nodes send.
const (
	PodTrafficBlixt     PodTraffic = "Blixt"
	PodTrafficKubeProxy PodTraffic = "KubeProxy"
)

// AllowedAddresses lets the Gateways of some namespaces ask for addresses.
type AllowedAddresses struct {
	// namespaces by their labels. Default: all.
	// +optional
	Namespaces metav1.LabelSelector `json:"namespaces,omitzero"`

	// addresses are written as those of the pool.
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=79
	// +kubebuilder:validation:items:XValidation:rule="isIP(self) || isCIDR(self) || (self.split('-').size() == 2 && self.split('-').all(a, isIP(a)) && ip(self.split('-')[0]).family() == ip(self.split('-')[1]).family())",message="want an address, a prefix or a range, such as 192.0.2.1, 192.0.2.0/28 or 192.0.2.10-192.0.2.20"
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self) || cidr(self).masked() == cidr(self)",message="the address has bits behind the prefix: write the first address of the prefix, or leave out its length"
	Addresses []string `json:"addresses"`
}

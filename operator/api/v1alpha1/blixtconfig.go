// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// BlixtConfig holds the administrator's decisions for the Gateways of a class
// and for the data plane of the cluster's nodes. The parametersRef of a
// GatewayClass names it. A class without one uses the defaults.
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

// BlixtConfigSpec holds the administrator's decisions.
type BlixtConfigSpec struct {
	// dataplane says what runs on which nodes. All classes share one data plane.
	// If classes name several BlixtConfigs with a dataplane, that of the oldest
	// BlixtConfig applies. A class whose BlixtConfig has another is not accepted.
	// +optional
	Dataplane *Dataplane `json:"dataplane,omitempty"`

	// addresses says where the addresses of Gateways come from, and which ones a
	// Gateway may request.
	// +optional
	// +kubebuilder:default={}
	Addresses Addresses `json:"addresses,omitzero"`

	// endpoints says which addresses the Services behind Gateways may have as
	// endpoints. If classes name several BlixtConfigs, the restrictions of each
	// apply to all, and so do the exceptions.
	// +optional
	Endpoints Endpoints `json:"endpoints,omitzero"`

	// quotas limit what the Gateways and ListenerSets of a namespace may use of
	// the nodes' tables, which all namespaces share. The first entry that selects
	// a namespace applies to it; a namespace that none selects has no limit. Each
	// BlixtConfig counts the Gateways of its own classes. What is served when a
	// quota is lowered goes on: only what is new is refused, with the condition
	// Programmed=False and reason NoResources. The number of objects is limited by
	// Kubernetes itself: ResourceQuota, count/gateways.gateway.networking.k8s.io.
	//
	// Example: [{namespaces: {matchLabels: {team: shop}}, frontends: 2000}, {frontends: 100, addresses: 4}]
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:default={{frontends: 1024, addresses: 64}}
	Quotas []Quota `json:"quotas,omitzero"`
}

// RemotePath is a path of packets to backends on other nodes.
type RemotePath string

// The paths that there are.
const (
	RemotePathDirect RemotePath = "Direct"
	RemotePathStack  RemotePath = "Stack"
)

// RemoteBackends says how packets reach backends on other nodes.
type RemoteBackends struct {
	// path is Direct or Stack. Direct redirects packets past the node's network stack:
	// fast, but neither the node's firewall (FORWARD) nor its IPsec policies (ip xfrm
	// policy) see them. Where nodes encrypt by IPsec policies, packets leave in clear
	// text. With Stack nothing is sent to other nodes but by the stack, so backends there
	// see the node's address, whatever clientAddress says. What is then
	// not served, and gets an ICMP error, are connections of pods and nodes to a
	// backend on another node that reach Blixt as they leave a node: have kube-proxy
	// serve them, by spec.addresses.podTraffic. A change resets the connections with
	// backends on other nodes.
	//
	// Default: Direct. Example: Stack
	// +optional
	// +kubebuilder:validation:Enum=Direct;Stack
	Path RemotePath `json:"path,omitempty"`

	// masqueradeMark are the bits of a packet's mark by which the node's NAT gives
	// packets an address of the node as their source, with path Stack. The default is
	// bit 14, by which kube-proxy does so (its --iptables-masquerade-bit). 0: none;
	// then backends must send their answers by the node that the packets came from.
	//
	// Example: 16384
	// +optional
	// +kubebuilder:validation:Minimum=0
	MasqueradeMark *int32 `json:"masqueradeMark,omitempty"`
}

// Quota limits what namespaces may use. Each of them has the whole quota.
type Quota struct {
	// namespaces that the quota is for. Default: all.
	// +optional
	Namespaces metav1.LabelSelector `json:"namespaces,omitzero"`

	// frontends is the number of frontends: one for each listener at each address
	// of its Gateway. All addresses of nodes of a family, IPv4 or IPv6, count as
	// one. Listeners of a ListenerSet count for the namespace of the ListenerSet.
	// Default: no limit.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Frontends *int32 `json:"frontends,omitempty"`

	// addresses is the number of addresses that Gateways hold. Those of nodes are
	// free. Default: no limit.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Addresses *int32 `json:"addresses,omitempty"`
}

// Endpoints says which addresses Services may have as endpoints. Who may write
// EndpointSlices may name any address in them. Of what belongs to the cluster, a
// Service reaches pods of its own namespace alone: never nodes, ClusterIPs, pods of
// other namespaces, or link-local addresses. Addresses outside the cluster, such as
// those of databases and virtual machines, are served.
type Endpoints struct {
	// strict serves pods of the Service's own namespace alone, and nothing outside
	// the cluster.
	// +optional
	// +kubebuilder:default=false
	Strict bool `json:"strict,omitempty"`

	// podCIDRs are prefixes in which only addresses of pods of the Service's own
	// namespace are served, besides spec.podCIDRs of the nodes: where the CNI
	// assigns pods' addresses itself (10.244.0.0/16), and other networks that
	// tenants must not reach from nodes. Written as in addresses.pool.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=79
	// +kubebuilder:validation:items:XValidation:rule="isIP(self) || isCIDR(self) || (self.split('-').size() == 2 && self.split('-').all(a, isIP(a)) && ip(self.split('-')[0]).family() == ip(self.split('-')[1]).family())",message="want an address, a prefix or a range, such as 192.0.2.1, 192.0.2.0/28 or 192.0.2.10-192.0.2.20"
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self) || cidr(self).masked() == cidr(self)",message="the address has bits behind the prefix: write the first address of the prefix, or leave out its length"
	PodCIDRs []string `json:"podCIDRs,omitempty"`

	// allowed are exceptions: the Services of some namespaces may have these
	// addresses as endpoints, whatever they belong to. Example: a daemon of the
	// nodes that is no pod.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Allowed []AllowedAddresses `json:"allowed,omitempty"`
}

// Dataplane is what runs on which nodes.
type Dataplane struct {
	// bytecode is the image of the eBPF program that bpfman loads. Default: the
	// one that the operator was installed with.
	// +optional
	Bytecode *Bytecode `json:"bytecode,omitempty"`

	// interfaces are the network interfaces that the program attaches to, at
	// ingress and egress.
	// +optional
	// +kubebuilder:default={primary: true}
	Interfaces Interfaces `json:"interfaces,omitzero"`

	// priority among bpfman's programs of an interface. The program with the
	// lowest number sees packets first.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	// +kubebuilder:default=50
	Priority *int32 `json:"priority,omitempty"`

	// nodes selects the nodes that take part. Default: all.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn'] ? has(e.values) && size(e.values) > 0 : e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || size(e.values) == 0))",message="matchExpressions: operators are In and NotIn, with values, and Exists and DoesNotExist, without"
	Nodes metav1.LabelSelector `json:"nodes,omitzero"`

	// snatPorts are the source ports of connections to backends on other nodes.
	// They must not overlap the nodes' ephemeral ports or Kubernetes' node ports.
	// A program uses two thirds of them, and one third while there is another one
	// during an upgrade.
	// +optional
	// +kubebuilder:default={first: 11000, last: 29999}
	// +kubebuilder:validation:XValidation:rule="self.first != self.last",message="want two ports at least: two programs run during an upgrade"
	SNATPorts PortRange `json:"snatPorts,omitzero"`

	// remoteBackends says how packets reach backends on other nodes.
	// +optional
	RemoteBackends RemoteBackends `json:"remoteBackends,omitzero"`

	// drainTimeout is how long the previous program may serve its connections on a
	// node, after the next one has taken over there. Those that are left then are cut.
	// A node where the next one has not taken over, drainTimeout after the first
	// node, loses the previous one as well, so that it holds up no other: as long as it
	// is the only one, or among a tenth of the nodes.
	// +optional
	// +kubebuilder:default="1h"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('0s')",message="want a duration, such as 90s or 1h30m"
	DrainTimeout metav1.Duration `json:"drainTimeout,omitzero"`

	// agent configures the pod on each node that writes the program's maps.
	// +optional
	Agent Agent `json:"agent,omitzero"`
}

// Bytecode is an OCI image with an eBPF program.
type Bytecode struct {
	// image by digest: repository@sha256:… Default: that of the operator, which the
	// chart names.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^[^@\\\\s]+@sha256:[0-9a-f]{64}$')",message="name the image by digest, as repository@sha256:<64 hexadecimal digits>: a tag may mean something else tomorrow"
	Image string `json:"image,omitempty"`

	// pullSecret names a Secret of type kubernetes.io/dockerconfigjson.
	// +optional
	PullSecret *SecretReference `json:"pullSecret,omitempty"`

	// verificationKeys are public keys in PEM, as cosign writes them. An image
	// that none of them has signed is never loaded. Empty: signatures are not
	// verified.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=4096
	// +kubebuilder:validation:items:XValidation:rule="self.trim().startsWith('-----BEGIN PUBLIC KEY-----') && self.trim().endsWith('-----END PUBLIC KEY-----')",message="want one public key in PEM, whole, from -----BEGIN PUBLIC KEY----- to -----END PUBLIC KEY-----"
	VerificationKeys []string `json:"verificationKeys,omitempty"`
}

// SecretReference names a Secret.
type SecretReference struct {
	// namespace of the Secret.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
	// name of the Secret.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// Interfaces selects network interfaces of a node, in one of three ways. It is atomic: whoever applies
// another way takes back the way before, and the default, which nobody owns.
//
// +structType=atomic
// +kubebuilder:validation:XValidation:rule="[has(self.primary), has(self.names), has(self.discover)].filter(x, x).size() == 1",message="set exactly one of primary, names and discover"
type Interfaces struct {
	// primary selects the interface that has the node's address, and the tunnels
	// to other nodes that flannel and Calico have annotated the nodes with.
	// +optional
	// +kubebuilder:validation:Enum=true
	Primary *bool `json:"primary,omitempty"`

	// names of interfaces. Each must exist on every node.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=15
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^[^/\\\\s]+$') && !(self in ['.', '..'])",message="want the name of an interface, such as eth0; patterns go to discover"
	Names []string `json:"names,omitempty"`

	// discover selects the interfaces that exist, and those that appear later.
	// +optional
	Discover *Discover `json:"discover,omitempty"`
}

// Discover selects interfaces as they appear.
type Discover struct {
	// allow limits the selection to these names. /x/ is a regular expression.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:XValidation:rule="self.startsWith('/') ? self.size() > 2 && self.endsWith('/') && (''.matches(self.substring(1, size(self) - 1)) ? true : true) : self.matches('^[^/\\\\s]+$')",message="want the name of an interface, or a regular expression between slashes, such as /eth[0-9]+/"
	Allow []string `json:"allow,omitempty"`

	// exclude leaves these names out. /x/ is a regular expression.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:XValidation:rule="self.startsWith('/') ? self.size() > 2 && self.endsWith('/') && (''.matches(self.substring(1, size(self) - 1)) ? true : true) : self.matches('^[^/\\\\s]+$')",message="want the name of an interface, or a regular expression between slashes, such as /eth[0-9]+/"
	// +kubebuilder:default={lo}
	Exclude []string `json:"exclude,omitempty"`
}

// Agent configures the agents' pods.
type Agent struct {
	// seccompProfile is the path of a Localhost profile, relative to the
	// kubelet's folder of profiles. It is needed in namespaces that enforce Pod
	// Security "restricted". The agent confines itself with or without one.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('/') && !self.split('/').exists(p, p == '..')",message="want a path below the kubelet's folder of profiles, such as profiles/blixt-agent.json"
	SeccompProfile string `json:"seccompProfile,omitempty"`

	// routeMetrics is which frontends and backendRefs have metrics of their own, on
	// each node: all; seen: those of which the node has seen a packet; off. Each node
	// serves all of them, so with many nodes and many frontends there may be too many.
	// Default: seen.
	// +optional
	// +kubebuilder:validation:Enum=all;seen;off
	RouteMetrics string `json:"routeMetrics,omitempty"`

	// flowLog has agents write a line of JSON to their standard output, stdout, for each
	// flow that has ended, if its Gateway records flows, and for samples of packets that
	// are rejected or dropped: for what collects the logs of pods. Lines name clients.
	// Default: nothing is written.
	// +optional
	// +kubebuilder:validation:Enum=stdout;none
	FlowLog string `json:"flowLog,omitempty"`

	// resources of the agent's container.
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitzero"`

	// tolerations of the agents' pods. Default: all taints, as every node that
	// receives traffic must serve it.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`

	// priorityClassName of the agents' pods.
	// +optional
	// +kubebuilder:default=system-node-critical
	// +kubebuilder:validation:MaxLength=253
	PriorityClassName string `json:"priorityClassName,omitempty"`
}

// PortRange is a range of ports, both ends included.
//
// +kubebuilder:validation:XValidation:rule="self.first <= self.last",message="first is greater than last"
type PortRange struct {
	// first port of the range.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	First int32 `json:"first"`
	// last port of the range.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Last int32 `json:"last"`
}

// ProtocolPorts is a range of ports, both ends included, of one protocol or of
// both.
//
// +kubebuilder:validation:XValidation:rule="self.first <= self.last",message="first is greater than last"
type ProtocolPorts struct {
	// protocol of the ports. Default: TCP and UDP.
	// +optional
	// +kubebuilder:validation:Enum=TCP;UDP
	Protocol corev1.Protocol `json:"protocol,omitempty"`
	// first port of the range.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	First int32 `json:"first"`
	// last port of the range.
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

// Addresses says where addresses come from, and which ones a Gateway may
// request.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.source) && self.source == 'Pool' || has(self.alsoSources) && 'Pool' in self.alsoSources) || has(self.pool) && self.pool.size() > 0",message="source Pool needs addresses: name some in pool"
type Addresses struct {
	// source of addresses for Gateways that do not choose one.
	// +optional
	// +kubebuilder:default=LoadBalancer
	Source AddressSource `json:"source,omitempty"`

	// alsoSources are further sources that a Gateway may choose by its
	// BlixtGatewayConfig.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=3
	AlsoSources []AddressSource `json:"alsoSources,omitempty"`

	// loadBalancerClass of the Services that source LoadBalancer creates.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$')",message="want a name as labels have, such as example.com/internal"
	LoadBalancerClass *string `json:"loadBalancerClass,omitempty"`

	// pool lists the addresses of source Pool: CIDR prefixes (192.0.2.0/28; every
	// address in it is used), ranges (192.0.2.10-192.0.2.20) and single addresses.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=79
	// +kubebuilder:validation:items:XValidation:rule="isIP(self) || isCIDR(self) || (self.split('-').size() == 2 && self.split('-').all(a, isIP(a)) && ip(self.split('-')[0]).family() == ip(self.split('-')[1]).family())",message="want an address, a prefix or a range, such as 192.0.2.1, 192.0.2.0/28 or 192.0.2.10-192.0.2.20"
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self) || cidr(self).masked() == cidr(self)",message="the address has bits behind the prefix: write the first address of the prefix, or leave out its length"
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self) ? cidr(self).ip().isGlobalUnicast() : self.split('-').all(a, !isIP(a) || ip(a).isGlobalUnicast())",message="want addresses that one host can have: not unspecified, loopback, link-local or multicast"
	Pool []string `json:"pool,omitempty"`

	// allowed lists the addresses that a Gateway may request in spec.addresses,
	// besides those of the pool. With source LoadBalancer a Gateway may request
	// any address: the load balancer decides.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Allowed []AllowedAddresses `json:"allowed,omitempty"`

	// shared lists addresses, written as in pool, that Gateways of several
	// namespaces may request at the same time, as long as their ports differ. A
	// port belongs to the Gateway that serves it first. Other addresses are shared
	// within a namespace only: whoever shares an address with you can serve a port
	// that your clients trust. Addresses of nodes are always shared. An address
	// listed here is assigned only on request. List it in pool or allowed as well,
	// unless the source is LoadBalancer.
	//
	// Example: [192.0.2.53]
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=79
	// +kubebuilder:validation:items:XValidation:rule="isIP(self) || isCIDR(self) || (self.split('-').size() == 2 && self.split('-').all(a, isIP(a)) && ip(self.split('-')[0]).family() == ip(self.split('-')[1]).family())",message="want an address, a prefix or a range, such as 192.0.2.1, 192.0.2.0/28 or 192.0.2.10-192.0.2.20"
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self) || cidr(self).masked() == cidr(self)",message="the address has bits behind the prefix: write the first address of the prefix, or leave out its length"
	Shared []string `json:"shared,omitempty"`

	// allowedPorts are the ports of the nodes' addresses that a listener may get.
	// A range does not allow the ports by which nodes are reached and run the
	// cluster: SSH, DHCP, NTP, rpcbind, BGP and BFD, tunnels (VXLAN, Geneve,
	// WireGuard, IPsec), etcd, the API server, the kubelet and its neighbours,
	// ports of CNIs and of MetalLB, node-exporter. An entry of one port, such as {protocol: TCP,
	// first: 9100, last: 9100}, does. Nothing allows node ports, ephemeral ports
	// and the ports of tunnels that the nodes are known to have. A listener that
	// is served already keeps its port, with a warning.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:default={{first: 53, last: 53}, {first: 80, last: 80}, {first: 443, last: 443}, {first: 1024, last: 65535}}
	AllowedPorts []ProtocolPorts `json:"allowedPorts,omitempty"`

	// reservedPorts are ports of the nodes' addresses that no listener may use,
	// whatever allowedPorts says, and even if it is served already. Default: none
	// beyond what allowedPorts excludes.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	ReservedPorts []ProtocolPorts `json:"reservedPorts,omitempty"`

	// podTraffic is who balances the traffic of pods and nodes to the address of
	// a Gateway: Blixt, or KubeProxy, which ignores weights. Blixt always
	// balances traffic from outside the cluster.
	//
	// Defaults: KubeProxy for source Node if ConfigMap kube-system/kube-proxy
	// exists, as with kubeadm, because traffic of a node to itself passes no
	// interface that Blixt is attached to. KubeProxy for source LoadBalancer with
	// externalTrafficPolicy Local, because kube-proxy then answers the health
	// checks of load balancers. Blixt otherwise.
	//
	// In mode ipvs kube-proxy would treat the addresses of other nodes as the
	// node's own and cut nodes off from each other. If that ConfigMap sets mode
	// ipvs, source Node uses Blixt regardless of this field. If it does not
	// exist, do not set KubeProxy with that mode.
	// +optional
	PodTraffic PodTraffic `json:"podTraffic,omitempty"`
}

// PodTraffic is who balances the traffic of pods and nodes to a Gateway.
//
// +kubebuilder:validation:Enum=Blixt;KubeProxy
type PodTraffic string

// Who balances the traffic of pods and nodes.
const (
	PodTrafficBlixt     PodTraffic = "Blixt"
	PodTrafficKubeProxy PodTraffic = "KubeProxy"
)

// AllowedAddresses allows some namespaces some addresses.
type AllowedAddresses struct {
	// namespaces that may have the addresses. Default: all.
	// +optional
	Namespaces metav1.LabelSelector `json:"namespaces,omitzero"`

	// addresses that they may have, written as in pool.
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=79
	// +kubebuilder:validation:items:XValidation:rule="isIP(self) || isCIDR(self) || (self.split('-').size() == 2 && self.split('-').all(a, isIP(a)) && ip(self.split('-')[0]).family() == ip(self.split('-')[1]).family())",message="want an address, a prefix or a range, such as 192.0.2.1, 192.0.2.0/28 or 192.0.2.10-192.0.2.20"
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self) || cidr(self).masked() == cidr(self)",message="the address has bits behind the prefix: write the first address of the prefix, or leave out its length"
	Addresses []string `json:"addresses"`
}

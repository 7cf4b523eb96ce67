// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// clientPolicies: a NetworkPolicy that lets in the addresses of nodes, for the sake of
// what nodes translate, cuts clients off once backends see their addresses.
func clientPolicies(f *Facts) (string, []Finding) {
	sources := f.nodeSources()
	var wrong []Finding
	for _, u := range f.uses() {
		for i := range f.Backends {
			pod := &f.Backends[i]
			if pod.Spec.HostNetwork || pod.Namespace != u.service.Namespace || !labels.SelectorFromSet(u.service.Spec.Selector).Matches(labels.Set(pod.Labels)) {
				continue
			}
			let := f.letIn(pod, u.service, sources)
			if let.everybody || len(let.nodes) == 0 {
				continue
			}
			seen := fmt.Sprintf("it lets in %s, where nodes are, but not every client, to pods of Service %s/%s", phrase.Sample(let.nodes), u.service.Namespace, u.service.Name)
			if u.inForce {
				wrong = append(wrong, warning(let.policy, seen+": clients of "+u.gateway+" that have other addresses are cut off, as backends see the client's address",
					"Let in the networks of the clients (ingress: [{from: [{ipBlock: {cidr: ...}}]}]), unless all clients have these addresses; or set clientAddress Node in the BlixtGatewayConfig of "+u.gateway+"."))
			} else {
				wrong = append(wrong, Finding{Verdict: OK, Object: let.policy, Seen: seen + "; backends of " + u.gateway + " see the addresses of nodes",
					Remedy: "Before clientAddress Preserve is set for " + u.gateway + ", let in the networks of the clients."})
			}
			break // of pods of a Service one tells enough
		}
	}
	return "no NetworkPolicy lets in nodes and not the clients that backends see", wrong
}

// use is a Service behind a Gateway.
type use struct {
	service *corev1.Service
	gateway string
	// inForce: its backends see the client's address. Otherwise they would if the
	// Gateway's owner chose so.
	inForce bool
}

// uses returns the Services of Gateways whose backends see the client's address, or have
// seen that of nodes since before there was a choice.
func (f *Facts) uses() []use {
	gateways := map[types.NamespacedName]*gwv1.Gateway{}
	for i := range f.Gateways {
		gateways[types.NamespacedName{Namespace: f.Gateways[i].Namespace, Name: f.Gateways[i].Name}] = &f.Gateways[i]
	}
	sets := map[types.NamespacedName]types.NamespacedName{}
	for i := range f.ListenerSets {
		s := &f.ListenerSets[i]
		sets[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = nameOf(s.Namespace, s.Spec.ParentRef.Namespace, string(s.Spec.ParentRef.Name))
	}
	services := map[types.NamespacedName]*corev1.Service{}
	for i := range f.Services {
		services[types.NamespacedName{Namespace: f.Services[i].Namespace, Name: f.Services[i].Name}] = &f.Services[i]
	}
	found := map[use]bool{}
	objects := gateway.Objects{TCPRoutes: f.TCPRoutes, UDPRoutes: f.UDPRoutes}
	for _, r := range objects.Routes() {
		for _, parent := range r.Status.Parents {
			name := nameOf(r.Meta.Namespace, parent.ParentRef.Namespace, string(parent.ParentRef.Name))
			if kind := parent.ParentRef.Kind; kind != nil && *kind == "ListenerSet" {
				name = sets[name]
			}
			gw := gateways[name]
			if parent.ControllerName != gateway.ControllerName || gw == nil || !meta.IsStatusConditionTrue(parent.Conditions, string(gwv1.RouteConditionAccepted)) {
				continue
			}
			preserved := meta.FindStatusCondition(gw.Status.Conditions, gateway.GatewayConditionClientAddressPreserved)
			if preserved == nil {
				continue
			}
			for _, refs := range r.Rules {
				for _, ref := range refs {
					if s := services[nameOf(r.Meta.Namespace, ref.Namespace, string(ref.Name))]; s != nil && len(s.Spec.Selector) > 0 {
						found[use{s, at("Gateway", gw), !gateway.KeepsNode(*preserved)}] = true
					}
				}
			}
		}
	}
	var all []use
	for u := range found {
		all = append(all, u)
	}
	slices.SortFunc(all, func(a, b use) int {
		return cmp.Or(cmp.Compare(a.gateway, b.gateway), cmp.Compare(a.service.Namespace, b.service.Namespace), cmp.Compare(a.service.Name, b.service.Name))
	})
	return all
}

func nameOf(own string, namespace *gwv1.Namespace, name string) types.NamespacedName {
	if namespace != nil && *namespace != "" {
		own = string(*namespace)
	}
	return types.NamespacedName{Namespace: own, Name: name}
}

// nodeSources returns the addresses that nodes send from: their own, and those of the
// ends of tunnels and of bridges of network plugins, at the begin of podCIDRs.
func (f *Facts) nodeSources() []netip.Addr {
	var all []netip.Addr
	for i := range f.Nodes {
		n := &f.Nodes[i]
		for _, a := range n.Status.Addresses {
			if addr, err := netip.ParseAddr(a.Address); err == nil {
				all = append(all, addr)
			}
		}
		for _, text := range n.Spec.PodCIDRs {
			if p, err := netip.ParsePrefix(text); err == nil {
				all = append(all, p.Masked().Addr(), p.Masked().Addr().Next())
			}
		}
		all = append(all, rollout.NodeAddresses(n)...)
	}
	return all
}

// admitted is whom NetworkPolicies let in to the port of a pod.
type admitted struct {
	// everybody is true if no policy is about the pod, or one lets in all.
	everybody bool
	// nodes are blocks with addresses that nodes send from, and policy is the first one
	// that has some.
	nodes  []string
	policy string
}

// letIn returns whom policies let in to the ports of a Service at one of its pods.
func (f *Facts) letIn(pod *corev1.Pod, service *corev1.Service, sources []netip.Addr) admitted {
	a := admitted{everybody: true}
	for i := range f.NetworkPolicies {
		p := &f.NetworkPolicies[i]
		selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		// Without policyTypes a policy is about ingress.
		if err != nil || p.Namespace != pod.Namespace || !selector.Matches(labels.Set(pod.Labels)) ||
			len(p.Spec.PolicyTypes) > 0 && !slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress) {
			continue
		}
		a.everybody = false
		for _, rule := range p.Spec.Ingress {
			if !slices.ContainsFunc(service.Spec.Ports, func(port corev1.ServicePort) bool { return isFor(rule.Ports, pod, port) }) {
				continue
			}
			if len(rule.From) == 0 {
				return admitted{everybody: true}
			}
			for _, peer := range rule.From {
				if peer.IPBlock == nil {
					continue
				}
				block, err := netip.ParsePrefix(peer.IPBlock.CIDR)
				switch {
				case err != nil:
				case block.Bits() == 0:
					return admitted{everybody: true}
				case slices.ContainsFunc(sources, block.Contains) && !slices.Contains(a.nodes, block.String()):
					a.nodes, a.policy = append(a.nodes, block.String()), cmp.Or(a.policy, at("NetworkPolicy", p))
				}
			}
		}
	}
	return a
}

// isFor reports whether a rule for ports is about the port of the pod that a Service's
// leads to.
func isFor(ports []networkingv1.NetworkPolicyPort, pod *corev1.Pod, of corev1.ServicePort) bool {
	protocol := cmp.Or(of.Protocol, corev1.ProtocolTCP)
	number := resolve(of.TargetPort, pod, protocol)
	if of.TargetPort == (intstr.IntOrString{}) {
		number = of.Port
	}
	return len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		if p.Protocol != nil && *p.Protocol != protocol {
			return false
		}
		if p.Port == nil {
			return true
		}
		first := resolve(*p.Port, pod, protocol)
		last := first
		if p.EndPort != nil {
			last = *p.EndPort
		}
		return first <= number && number <= last
	})
}

// resolve returns the number of a port that may be named; 0: no container has it.
func resolve(port intstr.IntOrString, pod *corev1.Pod, protocol corev1.Protocol) int32 {
	if port.Type == intstr.Int {
		return port.IntVal
	}
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == port.StrVal && cmp.Or(p.Protocol, corev1.ProtocolTCP) == protocol {
				return p.ContainerPort
			}
		}
	}
	return 0
}

// preserved: what the operator says of Gateways, whose owners may not see why, and of the
// nodes and pairs of nodes that it is due to.
func preserved(f *Facts) (string, []Finding) {
	var wrong []Finding
	kept, inForce := 0, false
	for i := range f.Gateways {
		gw := &f.Gateways[i]
		c := meta.FindStatusCondition(gw.Status.Conditions, gateway.GatewayConditionClientAddressPreserved)
		switch {
		case c == nil:
		case gateway.KeepsNode(*c):
			kept++
		default:
			inForce = true
			if c.Status == metav1.ConditionFalse {
				wrong = append(wrong, warning(at("Gateway", gw), c.Message,
					"Repair the nodes that this check names. docs/client-address.md has what each reason means; set clientAddress Node in a BlixtGatewayConfig if that is as it should be."))
			}
		}
	}
	if inForce {
		for i := range f.Dataplanes {
			wrong = append(wrong, notAnnounced(&f.Dataplanes[i])...)
		}
	}
	fine := "where Gateways preserve clients' addresses, all backends see them"
	if kept > 0 {
		fine += fmt.Sprintf("; %d Gateways do not, as they were served before Blixt could, or as their owners chose", kept)
	}
	return fine, wrong
}

// notAnnounced returns what keeps a node's backends, or those of others, from seeing their
// clients.
func notAnnounced(d *v1alpha1.NodeDataplane) (wrong []Finding) {
	object, c := "NodeDataplane "+d.Name, d.Status.ClientAddress
	if c == nil {
		if len(d.Status.Applications) > 0 {
			wrong = append(wrong, warning(object, "status.clientAddress is not there: the program or the agent is of a version that announces no clients, and undoes nothing",
				"Wait for the upgrade of the bytecode and of the agents, or see why it is held up: kubectl describe nodedataplane "+d.Name))
		}
		return wrong
	}
	if !c.Announced {
		wrong = append(wrong, warning(object, "status.clientAddress.announced is false, "+c.Reason+": "+c.Message,
			"If that stays for a minute: look at the log of the agent on node "+d.Name+", and kubectl describe nodedataplane "+d.Name))
	}
	for _, pair := range c.Pairs {
		if pair.Unanswered != "" {
			wrong = append(wrong, warning(object, "node "+pair.Node+" does not answer messages of this node by "+pair.Unanswered+": something between the nodes drops them", "Let pass between the nodes "+phrase.Join(letPass(pair.Unanswered))+". Backends on "+pair.Node+" see this node's address if neither form of a protocol passes, and nothing else is lost."))
		}
	}
	if len(c.IgnoredAddresses) > 0 {
		wrong = append(wrong, warning(object, "status.clientAddress.ignoredAddresses has "+phrase.Sample(c.IgnoredAddresses)+": other nodes do not believe that these are this node's, and undo nothing from there",
			"If packets to backends have such an address as their source, name it in the Node's status.addresses, or have the network plugin announce it by its annotations."))
	}
	return wrong
}

// letPass returns what a firewall has to let pass for messages of some forms.
func letPass(forms string) (all []string) {
	packets := []struct{ form, what string }{
		{"TCP/", "SYNs with 42 bytes of data"},
		{"TCP/ alone", "TCP option 253"},
		{"UDP/", "datagrams that are longer by IP than by UDP (RFC 9868)"},
		{"UDP/ alone", "the same of empty datagrams"},
	}
	for _, p := range packets {
		if slices.ContainsFunc(strings.Split(forms, ", "), func(form string) bool {
			return strings.NewReplacer("IPv4", "", "IPv6", "").Replace(form) == p.form
		}) {
			all = append(all, p.what)
		}
	}
	return all
}

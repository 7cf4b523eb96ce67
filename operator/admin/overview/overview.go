// SPDX-License-Identifier: Apache-2.0

// Package overview tells whether all is well in a cluster: its operator, nodes and
// Gateways, and what blixt doctor finds. It is pure.
package overview

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// Cluster is what Blixt is and does in a cluster.
type Cluster struct {
	Kubernetes string   `json:"kubernetes"`
	Operator   Operator `json:"operator"`
	Nodes      []Node   `json:"nodes"`
	// Gateways are those of Blixt, of which Programmed are served.
	Gateways   int `json:"gateways"`
	Programmed int `json:"programmed"`
	// Policies counts BlixtPolicies by gateway.PolicyReason.
	Policies map[string]int `json:"policies,omitempty"`
}

// Operator is the Deployment of the operator.
type Operator struct {
	Image string `json:"image,omitempty"`
	Ready int32  `json:"ready"`
	// Leader is the pod that holds the Lease.
	Leader string `json:"leader,omitempty"`
}

// Node is a node with a NodeDataplane.
type Node struct {
	Name string `json:"name"`
	// Ready is the status of that condition, and Reason its reason.
	Ready     metav1.ConditionStatus `json:"ready"`
	Reason    string                 `json:"reason"`
	Drifted   bool                   `json:"drifted,omitempty"`
	Frontends int32                  `json:"frontends"`
	Backends  int32                  `json:"backends"`
	Flows     int64                  `json:"flows"`
	Bytecode  string                 `json:"bytecode,omitempty"` // digest
	Kernel    string                 `json:"kernel,omitempty"`
	// Contact is when the agent last reported, up to five minutes ago.
	Contact *time.Time `json:"contact,omitempty"`
}

// New returns what Facts say of a cluster, nodes that are not ready first.
func New(f *doctor.Facts) *Cluster {
	c := &Cluster{Kubernetes: f.Version, Nodes: []Node{}}
	if d := kube.Named(f.Deployments, v1alpha1.Operator); d != nil {
		c.Operator.Ready = d.Status.ReadyReplicas
		if i := slices.IndexFunc(d.Spec.Template.Spec.Containers, func(c corev1.Container) bool { return c.Image != "" }); i >= 0 {
			c.Operator.Image = d.Spec.Template.Spec.Containers[i].Image
		}
	}
	if l := kube.Named(f.Leases, v1alpha1.Operator); l != nil && l.Spec.HolderIdentity != nil {
		c.Operator.Leader = *l.Spec.HolderIdentity
	}
	for i := range f.Dataplanes {
		c.Nodes = append(c.Nodes, newNode(&f.Dataplanes[i]))
	}
	slices.SortFunc(c.Nodes, func(a, b Node) int { return cmp.Or(a.rank()-b.rank(), strings.Compare(a.Name, b.Name)) })
	for i := range f.Gateways {
		if g := &f.Gateways[i]; Ours(f, g) {
			c.Gateways++
			if is := condition(g.Status.Conditions, string(gwv1.GatewayConditionProgrammed)); is != nil && is.Status == metav1.ConditionTrue {
				c.Programmed++
			}
		}
	}
	for i := range f.BlixtPolicies {
		if c.Policies == nil {
			c.Policies = map[string]int{}
		}
		c.Policies[cmp.Or(gateway.PolicyReason(&f.BlixtPolicies[i].Status), "Unknown")]++
	}
	return c
}

func newNode(d *v1alpha1.NodeDataplane) Node {
	n := Node{Name: d.Name, Ready: metav1.ConditionUnknown, Kernel: d.Status.Kernel}
	if c := condition(d.Status.Conditions, v1alpha1.NodeReady); c != nil {
		n.Ready, n.Reason = c.Status, c.Reason
	}
	c := condition(d.Status.Conditions, v1alpha1.NodeDrifted)
	n.Drifted = c != nil && c.Status == metav1.ConditionTrue
	if len(d.Status.Applications) > 0 {
		a := d.Status.Applications[0]
		n.Frontends, n.Backends, n.Flows, n.Bytecode = a.Frontends, a.Backends, a.Flows, a.Bytecode.Digest
	}
	if d.Status.LastContact != nil {
		n.Contact = &d.Status.LastContact.Time
	}
	return n
}

// rank is smaller the worse a node is.
func (n Node) rank() int {
	switch {
	case n.Ready == metav1.ConditionFalse:
		return 0
	case n.Drifted:
		return 1
	case n.Ready == metav1.ConditionUnknown:
		return 2
	}
	return 3
}

func condition(all []metav1.Condition, kind string) *metav1.Condition {
	for i := range all {
		if all[i].Type == kind {
			return &all[i]
		}
	}
	return nil
}

// Ours reports whether a Gateway is of a class of Blixt.
func Ours(f *doctor.Facts, g *gwv1.Gateway) bool {
	return slices.ContainsFunc(f.Classes, func(c gwv1.GatewayClass) bool {
		return c.Name == string(g.Spec.GatewayClassName) && c.Spec.ControllerName == gateway.ControllerName
	})
}

// Check returns what is not well, the worst first, and as bad as each other in the order
// in which to repair: what blixt doctor finds, then Gateways, routes and policies.
func Check(f *doctor.Facts) []finding.Finding {
	var all []finding.Finding
	for _, found := range doctor.Check(f) {
		if found.Verdict != finding.OK {
			all = append(all, found)
		}
	}
	for i := range f.Gateways {
		if g := &f.Gateways[i]; Ours(f, g) {
			all = append(all, CheckGateway(g)...)
		}
	}
	for i := range f.TCPRoutes {
		r := &f.TCPRoutes[i]
		all = append(all, CheckRoute("TCPRoute", r, r.Status.Parents)...)
	}
	for i := range f.UDPRoutes {
		r := &f.UDPRoutes[i]
		all = append(all, CheckRoute("UDPRoute", r, r.Status.Parents)...)
	}
	for i := range f.BlixtPolicies {
		all = append(all, CheckPolicy(&f.BlixtPolicies[i])...)
	}
	finding.WorstFirst(all)
	return all
}

// CheckGateway returns what is not well with a Gateway and its listeners, the worst first.
func CheckGateway(g *gwv1.Gateway) (all []finding.Finding) {
	object := "Gateway " + g.Namespace + "/" + g.Name
	remedy := "kubectl -n " + g.Namespace + " describe gateway " + g.Name
	add := func(format string, args ...any) {
		all = append(all, finding.Finding{Check: "gateways", Verdict: finding.Failed, Object: object, Seen: fmt.Sprintf(format, args...), Remedy: remedy})
	}
	for _, kind := range []gwv1.GatewayConditionType{gwv1.GatewayConditionAccepted, gwv1.GatewayConditionProgrammed} {
		c := condition(g.Status.Conditions, string(kind))
		switch {
		case c == nil || c.Reason == string(gwv1.GatewayReasonPending) && c.Status == metav1.ConditionUnknown:
			add("condition %s is not there: no operator has looked at it", kind)
		case c.Status != metav1.ConditionTrue:
			add("condition %s is %s, %s: %s", kind, c.Status, c.Reason, c.Message)
		case c.ObservedGeneration < g.Generation:
			add("condition %s is of generation %d, and the Gateway has %d: the operator has not seen its last change", kind, c.ObservedGeneration, g.Generation)
		default:
			continue
		}
		return all // the others follow from it
	}
	for _, l := range g.Status.Listeners {
		if c := BadListener(l.Conditions); c != nil {
			add("listener %s: condition %s is %s, %s: %s", l.Name, c.Type, c.Status, c.Reason, c.Message)
		}
	}
	return all
}

// listenerConditions tell whether a listener works. Others inform.
var listenerConditions = []gwv1.ListenerConditionType{
	gwv1.ListenerConditionConflicted, gwv1.ListenerConditionAccepted, gwv1.ListenerConditionResolvedRefs, gwv1.ListenerConditionProgrammed,
}

// BadListener returns the first of a listener's conditions that says that it does not work;
// nil: none does.
func BadListener(conditions []metav1.Condition) *metav1.Condition {
	for i := range conditions {
		bad := metav1.ConditionFalse
		if conditions[i].Type == string(gwv1.ListenerConditionConflicted) {
			bad = metav1.ConditionTrue
		}
		if conditions[i].Status == bad && slices.Contains(listenerConditions, gwv1.ListenerConditionType(conditions[i].Type)) {
			return &conditions[i]
		}
	}
	return nil
}

// CheckRoute returns what is not well with a route of a kind, for each of its parents.
func CheckRoute(kind string, r metav1.Object, parents []gwv1.RouteParentStatus) (all []finding.Finding) {
	for _, p := range parents {
		if p.ControllerName != gateway.ControllerName {
			continue
		}
		for _, of := range []gwv1.RouteConditionType{gwv1.RouteConditionAccepted, gwv1.RouteConditionResolvedRefs} {
			if c := condition(p.Conditions, string(of)); c != nil && c.Status == metav1.ConditionFalse {
				all = append(all, finding.Finding{Check: "routes", Verdict: finding.Failed, Object: kind + " " + r.GetNamespace() + "/" + r.GetName(),
					Seen:   fmt.Sprintf("condition %s is False, %s: %s", c.Type, c.Reason, c.Message),
					Remedy: "kubectl -n " + r.GetNamespace() + " describe " + strings.ToLower(kind) + " " + r.GetName()})
				break
			}
		}
	}
	return all
}

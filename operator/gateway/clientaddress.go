// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// GatewayConditionClientAddressPreserved is a condition of Gateways in a cluster:
// whether all backends see the client's address.
const GatewayConditionClientAddressPreserved = v1alpha1.GroupName + "/ClientAddressPreserved"

// The reasons of GatewayConditionClientAddressPreserved.
const (
	reasonPreserved       = "Preserved"
	reasonPartlyPreserved = "PartlyPreserved" // some backends see the address of a node
	reasonLocalPolicy     = "LocalPolicy"     // of the local backends that it uses
	reasonNodeChosen      = "NodeChosen"      // its owner has chosen Node
	reasonNodeKept        = "NodeKept"        // it was served before there was a choice
	reasonPending         = "Pending"         // the nodes have not reported yet
)

// waitingForNodes is the message while the nodes have not reported.
const waitingForNodes = "Waiting for the nodes to report whether they preserve the client's address."

// clientAddress returns what is in force: the choice of its owner, or the default.
func (g *gateway) clientAddress() v1alpha1.ClientAddress {
	if g.policy.client != "" {
		return g.policy.client
	}
	return g.parameters.ClientAddress
}

// defaultClientAddress returns what a Gateway has while its owner does not choose:
// Preserve, unless it was served by a release that did not preserve addresses, as
// its backends may admit nodes only. It then has Node until its owner chooses
// Preserve, which ends its past for good. Files have no past: without --peer no host
// preserves addresses, so whoever adds the flag chooses.
//
// The past is known to the translation before, to the annotation of the Gateway's
// Service, which is not among what people write, and to the Gateway's status, which
// outlives both.
func (s *environment) defaultClientAddress(gw *gwv1.Gateway, spec *v1alpha1.BlixtGatewayConfigSpec) v1alpha1.ClientAddress {
	if s.Cluster == nil || spec != nil && spec.ClientAddress == v1alpha1.ClientAddressPreserve {
		return v1alpha1.ClientAddressPreserve
	}
	if good, known := s.LastGood.of(gw); known && good.ClientAddress != "" {
		return good.ClientAddress
	} else if known || showsNode(gw.Status.Conditions) {
		return v1alpha1.ClientAddressNode
	}
	return v1alpha1.ClientAddressPreserve
}

// showsNode reports whether a Gateway's status was written by a release that did not
// preserve addresses, or says that this Gateway's are not to be preserved.
func showsNode(stored []metav1.Condition) bool {
	if c := meta.FindStatusCondition(stored, GatewayConditionClientAddressPreserved); c != nil {
		return KeepsNode(*c)
	}
	// Those that the API server gives a new Gateway have no generation.
	return slices.ContainsFunc(stored, func(c metav1.Condition) bool {
		return c.Type == string(gwv1.GatewayConditionAccepted) && c.ObservedGeneration > 0
	})
}

// KeepsNode reports whether a condition says that addresses are not preserved because
// they are not to be, which is nothing wrong.
func KeepsNode(c metav1.Condition) bool {
	return c.Type == GatewayConditionClientAddressPreserved && (c.Reason == reasonNodeKept || c.Reason == reasonNodeChosen)
}

// TakeBackClientAddress returns the conditions of a Gateway that Blixt leaves. Its past
// stays with it, for Blixt to come back.
func TakeBackClientAddress(stored []metav1.Condition) []metav1.Condition {
	var all []metav1.Condition
	for _, c := range stored {
		if c.Type == GatewayConditionClientAddressPreserved {
			if !KeepsNode(c) {
				continue
			}
			c.Status, c.Message = metav1.ConditionUnknown, "Blixt was uninstalled. If it is installed again, backends on other nodes see the node's address, as before."
		}
		all = append(all, c)
	}
	return all
}

// clientAddressPreserved returns the condition as far as it depends on objects. If the
// nodes decide, it is Unknown.
func (g *gateway) clientAddressPreserved() metav1.Condition {
	const kind = GatewayConditionClientAddressPreserved
	generation := g.obj.Generation
	switch {
	case g.refused != nil:
		return condition(kind, metav1.ConditionUnknown, reasonPending, generation, "The Gateway is not served: see Accepted.")
	case g.policy.traffic == v1alpha1.TrafficPolicyLocal:
		return condition(kind, metav1.ConditionTrue, reasonLocalPolicy, generation,
			"With externalTrafficPolicy Local all backends see the client's address.")
	case g.policy.client == v1alpha1.ClientAddressNode:
		return condition(kind, metav1.ConditionFalse, reasonNodeChosen, generation,
			"Backends on other nodes see the address of the node that received the connection: the BlixtGatewayConfig sets clientAddress Node.")
	case g.clientAddress() == v1alpha1.ClientAddressNode:
		return condition(kind, metav1.ConditionFalse, reasonNodeKept, generation,
			"Backends on other nodes see the address of the node that received the connection, as before Blixt could preserve the client's: set clientAddress Preserve in a BlixtGatewayConfig.")
	}
	return condition(kind, metav1.ConditionUnknown, reasonPending, generation, waitingForNodes)
}

// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"slices"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// supportedFeatures are Gateway API's names of what a GatewayClass of Blixt
// can do, sorted as its status wants them.
var supportedFeatures = []gwv1.SupportedFeature{
	{Name: "Gateway"},
	{Name: "GatewayAddressEmpty"},
	{Name: "GatewayStaticAddresses"},
	{Name: "ReferenceGrant"},
	{Name: "TCPRoute"},
	{Name: "UDPRoute"},
}

// class is a GatewayClass that names Blixt's controller.
type class struct {
	obj     *gwv1.GatewayClass
	refused *fault
}

func newClass(obj *gwv1.GatewayClass) *class {
	c := &class{obj: obj}
	if p := obj.Spec.ParametersRef; p != nil {
		c.refused = faultf(gwv1.GatewayClassReasonInvalidParameters,
			"spec.parametersRef names %s, a kind that Blixt takes no parameters from: remove parametersRef.",
			named(string(p.Kind), string(deref(p.Namespace, "")), p.Name))
	}
	return c
}

func (c *class) status() ClassStatus {
	status := ClassStatus{Name: c.obj.Name}
	status.Status.Conditions = append(status.Status.Conditions, verdict(
		gwv1.GatewayClassConditionStatusAccepted, c.refused, gwv1.GatewayClassReasonAccepted,
		c.obj.Generation, "Blixt serves the Gateways of this class."))
	status.Status.SupportedFeatures = slices.Clone(supportedFeatures)
	return status
}

// deref returns what a pointer of an optional field points to, or its default.
func deref[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

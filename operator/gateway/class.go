// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// supportedFeatures are the features of Gateway API that a GatewayClass of
// Blixt supports, sorted as its status requires. ListenerSet is missing
// although Blixt supports it: its conformance tests need HTTP.
var supportedFeatures = []gwv1.SupportedFeature{
	{Name: "Gateway"},
	{Name: "GatewayAddressEmpty"},
	{Name: "GatewayInfrastructure"},
	{Name: "GatewayStaticAddresses"},
	{Name: "ReferenceGrant"},
	{Name: "TCPRoute"},
	{Name: "UDPRoute"},
}

// class is a GatewayClass that names Blixt's controller.
type class struct {
	obj *gwv1.GatewayClass
	// config is that of its Gateways.
	config *config
	// refused is why it is not accepted. If it was accepted before, its Gateways go
	// on: goesOn is true, and config is the one by which it was accepted.
	refused *fault
	goesOn  bool
	inUse   bool
}

// isServed reports whether the Gateways of the class are served.
func (c *class) isServed() bool { return c.refused == nil || c.goesOn }

// findClasses returns Blixt's classes by name, and the config whose data plane is
// in force: the default one if no BlixtConfig has a data plane.
func findClasses(objs *Objects, good LastGood) (map[string]*class, *config) {
	classes, inForce := map[string]*class{}, defaultConfig()
	for i := range objs.GatewayClasses {
		obj := &objs.GatewayClasses[i]
		if obj.Spec.ControllerName != ControllerName || classes[obj.Name] != nil {
			continue
		}
		c := newClass(obj, objs.Configs)
		if c.refused != nil {
			c.goOn(good)
		}
		classes[obj.Name] = c
		if own := c.config.obj; c.isServed() && own != nil && own.Spec.Dataplane != nil &&
			(inForce.obj == nil || byAge(&own.ObjectMeta, &inForce.obj.ObjectMeta) < 0) {
			inForce = c.config
		}
	}
	dataplane := inForce.obj
	for _, c := range classes {
		own := c.config.obj
		if c.refused == nil && own != nil && own.Spec.Dataplane != nil &&
			!equality.Semantic.DeepEqual(own.Spec.Dataplane, dataplane.Spec.Dataplane) {
			c.refused = faultf(gwv1.GatewayClassReasonInvalidParameters,
				"spec.dataplane of BlixtConfig %s differs from that of BlixtConfig %s, %s, and a node has only one data plane: make them equal, or remove one.",
				own.Name, dataplane.Name, precedence(&dataplane.ObjectMeta, &own.ObjectMeta)).because(named("BlixtConfig", "", own.Name))
			c.goOn(good)
		}
	}
	return classes, inForce
}

func newClass(obj *gwv1.GatewayClass, configs []v1alpha1.BlixtConfig) *class {
	c := &class{obj: obj, config: defaultConfig()}
	p := obj.Spec.ParametersRef
	if p == nil {
		return c
	}
	kind := "BlixtConfig"
	refuse := func(why string) *class {
		c.refused = faultf(gwv1.GatewayClassReasonInvalidParameters, "spec.parametersRef names %s, %s.",
			named(kind, string(deref(p.Namespace, "")), p.Name), why)
		return c
	}
	if string(p.Group) != v1alpha1.GroupVersion.Group || string(p.Kind) != kind {
		if string(p.Kind) == kind {
			return refuse(fmt.Sprintf("but the group is %s, not %s: correct spec.parametersRef.group", v1alpha1.GroupVersion.Group, p.Group))
		}
		kind = groupKind(p.Group, p.Kind)
		return refuse("a kind that Blixt takes no parameters from: name a BlixtConfig or remove parametersRef")
	}
	if deref(p.Namespace, "") != "" {
		return refuse("but BlixtConfigs have no namespace: remove it")
	}
	i := slices.IndexFunc(configs, func(c v1alpha1.BlixtConfig) bool { return c.Name == p.Name })
	if i < 0 {
		refuse("which does not exist: create it, or correct the name").refused.because(named(kind, "", p.Name))
		return c
	}
	config, err := newConfig(&configs[i])
	if err != nil {
		refuse("in which " + err.Error()).refused.because(named(kind, "", p.Name))
		return c
	}
	c.config = config
	return c
}

// goOn has the class go on with the BlixtConfig by which it was last accepted, if
// it ever was.
func (c *class) goOn(good LastGood) {
	obj, known := good.ofClass(c.obj)
	if !known {
		return
	}
	config := defaultConfig()
	if obj != nil {
		var err error
		if config, err = newConfig(obj); err != nil {
			return
		}
	}
	c.config, c.goesOn = config, true
	c.refused.message += goesOn
}

func (c *class) status() ClassStatus {
	status := ClassStatus{Name: c.obj.Name, InUse: c.inUse}
	status.Status.Conditions = append(status.Status.Conditions, conditionOf(
		gwv1.GatewayClassConditionStatusAccepted, c.refused, gwv1.GatewayClassReasonAccepted,
		c.obj.Generation, "Blixt serves the Gateways of this class."))
	status.Status.SupportedFeatures = slices.Clone(supportedFeatures)
	return status
}

// deref returns the value of an optional field, or its default.
func deref[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

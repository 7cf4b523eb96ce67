// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// policy is what the owner of a Gateway chooses in its BlixtGatewayConfig.
type policy struct {
	traffic      v1alpha1.TrafficPolicy
	client       v1alpha1.ClientAddress // empty: the Gateway's default
	records      v1alpha1.FlowRecords   // empty: the default
	idleTimeouts map[lb.Protocol]time.Duration
	source       v1alpha1.AddressSource // empty: the class's
}

// gatewayConfigs are all BlixtGatewayConfigs by name.
type gatewayConfigs map[types.NamespacedName]*v1alpha1.BlixtGatewayConfig

func indexConfigs(all []v1alpha1.BlixtGatewayConfig) gatewayConfigs {
	index := make(gatewayConfigs, len(all))
	for i := range all {
		index[types.NamespacedName{Namespace: all[i].Namespace, Name: all[i].Name}] = &all[i]
	}
	return index
}

// findConfig returns the spec of the BlixtGatewayConfig that a Gateway names, nil if
// it names none, or why that is invalid.
func findConfig(gw *gwv1.Gateway, configs gatewayConfigs) (*v1alpha1.BlixtGatewayConfigSpec, *fault) {
	if gw.Spec.Infrastructure == nil || gw.Spec.Infrastructure.ParametersRef == nil {
		return nil, nil
	}
	ref := gw.Spec.Infrastructure.ParametersRef
	kind := "BlixtGatewayConfig"
	no := func(why string) *fault {
		return faultf(gwv1.GatewayReasonInvalidParameters, "spec.infrastructure.parametersRef names %s, %s.",
			named(kind, gw.Namespace, ref.Name), why)
	}
	if string(ref.Group) != v1alpha1.GroupVersion.Group || string(ref.Kind) != kind {
		if string(ref.Kind) == kind {
			return nil, no(fmt.Sprintf("but the group is %s, not %s: correct the group", v1alpha1.GroupVersion.Group, ref.Group))
		}
		kind = groupKind(ref.Group, ref.Kind)
		return nil, no("a kind that Blixt takes no parameters from: name a BlixtGatewayConfig or remove parametersRef")
	}
	config := configs[types.NamespacedName{Namespace: gw.Namespace, Name: ref.Name}]
	if config == nil {
		return nil, no("which does not exist: create it, or correct the name").because(named(kind, gw.Namespace, ref.Name))
	}
	if _, err := newPolicy(&config.Spec); err != nil {
		return nil, no("whose " + err.Error()).because(named(kind, gw.Namespace, ref.Name))
	}
	return &config.Spec, nil
}

// newPolicy reads the spec of a BlixtGatewayConfig, or nil. Its error begins with
// the name of the invalid field.
func newPolicy(spec *v1alpha1.BlixtGatewayConfigSpec) (policy, error) {
	p := policy{traffic: v1alpha1.TrafficPolicyCluster, idleTimeouts: map[lb.Protocol]time.Duration{
		lb.TCP: lb.DefaultIdleTimeout(lb.TCP), lb.UDP: lb.DefaultIdleTimeout(lb.UDP)}}
	if spec == nil {
		return p, nil
	}
	p.source = spec.AddressSource
	switch spec.ExternalTrafficPolicy {
	case "", v1alpha1.TrafficPolicyCluster:
	case v1alpha1.TrafficPolicyLocal:
		p.traffic = v1alpha1.TrafficPolicyLocal
	default:
		return p, fmt.Errorf("externalTrafficPolicy %q is neither Cluster nor Local", spec.ExternalTrafficPolicy)
	}
	switch p.client = spec.ClientAddress; {
	case p.client != "" && p.client != v1alpha1.ClientAddressPreserve && p.client != v1alpha1.ClientAddressNode:
		return p, fmt.Errorf("clientAddress %q is neither Preserve nor Node", p.client)
	case p.client == v1alpha1.ClientAddressNode && p.traffic == v1alpha1.TrafficPolicyLocal:
		return p, errors.New("clientAddress is Node, but with externalTrafficPolicy Local all backends see the client's address")
	}
	switch p.records = spec.FlowRecords; p.records {
	case "", v1alpha1.FlowRecordsEnabled, v1alpha1.FlowRecordsDisabled:
	default:
		return p, fmt.Errorf("flowRecords %q is neither Enabled nor Disabled", p.records)
	}
	// The CRD has the same limits, but files do not pass through it.
	if !p.idle(lb.TCP, spec.IdleTimeouts.TCP, 10*time.Second, 7*24*time.Hour) {
		return p, errors.New("idleTimeouts.tcp is not within 10s to 168h")
	}
	if !p.idle(lb.UDP, spec.IdleTimeouts.UDP, 5*time.Second, 24*time.Hour) {
		return p, errors.New("idleTimeouts.udp is not within 5s to 24h")
	}
	return p, nil
}

// idle sets the idle timeout of a protocol, if one is given. It reports whether
// the timeout is within the limits.
func (p *policy) idle(protocol lb.Protocol, given *metav1.Duration, least, most time.Duration) bool {
	if given == nil {
		return true
	}
	p.idleTimeouts[protocol] = given.Duration
	return least <= given.Duration && given.Duration <= most
}

// choose returns the source of the Gateway's addresses, or why its choice is
// not allowed.
func (p policy) choose(c *config) (v1alpha1.AddressSource, *fault) {
	if p.source == "" || slices.Contains(c.sources, p.source) {
		if p.source == "" {
			return c.sources[0], nil
		}
		return p.source, nil
	}
	return "", faultf(gwv1.GatewayReasonInvalidParameters,
		"The BlixtGatewayConfig wants addressSource %s, but %s allows only %s: choose one of those, or have it added to alsoSources.",
		p.source, c.name(), phrase.Join(words(c.sources)))
}

func words[T ~string](of []T) []string {
	var all []string
	for _, w := range of {
		all = append(all, string(w))
	}
	return all
}

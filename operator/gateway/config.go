// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// config is the part of a BlixtConfig that matters to Gateways.
type config struct {
	obj *v1alpha1.BlixtConfig // nil: every default
	// sources are the allowed address sources. The first is for Gateways that
	// do not choose.
	sources []v1alpha1.AddressSource
	pool    ranges
	allowed []allowance
	// shared are the addresses that namespaces may share.
	shared ranges
	quotas []quota
	ports  portPolicy
	// nodes selects those of the data plane, if this config's is in force.
	nodes labels.Selector
}

// allowance allows the Gateways of some namespaces to name some addresses.
type allowance struct {
	namespaces labels.Selector
	addresses  ranges
}

// quota limits what each of some namespaces may use. Negative: no limit.
type quota struct {
	namespaces           labels.Selector
	frontends, addresses int
}

// defaultQuotas leave most of the nodes' tables to other namespaces.
var defaultQuotas = []quota{{labels.Everything(), 1024, 64}}

// quotaOf returns the quota of a namespace.
func (c *config) quotaOf(namespace labels.Set) quota {
	for _, q := range c.quotas {
		if q.namespaces.Matches(namespace) {
			return q
		}
	}
	return quota{frontends: -1, addresses: -1}
}

func defaultConfig() *config {
	return &config{sources: []v1alpha1.AddressSource{v1alpha1.SourceLoadBalancer}, ports: portPolicy{allowed: defaultAllowed}, quotas: defaultQuotas, nodes: labels.Everything()}
}

// newConfig reads a BlixtConfig. Its error names the invalid item.
func newConfig(obj *v1alpha1.BlixtConfig) (*config, error) {
	c, spec := defaultConfig(), &obj.Spec.Addresses
	c.obj = obj
	if spec.Source != "" {
		c.sources[0] = spec.Source
	}
	c.sources = append(c.sources, spec.AlsoSources...)
	var err error
	if c.pool, err = parseRanges("spec.addresses.pool", spec.Pool); err != nil {
		return nil, err
	}
	for _, source := range c.sources {
		switch source {
		case v1alpha1.SourceLoadBalancer, v1alpha1.SourceNode:
		case v1alpha1.SourcePool:
			if len(c.pool) == 0 {
				return nil, fmt.Errorf("spec.addresses.pool is empty, but a source is Pool")
			}
		default:
			return nil, fmt.Errorf("spec.addresses names source %q, which is none of LoadBalancer, Pool and Node", source)
		}
	}
	if c.allowed, err = parseAllowed("spec.addresses.allowed", spec.Allowed); err != nil {
		return nil, err
	}
	if _, _, err = parseEndpoints(&obj.Spec.Endpoints); err != nil {
		return nil, err
	}
	if c.shared, err = parseRanges("spec.addresses.shared", spec.Shared); err != nil {
		return nil, err
	}
	if obj.Spec.Quotas != nil { // an empty list limits nobody
		c.quotas = nil
	}
	for i, q := range obj.Spec.Quotas {
		namespaces, err := metav1.LabelSelectorAsSelector(&q.Namespaces)
		if err != nil {
			return nil, fmt.Errorf("spec.quotas[%d].namespaces is invalid: %w", i, err)
		}
		if deref(q.Frontends, 0) < 0 || deref(q.Addresses, 0) < 0 {
			return nil, fmt.Errorf("spec.quotas[%d] is negative", i)
		}
		c.quotas = append(c.quotas, quota{namespaces, int(deref(q.Frontends, -1)), int(deref(q.Addresses, -1))})
	}
	if c.ports.reserved, err = parsePorts("spec.addresses.reservedPorts", spec.ReservedPorts); err != nil {
		return nil, err
	}
	if len(spec.AllowedPorts) > 0 {
		if c.ports.allowed, err = parsePorts("spec.addresses.allowedPorts", spec.AllowedPorts); err != nil {
			return nil, err
		}
	}
	if d := obj.Spec.Dataplane; d != nil {
		if c.nodes, err = metav1.LabelSelectorAsSelector(&d.Nodes); err != nil {
			return nil, fmt.Errorf("spec.dataplane.nodes is invalid: %w", err)
		}
	}
	return c, nil
}

// parseAllowed returns an error for the first invalid item of the field.
func parseAllowed(field string, items []v1alpha1.AllowedAddresses) ([]allowance, error) {
	var all []allowance
	for i := range items {
		var a allowance
		var err error
		field := fmt.Sprintf("%s[%d]", field, i)
		if a.addresses, err = parseRanges(field+".addresses", items[i].Addresses); err != nil {
			return nil, err
		}
		if a.namespaces, err = metav1.LabelSelectorAsSelector(&items[i].Namespaces); err != nil {
			return nil, fmt.Errorf("%s.namespaces is invalid: %w", field, err)
		}
		all = append(all, a)
	}
	return all, nil
}

func (c *config) name() string {
	if c.obj == nil {
		return "a class without BlixtConfig"
	}
	return named("BlixtConfig", "", c.obj.Name)
}

// allows reports whether Gateways of the namespace may name the address.
func (c *config) allows(addr netip.Addr, namespace labels.Set) bool {
	return slices.ContainsFunc(c.allowed, func(a allowance) bool {
		// An empty selector of namespaces selects all.
		return a.namespaces.Matches(namespace) && a.addresses.contains(addr)
	})
}

// podTraffic returns who handles connections from inside the cluster: the
// administrator's choice, or else what works. What a node's own pods and
// processes send to the node's address passes no network interface to which
// Blixt attaches. Under policy Local, kube-proxy answers the health checks by
// which clouds choose nodes. In IPVS mode, kube-proxy never gets the addresses
// of nodes: it would cut the nodes off from each other.
func (c *config) podTraffic(source v1alpha1.AddressSource, traffic v1alpha1.TrafficPolicy, proxyMode string) v1alpha1.PodTraffic {
	node := source == v1alpha1.SourceNode
	switch {
	case node && proxyMode == ProxyIPVS:
		return v1alpha1.PodTrafficBlixt
	case c.obj != nil && c.obj.Spec.Addresses.PodTraffic != "":
		return c.obj.Spec.Addresses.PodTraffic
	case node && proxyMode != "", source == v1alpha1.SourceLoadBalancer && traffic == v1alpha1.TrafficPolicyLocal:
		return v1alpha1.PodTrafficKubeProxy
	}
	return v1alpha1.PodTrafficBlixt
}

func (c *config) loadBalancerClass() *string {
	if c.obj == nil {
		return nil
	}
	return c.obj.Spec.Addresses.LoadBalancerClass
}

// addressesField returns the words for a field of spec.addresses.
func (c *config) addressesField(field string) string {
	if c.obj == nil {
		return "the default of spec.addresses." + field + " (the class has no BlixtConfig)"
	}
	return "spec.addresses." + field + " of " + c.name()
}

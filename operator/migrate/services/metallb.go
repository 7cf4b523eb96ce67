// SPDX-License-Identifier: Apache-2.0

package services

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/manifest"
	"github.com/kubernetes-sigs/blixt/operator/migrate/objects"
)

// share has Services with the same value share an address.
var share = rule{func(s *service, key, value string) {
	switch {
	case s.stays:
		s.annotations[key] = value // with the same key a Gateway may have the Service's address
	case value != "":
		s.sharing, s.sharedBy = key+" "+value, key
	}
}, "Services with the same value and address become one Gateway"}

// metallb: https://metallb.io/usage/ and controller/service.go of metallb/metallb.
var metallb = vendor{
	name: "MetalLB", is: regexp.MustCompile(`^metallb\.(io|universe\.tf)/`), others: unknown,
	rules: both("metallb.io/", "metallb.universe.tf/", map[string]rule{
		"address-pool":           carried,
		"loadBalancerIPs":        asks,
		"allow-shared-ip":        share,
		"ip-allocated-from-pool": written,
	}),
}

// both returns rules with either prefix.
func both(one, other string, of map[string]rule) map[string]rule {
	all := map[string]rule{}
	for name, r := range of {
		all[one+name], all[other+name] = r, r
	}
	return all
}

// pools are kinds that choose Services by their labels, and where they do.
var pools = map[string][]string{
	"metallb.io/IPAddressPool":              {"serviceAllocation", "serviceSelectors"},
	"metallb.io/L2Advertisement":            {"serviceSelectors"},
	"metallb.io/BGPAdvertisement":           {"serviceSelectors"},
	"cilium.io/CiliumLoadBalancerIPPool":    {"serviceSelector"},
	"cilium.io/CiliumL2AnnouncementPolicy":  {"serviceSelector"},
	"cilium.io/CiliumBGPAdvertisement":      {"advertisements", "selector"},
	"purelb.io/ServiceGroup":                nil,
	"metallb.io/BGPPeer":                    nil,
	"cilium.io/CiliumBGPClusterConfig":      nil,
	"cilium.io/CiliumBGPPeerConfig":         nil,
	"cilium.io/CiliumBGPPeeringPolicy":      {"virtualRouters", "serviceSelector"},
	"metallb.io/Community":                  nil,
	"metallb.io/BFDProfile":                 nil,
	"cilium.io/CiliumBGPNodeConfig":         nil,
	"cilium.io/CiliumBGPNodeConfigOverride": nil,
}

func isPool(o *objects.Object) bool {
	_, is := pools[poolKind(o)]
	return is
}

func poolKind(o *objects.Object) string {
	group, _, _ := cutGroup(o.APIVersion)
	return group + "/" + o.Kind
}

// readPool notes labels by which an object chooses Services: the Gateway's Service needs
// them, too, to get its address there.
func (r *reader) readPool(o *objects.Object) {
	spec, is := o.Child("spec")
	if steps := pools[poolKind(o)]; is && len(steps) > 0 {
		for _, selector := range below([]manifest.Document{spec}, steps) {
			r.selecting = append(r.selecting, labelsOf(selector)...)
		}
		slices.Sort(r.selecting)
		r.selecting = slices.Compact(r.selecting)
	}
}

// below follows keys, through lists as well.
func below(from []manifest.Document, steps []string) []manifest.Document {
	var flat []manifest.Document
	for _, d := range from {
		if items := d.Items(); items != nil {
			flat = append(flat, items...)
		} else {
			flat = append(flat, d)
		}
	}
	if len(steps) == 0 {
		return flat
	}
	var found []manifest.Document
	for _, d := range flat {
		if child, is := d.Child(steps[0]); is {
			found = append(found, child)
		}
	}
	return below(found, steps[1:])
}

// labelsOf returns the keys of a label selector.
func labelsOf(selector manifest.Document) []string {
	object, _ := selector.Value.(map[string]any)
	match, _ := object["matchLabels"].(map[string]any)
	keys := slices.Collect(maps.Keys(match))
	expressions, _ := object["matchExpressions"].([]any)
	for _, e := range expressions {
		expression, _ := e.(map[string]any)
		if key, is := expression["key"].(string); is {
			keys = append(keys, key)
		}
	}
	return keys
}

// cutGroup returns group and version of an apiVersion.
func cutGroup(apiVersion string) (group, version string, ok bool) {
	if group, version, ok = strings.Cut(apiVersion, "/"); !ok {
		return "", apiVersion, false
	}
	return group, version, true
}

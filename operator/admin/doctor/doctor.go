// SPDX-License-Identifier: Apache-2.0

// Package doctor finds what keeps Blixt from working in a cluster. Read gets Facts
// from the API server, and Check derives Findings from them: for each precondition,
// and each known defect of bpfman, what was seen and a remedy. Check is pure. Nothing
// is written.
package doctor

import (
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/finding"
)

// Level is how bad something is.
type Level = finding.Level

// Finding is what one check has found about one object.
type Finding = finding.Finding

// The levels, the worst first.
const (
	Failed  = finding.Failed
	Warning = finding.Warning
	Unknown = finding.Unknown
	OK      = finding.OK
)

// check examines one precondition.
type check struct {
	name string
	// needs are the kinds that the check cannot do without.
	needs []string
	// look returns what is wrong or, if nothing is, what is right.
	look func(*Facts) (fine string, wrong []Finding)
}

// checks are in the order in which to repair: the later depend on the former.
var checks = []check{
	{"kubernetes", nil, kubernetes},
	{"kernel", []string{"Node", "BlixtConfig"}, kernel},
	{"ring-buffer", []string{"Node", "BlixtConfig"}, ringBuffer},
	{"disk", []string{"Node"}, disk},
	{"gateway-api", []string{"CustomResourceDefinition"}, gatewayAPI},
	{"blixt-kinds", []string{"CustomResourceDefinition"}, blixtKinds},
	{"kinds-release", []string{"CustomResourceDefinition", "Deployment"}, kindsRelease},
	{"bpfman-source", []string{"Deployment"}, bpfmanSource},
	{"bpfman-kinds", []string{"CustomResourceDefinition"}, bpfmanKinds},
	{"bpfman-link-ids", []string{"CustomResourceDefinition"}, linkIDs},
	{"bpfman-operator", []string{"Deployment"}, bpfmanOperator},
	{"bpfman-nodes", []string{"DaemonSet", "Pod", "Node", "BlixtConfig"}, bpfmanNodes},
	{"bpfman-selector", []string{"DaemonSet", "Pod", "Node", "BlixtConfig"}, bpfmanSelector},
	{"bpfman-pins", []string{"DaemonSet"}, bpfmanPins},
	{"bpfman-override", []string{"DaemonSet", "Config"}, bpfmanOverride},
	{"bpfman-signing", []string{"Config"}, bpfmanSigning},
	{"bpfman-csi", []string{"CSIDriver", "CSINode", "Node", "BlixtConfig"}, bpfmanCSI},
	{"programs", []string{"ClusterBpfApplication", "ClusterBpfApplicationState", "Node"}, programs},
	{"programs-dead", []string{"ClusterBpfApplicationState", "DaemonSet", "Pod"}, deadPrograms},
	{"operator", []string{"Deployment"}, operator},
	{"leader", []string{"Lease"}, leader},
	{"agents", []string{"DaemonSet", "Pod"}, agents},
	{"pod-security", []string{"Namespace", "BlixtConfig"}, podSecurity},
	{"network-policy", []string{"NetworkPolicy"}, networkPolicy},
	{"admission-policies", []string{"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}, admissionPolicies},
	{"signatures", []string{"BlixtConfig"}, signatures},
	{"classes", []string{"GatewayClass", "BlixtConfig"}, classes},
	{"addresses", []string{"Service"}, addresses},
	{"listener-ports", []string{"Gateway", "ListenerSet"}, listenerPorts},
	{"snat-ports", []string{"BlixtConfig", "Deployment"}, snatPorts},
	{"tunnels", []string{"BlixtConfig", "Node"}, tunnels},
	{"ipsec", []string{"BlixtConfig"}, ipsec},
	{"answers", []string{"NodeDataplane"}, answers},
	{"pool", []string{"BlixtConfig", "Node", "Pod", "Service"}, pool},
	{"kube-proxy", []string{"Service", "GatewayClass", "BlixtConfig"}, kubeProxy},
	{"client-policies", []string{"Gateway", "ListenerSet", "TCPRoute", "UDPRoute", "Service", "NetworkPolicy", "Pod", "Node"}, clientPolicies},
	{"client-addresses", []string{"Gateway"}, preserved},
	{"nodes", []string{"NodeDataplane", "Node", "BlixtConfig"}, dataplanes},
}

// Check runs all checks. Each returns at least one Finding, and the order is always
// the same.
func Check(f *Facts) []Finding {
	var all []Finding
	for _, c := range checks {
		found := c.run(f)
		for i := range found {
			found[i].Check = c.name
		}
		finding.Sort(found)
		all = append(all, found...)
	}
	return all
}

func (c *check) run(f *Facts) []Finding {
	for _, kind := range c.needs {
		if why := f.Unread[kind]; why != "" {
			return []Finding{{
				Verdict: Unknown, Object: kind, Seen: why,
				Remedy: "Run blixt doctor as a user who may list " + kind + "s: kubectl auth can-i list " + strings.ToLower(kind) + "s --all-namespaces",
			}}
		}
	}
	fine, wrong := c.look(f)
	if len(wrong) == 0 {
		return []Finding{{Verdict: OK, Seen: fine}}
	}
	return wrong
}

func failed(object, seen, remedy string) Finding {
	return Finding{Verdict: Failed, Object: object, Seen: seen, Remedy: remedy}
}

func warning(object, seen, remedy string) Finding {
	return Finding{Verdict: Warning, Object: object, Seen: seen, Remedy: remedy}
}

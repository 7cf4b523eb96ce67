// SPDX-License-Identifier: Apache-2.0

package doctor

import "github.com/kubernetes-sigs/blixt/operator/kube"

// enforceLabel of a namespace is the Pod Security level of its pods.
const enforceLabel = "pod-security.kubernetes.io/enforce"

// podSecurity: the level "restricted" demands a seccomp profile, and RuntimeDefault
// forbids bpf(2), which agents use; bpfman's pods are privileged.
func podSecurity(f *Facts) (string, []Finding) {
	var wrong []Finding
	n := kube.Named(f.Namespaces, f.Namespace)
	if n == nil {
		return "", []Finding{failed("Namespace "+f.Namespace, "it is not there", "Name the namespace of Blixt: blixt doctor --namespace …")}
	}
	level, profile := n.Labels[enforceLabel], f.spec().Agent.SeccompProfile
	if level == "restricted" && profile == "" {
		wrong = append(wrong, failed("Namespace "+n.Name, "label "+enforceLabel+" is restricted, and the BlixtConfig has no spec.dataplane.agent.seccompProfile: pods of agents are refused",
			"Put charts/blixt/files/seccomp/blixt-agent.json on each node, at /var/lib/kubelet/seccomp/profiles/blixt-agent.json, and set seccompProfile: profiles/blixt-agent.json. Or: kubectl label --overwrite namespace "+n.Name+" "+enforceLabel+"=baseline"))
	}
	if b := kube.Named(f.Namespaces, f.bpfmanNamespace()); b != nil {
		if l := b.Labels[enforceLabel]; l == "restricted" || l == "baseline" {
			wrong = append(wrong, failed("Namespace "+b.Name, "label "+enforceLabel+" is "+l+": bpfman's pods are privileged, and therefore rejected", "kubectl label --overwrite namespace "+b.Name+" "+enforceLabel+"=privileged"))
		}
	}
	if level == "" {
		level = "that of the cluster's default"
	}
	return "the namespace enforces " + level, wrong
}

// networkPolicy lists the policies that are not the chart's.
func networkPolicy(f *Facts) (string, []Finding) {
	var wrong []Finding
	for i := range f.NetworkPolicies {
		p := &f.NetworkPolicies[i]
		if p.Labels["app.kubernetes.io/name"] != "blixt" {
			wrong = append(wrong, warning(at("NetworkPolicy", p), "it is not of Blixt's chart, and may separate Blixt's pods",
				"Agents have to reach the operator's pods at port 8443 and DNS, and the operator the API server and registries: compare with NetworkPolicies blixt-agent and blixt-operator of the chart."))
		}
	}
	return "no NetworkPolicy of others in the namespace", wrong
}

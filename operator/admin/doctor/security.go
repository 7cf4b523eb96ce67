// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"

	"github.com/kubernetes-sigs/blixt/operator/admin/admission"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

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
	if b := kube.Named(f.Namespaces, f.BpfmanNamespace()); b != nil {
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
		if p.Namespace == f.Namespace && p.Labels["app.kubernetes.io/name"] != "blixt" {
			wrong = append(wrong, warning(at("NetworkPolicy", p), "it is not of Blixt's chart, and may separate Blixt's pods",
				"Agents have to reach the operator's pods at port 8443 and DNS, and the operator the API server and registries: compare with NetworkPolicies blixt-agent and blixt-operator of the chart."))
		}
	}
	return "no NetworkPolicy of others in the namespace", wrong
}

// admissionPolicies: without them, who may create a pod anywhere may write the maps.
func admissionPolicies(f *Facts) (string, []Finding) {
	var wrong []Finding
	for _, fault := range admission.Check(f.Policies, f.PolicyBindings, f.Namespace) {
		const risk = "every pod of every namespace can mount the data plane's maps, and send the traffic of all Gateways elsewhere"
		const remedy = "helm upgrade with admissionPolicy.enabled=true, with the chart of this version. blixt audit shows who can create pods, and pods that mount the maps."
		if fault.Missing {
			wrong = append(wrong, warning(fault.Object, "it is not there: "+risk, remedy))
		} else {
			wrong = append(wrong, failed(fault.Object, "its spec is not that of the chart of this version: perhaps "+risk, remedy))
		}
	}
	return "pods of other namespaces cannot mount Blixt's maps", wrong
}

// signatures: bpfman loads what a ClusterBpfApplication names. Only keys in the
// BlixtConfig have the operator verify that before.
func signatures(f *Facts) (string, []Finding) {
	if n := len(f.spec().Bytecode.VerificationKeys); n > 0 {
		return fmt.Sprintf("the operator verifies the bytecode with %d keys", n), nil
	}
	return "", []Finding{warning("BlixtConfig", "spec.dataplane.bytecode.verificationKeys is empty: NOT VERIFIED: nobody verifies the signature of the program that nodes load",
		"Sign the images with make images SIGN_KEY=…, which prints values with the keys; or blixt bytecode sign, and set config.dataplane.bytecode.verificationKeys of the chart.")}
}

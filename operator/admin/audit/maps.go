// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"github.com/kubernetes-sigs/blixt/operator/admin/admission"
	"github.com/kubernetes-sigs/blixt/operator/kube"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// maps lists the pods that mount the maps of the data plane and are not Blixt's, and says
// who could have such a pod created.
func (a *auditor) maps() {
	for i := range a.Pods {
		pod := &a.Pods[i]
		if pod.Namespace == a.Namespace {
			continue
		}
		if what := admission.Mounts(pod); what != "" {
			a.failed(ForeignMount, kube.NameOf(pod), pod.Spec.NodeName, "it mounts %s, and can change what the node serves. Delete the pod; a policy denies new ones (blixt doctor: admission-policies)", what)
		}
	}
	if a.Unread["ValidatingAdmissionPolicy"] != "" || a.Unread["ValidatingAdmissionPolicyBinding"] != "" {
		return
	}
	for _, fault := range admission.Check(a.Policies, a.PolicyBindings, a.Namespace) {
		who := podMakers(a.Facts)
		const open = "%s: as far as is known, %d subjects who can have pods created can mount the maps of the data plane, and send the traffic of all Gateways elsewhere: %s. helm upgrade with admissionPolicy.enabled=true"
		if fault.Missing {
			a.warn(MapsOpen, fault.Object, "", open, "it is not there", len(who), phrase.Sample(who))
		} else {
			a.failed(MapsOpen, fault.Object, "", open, "its spec is not that of the chart of this version", len(who), phrase.Sample(who))
		}
	}
}

// keys warns if the operator verifies nothing.
func (a *auditor) keys() {
	if a.wanted != "" && len(a.spec.Bytecode.VerificationKeys) == 0 {
		a.warn(NoKeys, "BlixtConfig", "", "spec.dataplane.bytecode.verificationKeys is empty: NOT VERIFIED: the operator asks bpfman for every image that is declared, whoever has made it. Sign with make images SIGN_KEY=…, which prints values with the keys")
	}
}

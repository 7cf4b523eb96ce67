// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// listenerPorts: a listener that has a port of the nodes which it would not get now, or
// which somebody else has too, is served, but not for ever or not everywhere.
func listenerPorts(f *Facts) (string, []Finding) {
	var wrong []Finding
	check := func(object, listener string, conditions []metav1.Condition) {
		if w := meta.FindStatusCondition(conditions, v1alpha1.ListenerPortWarning); w != nil {
			wrong = append(wrong, warning(object, fmt.Sprintf("listener %s: %s: %s", listener, w.Reason, w.Message),
				"Give the listener another port, or allow this one in spec.addresses.allowedPorts of the BlixtConfig; stop what else uses the port."))
		}
	}
	for i := range f.Gateways {
		for _, l := range f.Gateways[i].Status.Listeners {
			check(at("Gateway", &f.Gateways[i]), string(l.Name), l.Conditions)
		}
	}
	for i := range f.ListenerSets {
		for _, l := range f.ListenerSets[i].Status.Listeners {
			check(at("ListenerSet", &f.ListenerSets[i]), string(l.Name), l.Conditions)
		}
	}
	return "no listener has a port that is somebody else's", wrong
}

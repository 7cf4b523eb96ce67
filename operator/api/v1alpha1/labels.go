// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// The labels and annotations by which operator and commands for administrators find objects,
// besides Gateway API's own.
const (
	// ManagedByLabel of an object names who keeps it as it is.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	// Manager is the operator, in that label and among the managers of fields.
	Manager = "blixt-operator"
	// ServiceProxyLabel of a Service has kube-proxy leave it alone.
	ServiceProxyLabel = "service.kubernetes.io/service-proxy-name"
	// PodTrafficAnnotation of a Service says who balances what pods and nodes
	// send to it: a PodTraffic.
	PodTrafficAnnotation = "blixt.x-k8s.io/pod-traffic"
	// OwnedByLabel is bpfman's: of a state, it names the ClusterBpfApplication.
	OwnedByLabel = "bpfman.io/ownedByProgram"
)

// Managed tells whether the operator has made an object.
func Managed(o metav1.Object) bool { return o.GetLabels()[ManagedByLabel] == Manager }

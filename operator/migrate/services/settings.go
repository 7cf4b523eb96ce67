// SPDX-License-Identifier: Apache-2.0

package services

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/objects"
)

// Settings are what a Service, which stays as it is, asks of its load balancer.
type Settings struct {
	// Annotations are for a Gateway beside the Service.
	Annotations map[string]string
	Sources     *v1alpha1.PolicySources
	Notes       []migrate.Note
}

// Beside returns the settings for a Gateway that serves some ports of a Service, while the
// Service goes on to serve others at its own address.
func Beside(o *objects.Object, obj corev1.Service) Settings {
	s := &service{Object: o, obj: obj, stays: true, annotations: map[string]string{}, labels: map[string]string{}}
	s.readAnnotations()
	s.readSources()
	if c := obj.Spec.LoadBalancerClass; c != nil {
		s.readClass(*c)
	}
	annotations, _ := group{s}.infrastructure()
	return Settings{Annotations: annotations, Sources: s.policy.Sources, Notes: s.notes}
}

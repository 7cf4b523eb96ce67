// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// stripPod returns the transformation of pods in the cache, which has those of the
// whole cluster: of a pod, only which addresses and ports of its node it has. Of
// the pods of the operator's own namespace, such as agents, more is read.
func stripPod(namespace string) toolscache.TransformFunc {
	return func(o any) (any, error) {
		pod, is := o.(*corev1.Pod)
		if !is { // the last that is known of a deleted one
			return o, nil
		}
		if pod.Namespace == namespace {
			pod.ManagedFields = nil
			return pod, nil
		}
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
				DeletionTimestamp: pod.DeletionTimestamp,
			},
			Spec: corev1.PodSpec{
				NodeName: pod.Spec.NodeName, HostNetwork: pod.Spec.HostNetwork,
				InitContainers: stripContainers(pod.Spec.InitContainers), Containers: stripContainers(pod.Spec.Containers),
			},
			Status: corev1.PodStatus{Phase: pod.Status.Phase, PodIPs: pod.Status.PodIPs},
		}, nil
	}
}

// stripContainers returns what takes ports of a node.
func stripContainers(all []corev1.Container) []corev1.Container {
	var kept []corev1.Container
	for i := range all {
		var ports []corev1.ContainerPort
		for _, p := range all[i].Ports {
			if p.HostPort != 0 {
				ports = append(ports, p)
			}
		}
		if len(ports) > 0 {
			kept = append(kept, corev1.Container{Ports: ports, RestartPolicy: all[i].RestartPolicy})
		}
	}
	return kept
}

// byAddress indexes objects by the addresses that they have or name.
const byAddress = "address"

// addressesOf returns the addresses by which an object is indexed, in the form that
// netip has for them. Only those are told here that no tenant can give an object:
// pods get theirs from the kubelet, Services from the API server and from load
// balancers.
func addressesOf(object client.Object) []string {
	var texts []string
	switch o := object.(type) {
	case *corev1.Pod:
		if o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed {
			return nil // its address may be another's by now
		}
		for _, ip := range o.Status.PodIPs {
			texts = append(texts, ip.IP)
		}
	case *corev1.Service:
		texts = append(texts, o.Spec.ClusterIPs...)
		for _, ingress := range o.Status.LoadBalancer.Ingress {
			texts = append(texts, ingress.IP)
		}
	case *discoveryv1.EndpointSlice:
		for i := range o.Endpoints {
			texts = append(texts, o.Endpoints[i].Addresses...)
		}
	}
	all := texts[:0:0]
	for _, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil { // not None, nor a name
			all = append(all, addr.Unmap().String())
		}
	}
	return all
}

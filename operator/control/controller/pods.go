// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
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

// byHostPort indexes the pods that have ports of their nodes.
const byHostPort = "hostPort"

// hasHostPorts returns the value by which a pod with ports of its node is indexed.
func hasHostPorts(object client.Object) []string {
	if len(hostPorts(object.(*corev1.Pod))) > 0 {
		return []string{"true"}
	}
	return nil
}

// hostPorts returns the ports of its node that a pod has: it is on a node, and has
// not ended. Init containers have them while they run on as sidecars.
func hostPorts(pod *corev1.Pod) []gateway.HostPort {
	if pod.Spec.NodeName == "" || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return nil
	}
	var all []gateway.HostPort
	add := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.HostPort == 0 || p.Protocol == corev1.ProtocolSCTP {
				continue
			}
			addr, _ := netip.ParseAddr(p.HostIP) // none: each of the node's
			all = append(all, gateway.HostPort{
				Pod: pod.Namespace + "/" + pod.Name, Node: pod.Spec.NodeName,
				Address: addr.Unmap(), Protocol: protocol(p.Protocol), Port: uint16(p.HostPort),
			})
		}
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	return all
}

// hostPortMemory has the hostPorts of pods, and since when each is gone; zero: it is
// not. A pod that is replaced must not lose its port to a listener that waits for it.
type hostPortMemory map[gateway.HostPort]time.Time

// remember returns the ports that pods have, and those that they had until less than
// rest ago.
func (m *hostPortMemory) remember(now time.Time, rest time.Duration, ports []gateway.HostPort) []gateway.HostPort {
	next := hostPortMemory{}
	for _, p := range ports {
		next[p] = time.Time{}
	}
	for p, since := range *m {
		if _, there := next[p]; there {
			continue
		}
		if since.IsZero() {
			since = now
		}
		if now.Sub(since) < rest {
			next[p] = since
			p.Gone = true
			ports = append(ports, p)
		}
	}
	*m = next
	return ports
}

// rests reports whether there is a port that pods do not have any more.
func (m hostPortMemory) rests() bool {
	for _, since := range m {
		if !since.IsZero() {
			return true
		}
	}
	return false
}

// byAddress indexes objects by the addresses that they have or, as EndpointSlices,
// name.
const byAddress = "address"

// addressIndex finds objects of the cache by address. It is asked for each endpoint,
// so it asks the informers' stores themselves.
type addressIndex struct{ pods, services, endpointSlices toolscache.Indexer }

func newAddressIndex(ctx context.Context, c cache.Cache) (*addressIndex, error) {
	var failed error
	index := func(o client.Object) toolscache.Indexer {
		informer, err := c.GetInformer(ctx, o, cache.BlockUntilSynced(false))
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("watch %T: %w", o, err))
			return nil
		}
		failed = errors.Join(failed, informer.AddIndexers(toolscache.Indexers{byAddress: func(o any) ([]string, error) {
			return addressesOf(o.(client.Object)), nil
		}}))
		return informer.(toolscache.SharedIndexInformer).GetIndexer()
	}
	a := &addressIndex{index(&corev1.Pod{}), index(&corev1.Service{}), index(&discoveryv1.EndpointSlice{})}
	return a, failed
}

// of returns the objects of a store that have an address.
func (a *addressIndex) of(store toolscache.Indexer, addr string) []any {
	found, err := store.ByIndex(byAddress, addr)
	if err != nil { // there is no such index
		panic(err)
	}
	return found
}

// Pods and IsService make the index gateway.Occupants.
func (a *addressIndex) Pods(addr netip.Addr) []gateway.Occupant {
	var all []gateway.Occupant
	for _, o := range a.of(a.pods, addr.String()) {
		all = append(all, gateway.NewOccupant(o.(*corev1.Pod)))
	}
	return all
}

// isPods reports whether a pod has an address of its own that is this one.
func (a *addressIndex) isPods(addr netip.Addr) bool {
	return slices.ContainsFunc(a.of(a.pods, addr.String()), func(o any) bool {
		pod := o.(*corev1.Pod)
		return !pod.Spec.HostNetwork && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
	})
}

func (a *addressIndex) IsService(addr netip.Addr) bool {
	return len(a.of(a.services, addr.String())) > 0
}

// servicesWith returns the Services that have an address among their endpoints.
func (a *addressIndex) servicesWith(addr string) []types.NamespacedName {
	var all []types.NamespacedName
	for _, o := range a.of(a.endpointSlices, addr) {
		all = append(all, serviceOfSlice(o.(*discoveryv1.EndpointSlice)))
	}
	return all
}

// serviceOfSlice returns the Service whose endpoints a slice has.
func serviceOfSlice(s *discoveryv1.EndpointSlice) types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
}

// addressesOf returns the addresses by which an object is indexed, in the form that
// netip has for them.
func addressesOf(object client.Object) []string {
	var all []string
	switch o := object.(type) {
	case *corev1.Pod:
		for _, addr := range gateway.PodAddresses(o) {
			all = append(all, addr.String())
		}
	case *corev1.Service:
		for _, addr := range gateway.ServiceAddresses(o) {
			all = append(all, addr.String())
		}
	case *discoveryv1.EndpointSlice:
		for i := range o.Endpoints {
			for _, text := range o.Endpoints[i].Addresses {
				if addr, err := netip.ParseAddr(text); err == nil { // not a name
					all = append(all, addr.Unmap().String())
				}
			}
		}
	}
	return all
}

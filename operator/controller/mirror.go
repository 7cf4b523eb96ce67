// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// maxMirrored is how many endpoints an EndpointSlice may have.
const maxMirrored = 1000

// mirror has the Service of a Gateway show the backends: load balancers that
// announce addresses do so only for Services with ready endpoints, under policy
// Local from the endpoints' nodes, and kube-proxy balances to them where the
// administrator has it serve pods.
func mirror(s *corev1.Service, t *gateway.Translation, e gateway.Endpoints) []*discoveryv1.EndpointSlice {
	var all []*discoveryv1.EndpointSlice
	for i := range t.Frontends {
		f := &t.Frontends[i]
		if f.Gateway != s.Namespace+"/"+s.OwnerReferences[0].Name {
			continue
		}
		j := slices.IndexFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
			return protocol(p.Protocol) == f.Protocol && uint16(p.Port) == f.Port
		})
		if j < 0 { // a node port
			continue
		}
		for _, ref := range f.Refs {
			all = append(all, mirrorRef(s, &s.Spec.Ports[j], f, ref, e)...)
		}
	}
	slices.SortFunc(all, func(a, b *discoveryv1.EndpointSlice) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(all, func(a, b *discoveryv1.EndpointSlice) bool { return a.Name == b.Name })
}

// mirrorRef makes the slices of one reference's endpoints in a frontend's family.
func mirrorRef(s *corev1.Service, port *corev1.ServicePort, f *gateway.Frontend, ref gateway.Ref, e gateway.Endpoints) []*discoveryv1.EndpointSlice {
	family, v6 := discoveryv1.AddressTypeIPv4, f.Addr.Is6()
	if v6 {
		family = discoveryv1.AddressTypeIPv6
	}
	byPort := map[uint16][]discoveryv1.Endpoint{}
	for _, p := range e[ref.Service].Ports {
		if p.Name != ref.PortName || p.Protocol != f.Protocol {
			continue
		}
		for _, ep := range p.Endpoints {
			if ep.Addr.Addr().Is6() == v6 {
				byPort[ep.Addr.Port()] = append(byPort[ep.Addr.Port()], mirrored(ep))
			}
		}
	}
	var made []*discoveryv1.EndpointSlice
	for number, found := range byPort {
		n := 0
		for chunk := range slices.Chunk(found, maxMirrored) {
			made = append(made, &discoveryv1.EndpointSlice{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: s.Namespace,
					Name: fmt.Sprintf("%s-%s", s.Name[:min(len(s.Name), 200)],
						shortHash(fmt.Sprint(port.Name, family, ref.Service, ref.PortName, number, n))),
					Labels: map[string]string{
						discoveryv1.LabelServiceName: s.Name, discoveryv1.LabelManagedBy: v1alpha1.Manager, v1alpha1.ManagedByLabel: v1alpha1.Manager,
					},
					OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(s, corev1.SchemeGroupVersion.WithKind("Service"))},
				},
				AddressType: family,
				Ports:       []discoveryv1.EndpointPort{{Name: &port.Name, Protocol: &port.Protocol, Port: new(int32(number))}},
				Endpoints:   chunk,
			})
			n++
		}
	}
	return made
}

func mirrored(ep gateway.Endpoint) discoveryv1.Endpoint {
	out := discoveryv1.Endpoint{
		Addresses: []string{ep.Addr.Addr().String()},
		Conditions: discoveryv1.EndpointConditions{
			Ready: new(ep.State == gateway.Ready), Serving: new(ep.State >= gateway.Leaving), Terminating: new(ep.State == gateway.Leaving),
		},
	}
	if ep.Node != "" {
		out.NodeName = &ep.Node
	}
	return out
}

// mirrorEndpoints writes the slices of all Services of ours, or of those alone
// that show endpoints of one Service.
func (c *Controller) mirrorEndpoints(ctx context.Context) error {
	slicesByService := map[types.NamespacedName][]*discoveryv1.EndpointSlice{}
	list := &discoveryv1.EndpointSliceList{}
	if err := c.list(ctx, list, managed); err != nil {
		return err
	}
	for i := range list.Items {
		s := &list.Items[i]
		key := types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
		slicesByService[key] = append(slicesByService[key], s)
	}
	var failed errorList
	for key, s := range c.world.services {
		if !v1alpha1.Managed(s) || len(s.OwnerReferences) == 0 {
			continue
		}
		stored := slicesByService[key]
		for _, want := range mirror(s, &c.translation, c.endpoints) {
			var before client.Object
			if i := slices.IndexFunc(stored, func(e *discoveryv1.EndpointSlice) bool { return e.Name == want.Name }); i >= 0 {
				before = stored[i]
				stored = slices.Delete(slices.Clone(stored), i, i+1)
			}
			failed.add(c.apply(ctx, want, before))
		}
		for _, e := range stored {
			failed.add(c.remove(ctx, e))
		}
	}
	return failed.err()
}

func protocol(p corev1.Protocol) lb.Protocol {
	if p == corev1.ProtocolUDP {
		return lb.UDP
	}
	return lb.TCP
}

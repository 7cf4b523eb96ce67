// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxEndpoints is how many Kubernetes allows in an EndpointSlice.
const maxEndpoints = 1000

// ref is a backendRef.
type ref struct {
	namespace, name string
	port            uint16
	weight          int
	priority        int // of a backup Service, from 1 on
}

// pool is a list of Backends. It becomes a Service for all those of the same weight.
type pool struct {
	groups []group
	served map[corev1.Protocol]map[uint16]bool
}

// group are the backends that are a Service.
type group struct {
	service  *corev1.Service
	slices   []slice
	weight   int // of each backend
	priority int // of backup servers, from 1 on
	backends []Backend
}

// slice is an EndpointSlice, and the port of its endpoints; 0: the listener's.
type slice struct {
	*discoveryv1.EndpointSlice
	port uint16
}

// refs returns the backendRefs of the frontend.
func (b *builder) refs(f *Frontend) []ref {
	var refs []ref
	for _, s := range f.Services {
		refs = append(refs, ref{cmp.Or(s.Namespace, f.Namespace), s.Name, s.Port, cmp.Or(s.Weight, 1), 0})
	}
	if len(f.Services) > 0 {
		return scaled(f, refs)
	}
	p := b.pool(f)
	for _, g := range p.groups {
		refs = append(refs, ref{f.Namespace, g.service.Name, f.Port, g.weight * max(g.count("IPv4"), g.count("IPv6")), g.priority})
	}
	checkFamilies(f, p.groups)
	return scaled(f, refs)
}

// pool returns the Services that have the backends of the frontend.
func (b *builder) pool(f *Frontend) *pool {
	key := poolKey(f)
	p := b.pools[key]
	if p != nil {
		return p
	}
	p = &pool{served: map[corev1.Protocol]map[uint16]bool{}}
	b.pools[key] = p
	p.groups = divide(f)
	for i := range p.groups {
		g := &p.groups[i]
		name := valid(cmp.Or(f.Pool, f.Name))
		if g.priority > 0 {
			name += "-backup"
		}
		if g.weight != 1 && slices.ContainsFunc(p.groups, func(o group) bool { return o.priority == g.priority && o.weight != g.weight }) {
			name += fmt.Sprintf("-w%d", g.weight)
		}
		g.service = &corev1.Service{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
			ObjectMeta: metav1.ObjectMeta{Namespace: f.Namespace, Name: b.names.take("Service/"+f.Namespace, name)},
		}
	}
	return p
}

func poolKey(f *Frontend) string {
	var key strings.Builder
	fmt.Fprintf(&key, "%s %q", f.Namespace, cmp.Or(f.Pool, f.Name))
	for _, s := range f.Backends {
		fmt.Fprintf(&key, " %s %d %t %d", s, s.Weight, s.Backup, s.Turn)
	}
	return key.String()
}

// servers adds the Services of a frontend and their EndpointSlices, and to those that are
// there a port for it.
func (b *builder) servers(f *Frontend) {
	if len(f.Services) > 0 {
		return
	}
	p := b.pool(f)
	if len(p.served) == 0 {
		for i := range p.groups {
			b.write(f, &p.groups[i])
		}
	}
	if p.served[f.Protocol] == nil {
		p.served[f.Protocol] = map[uint16]bool{}
	}
	if p.served[f.Protocol][f.Port] {
		return
	}
	p.served[f.Protocol][f.Port] = true
	name, number, protocol := fmt.Sprintf("%s-%d", strings.ToLower(string(f.Protocol)), f.Port), int32(f.Port), f.Protocol
	for i := range p.groups {
		g := &p.groups[i]
		g.service.Spec.Ports = append(g.service.Spec.Ports, corev1.ServicePort{Name: name, Protocol: protocol, Port: number})
		for j := range g.slices {
			port := int32(cmp.Or(g.slices[j].port, f.Port))
			g.slices[j].Ports = append(g.slices[j].Ports, discoveryv1.EndpointPort{Name: &name, Protocol: &protocol, Port: &port})
		}
	}
}

// write adds a Service with its EndpointSlices, of which each has addresses of one family
// with the same port.
func (b *builder) write(f *Frontend, g *group) {
	b.add(f, g.service)
	b.objects[len(b.objects)-1].From = nil
	type kind struct {
		family string
		port   uint16
	}
	by := map[kind][]Backend{}
	var order []kind
	for _, s := range g.backends {
		k := kind{family(s.Addr), s.Port}
		if by[k] == nil {
			order = append(order, k)
		}
		by[k] = append(by[k], s)
	}
	for _, k := range order {
		name := g.service.Name + "-" + strings.ToLower(k.family)
		if k.port != 0 {
			name += fmt.Sprintf("-%d", k.port)
		}
		for some := range slices.Chunk(by[k], maxEndpoints) {
			e := &discoveryv1.EndpointSlice{
				TypeMeta: metav1.TypeMeta{APIVersion: discoveryv1.SchemeGroupVersion.String(), Kind: "EndpointSlice"},
				ObjectMeta: metav1.ObjectMeta{
					Namespace: f.Namespace, Name: b.names.take("EndpointSlice/"+f.Namespace, name),
					Labels: map[string]string{discoveryv1.LabelServiceName: g.service.Name},
				},
				AddressType: discoveryv1.AddressType(k.family),
			}
			for _, s := range some {
				e.Endpoints = append(e.Endpoints, endpoint(s))
			}
			g.slices = append(g.slices, slice{e, k.port})
			b.objects = append(b.objects, Object{From: places(some), Value: e})
		}
	}
}

func endpoint(s Backend) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{s.Addr.String()}}
	if s.Weight == 0 {
		ready := false
		e.Conditions.Ready = &ready
	}
	return e
}

func places(of []Backend) (all []Place) {
	for _, s := range of {
		if !slices.Contains(all[max(0, len(all)-1):], s.Place) {
			all = append(all, s.Place)
		}
	}
	return all
}

// count returns how many backends of a family can get new connections.
func (g *group) count(of string) (n int) {
	for _, s := range g.backends {
		if family(s.Addr) == of && s.Weight > 0 {
			n++
		}
	}
	return n
}

// server tells servers apart.
type server struct {
	addr   netip.Addr
	port   uint16
	backup bool
	turn   int
}

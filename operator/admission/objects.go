// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// Objects are all that files define.
type Objects struct {
	gateway.Objects
	EndpointSlices []discoveryv1.EndpointSlice
	// LeftOut are policies that files have besides, and that do not count.
	LeftOut []LeftOut
}

// kinds are how the objects of each kind are listed, added and made.
var kinds = map[string]kind{
	"GatewayClass":       of(func(o *Objects) *[]gwv1.GatewayClass { return &o.GatewayClasses }),
	"Gateway":            of(func(o *Objects) *[]gwv1.Gateway { return &o.Gateways }),
	"ListenerSet":        of(func(o *Objects) *[]gwv1.ListenerSet { return &o.ListenerSets }),
	"TCPRoute":           of(func(o *Objects) *[]gwv1.TCPRoute { return &o.TCPRoutes }),
	"UDPRoute":           of(func(o *Objects) *[]gwv1.UDPRoute { return &o.UDPRoutes }),
	"ReferenceGrant":     of(func(o *Objects) *[]gwv1.ReferenceGrant { return &o.ReferenceGrants }),
	"Service":            of(func(o *Objects) *[]corev1.Service { return &o.Services }),
	"BlixtConfig":        of(func(o *Objects) *[]v1alpha1.BlixtConfig { return &o.Configs }),
	"BlixtGatewayConfig": of(func(o *Objects) *[]v1alpha1.BlixtGatewayConfig { return &o.GatewayConfigs }),
	"BlixtPolicy":        of(func(o *Objects) *[]v1alpha1.BlixtPolicy { return &o.Policies }),
	"Namespace":          of(func(o *Objects) *[]corev1.Namespace { return &o.Namespaces }),
	"EndpointSlice":      of(func(o *Objects) *[]discoveryv1.EndpointSlice { return &o.EndpointSlices }),
}

type kind struct {
	all func(*Objects) []metav1.Object
	add func(*Objects, metav1.Object)
	// grow makes room for so many.
	grow func(*Objects, int)
	new  func() metav1.Object
}

func of[T any, P interface {
	*T
	metav1.Object
}](list func(*Objects) *[]T) kind {
	return kind{
		all: func(o *Objects) []metav1.Object {
			all := make([]metav1.Object, 0, len(*list(o)))
			for i := range *list(o) {
				all = append(all, P(&(*list(o))[i]))
			}
			return all
		},
		add:  func(o *Objects, object metav1.Object) { *list(o) = append(*list(o), *object.(P)) },
		grow: func(o *Objects, n int) { *list(o) = slices.Grow(*list(o), n) },
		new:  func() metav1.Object { return P(new(T)) },
	}
}

// named is an object with its kind. Its version is the object itself: nobody changes it.
type named struct {
	kind string
	metav1.Object
}

// name returns kind and name as messages have them.
func (n named) name() string {
	if n.GetNamespace() == "" {
		return n.kind + " " + n.GetName()
	}
	return n.kind + " " + n.GetNamespace() + "/" + n.GetName()
}

// index returns the objects by name.
func index(o *Objects) map[string]named {
	of, total := map[string][]metav1.Object{}, 0
	for kind, k := range kinds {
		of[kind] = k.all(o)
		total += len(of[kind])
	}
	all := make(map[string]named, total)
	for kind, objects := range of {
		for _, object := range objects {
			n := named{kind, object}
			all[n.name()] = n
		}
	}
	return all
}

// collect is the reverse of index.
func collect(all map[string]named) Objects {
	var o Objects
	count := map[string]int{}
	for _, n := range all {
		count[n.kind]++
	}
	for kind, n := range count {
		kinds[kind].grow(&o, n)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		kinds[all[name].kind].add(&o, all[name].Object)
	}
	return o
}

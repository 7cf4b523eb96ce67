// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// kind is a kind of object that Blixt reads.
type kind struct {
	group string
	// versions have the same fields; messages recommend the first.
	versions   []string
	namespaced bool
	schema     *schema // nil: it is not checked by that
	// add decodes JSON into the set and returns what is wrong with it.
	add func(*Set, []byte) ([]invalid, error)
}

var kinds = map[string]*kind{
	"GatewayClass": {gwv1.GroupName, []string{"v1", "v1beta1"}, false, schemas["GatewayClass"],
		into(func(s *Set) *[]gwv1.GatewayClass { return &s.Objects.GatewayClasses }, nil)},
	"Gateway": {gwv1.GroupName, []string{"v1", "v1beta1"}, true, schemas["Gateway"],
		into(func(s *Set) *[]gwv1.Gateway { return &s.Objects.Gateways }, nil)},
	"ListenerSet": {gwv1.GroupName, []string{"v1"}, true, schemas["ListenerSet"],
		into(func(s *Set) *[]gwv1.ListenerSet { return &s.Objects.ListenerSets }, nil)},
	"TCPRoute": {gwv1.GroupName, []string{"v1"}, true, schemas["TCPRoute"],
		into(func(s *Set) *[]gwv1.TCPRoute { return &s.Objects.TCPRoutes }, nil)},
	"UDPRoute": {gwv1.GroupName, []string{"v1"}, true, schemas["UDPRoute"],
		into(func(s *Set) *[]gwv1.UDPRoute { return &s.Objects.UDPRoutes }, nil)},
	"ReferenceGrant": {gwv1.GroupName, []string{"v1", "v1beta1"}, true, schemas["ReferenceGrant"],
		into(func(s *Set) *[]gwv1.ReferenceGrant { return &s.Objects.ReferenceGrants }, nil)},
	"BlixtPolicy": {v1alpha1.GroupVersion.Group, []string{v1alpha1.GroupVersion.Version}, true, schemas["BlixtPolicy"],
		into(func(s *Set) *[]v1alpha1.BlixtPolicy { return &s.Objects.Policies }, nil)},
	// Package gateway validates the values of these two.
	"BlixtConfig": {v1alpha1.GroupVersion.Group, []string{v1alpha1.GroupVersion.Version}, false, nil,
		into(func(s *Set) *[]v1alpha1.BlixtConfig { return &s.Objects.Configs }, nil)},
	"BlixtGatewayConfig": {v1alpha1.GroupVersion.Group, []string{v1alpha1.GroupVersion.Version}, true, nil,
		into(func(s *Set) *[]v1alpha1.BlixtGatewayConfig { return &s.Objects.GatewayConfigs }, nil)},
	"Service": {"", []string{"v1"}, true, nil,
		into(func(s *Set) *[]corev1.Service { return &s.Objects.Services }, checkService)},
	"Namespace": {"", []string{"v1"}, false, nil,
		into(func(s *Set) *[]corev1.Namespace { return &s.Objects.Namespaces }, nil)},
	"EndpointSlice": {"discovery.k8s.io", []string{"v1"}, true, nil,
		into(func(s *Set) *[]discoveryv1.EndpointSlice { return &s.EndpointSlices }, checkEndpointSlice)},
}

// into decodes, checks and appends an object to its list.
func into[T any, P interface {
	*T
	metav1.Object
}](list func(*Set) *[]T, check func(P) []invalid) func(*Set, []byte) ([]invalid, error) {
	return func(s *Set, text []byte) ([]invalid, error) {
		var object T
		wrong, err := strict(text, &object)
		if err != nil {
			return wrong, err
		}
		wrong = append(wrong, checkMetadata(P(&object))...)
		if check != nil {
			wrong = append(wrong, check(&object)...)
		}
		*list(s) = append(*list(s), object)
		return wrong, nil
	}
}

// findKind returns nil for kinds that Blixt does not read. If such a kind must be a
// mistake, or Blixt reads the kind under another apiVersion, it returns the field that is
// wrong, and why.
func findKind(apiVersion, name string) (k *kind, field, reason string) {
	group, version, ok := strings.Cut(apiVersion, "/")
	if !ok {
		group, version = "", apiVersion
	}
	k = kinds[name]
	if k == nil || group != k.group && group != "" {
		field, reason = mistaken(group, name) // networking.istio.io has a Gateway, too
		return nil, field, reason
	}
	if group == k.group && slices.Contains(k.versions, version) {
		return k, "", ""
	}
	return nil, "apiVersion", fmt.Sprintf("apiVersion %s is not supported: write %s", apiVersion, strings.TrimPrefix(k.group+"/"+k.versions[0], "/"))
}

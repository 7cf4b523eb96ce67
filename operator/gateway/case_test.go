// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// testCase is an input file: objects, and a document without a kind for the
// options.
type testCase struct {
	Objects gateway.Objects
	Slices  []discoveryv1.EndpointSlice
	Pods    []corev1.Pod
	Options gateway.Options
	Resolve gateway.ResolveOptions
	// Progress is that of Gateways, by namespace/name.
	Progress map[string]gateway.Progress
	// Lacking are policies for which nodes have no room.
	Lacking map[string]string
	// Preservation is where nodes preserve addresses. Nil: not known. Recent are the
	// Gateways for which it has changed a moment ago.
	Preservation *gateway.Preservation
	Recent       []string
	// earlier is what was translated before. Nil: nothing.
	earlier *testCase
}

func readCase(t *testing.T, path string) testCase {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := parseCase(text)
	if err != nil {
		t.Fatalf("read %s: %v", path, err)
	}
	return c
}

func parseCase(text []byte) (testCase, error) {
	var c testCase
	for _, doc := range splitDocuments(text) {
		var meta metav1.TypeMeta
		err := yaml.Unmarshal(doc, &meta)
		if err == nil {
			err = c.add(meta.Kind, doc)
		}
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

// then begins what comes later: objects that follow replace those of the same name.
func (c *testCase) then(deleted []string) error {
	earlier := *c
	c.earlier = &earlier
	if c.Options.Cluster != nil { // which options that follow are decoded into
		cluster := *c.Options.Cluster
		cluster.Nodes, cluster.HostPorts = slices.Clone(cluster.Nodes), slices.Clone(cluster.HostPorts)
		c.Options.Cluster = &cluster
	}
	o := &c.Objects
	for _, name := range deleted {
		kind, name, _ := strings.Cut(name, " ")
		switch kind {
		case "Gateway":
			o.Gateways = without(o.Gateways, fullName(name))
		case "ListenerSet":
			o.ListenerSets = without(o.ListenerSets, fullName(name))
		case "BlixtPolicy":
			o.Policies = without(o.Policies, fullName(name))
		case "BlixtGatewayConfig":
			o.GatewayConfigs = without(o.GatewayConfigs, fullName(name))
		default:
			return fmt.Errorf("cannot delete %q", kind)
		}
	}
	return nil
}

// without returns a copy of the list without the object.
func without[T any, P interface {
	*T
	metav1.Object
}](list []T, name types.NamespacedName) []T {
	return slices.DeleteFunc(slices.Clone(list), func(o T) bool {
		return P(&o).GetNamespace() == name.Namespace && P(&o).GetName() == name.Name
	})
}

// add decodes a document. Objects without a namespace are in default.
func (c *testCase) add(kind string, doc []byte) error {
	switch kind {
	case "":
		return c.addOptions(doc)
	case "GatewayClass":
		return appendTo(&c.Objects.GatewayClasses, doc)
	case "Gateway":
		return appendTo(&c.Objects.Gateways, doc)
	case "ListenerSet":
		return appendTo(&c.Objects.ListenerSets, doc)
	case "BlixtConfig":
		return appendTo(&c.Objects.Configs, doc)
	case "BlixtGatewayConfig":
		return appendTo(&c.Objects.GatewayConfigs, doc)
	case "BlixtPolicy":
		return appendTo(&c.Objects.Policies, doc)
	case "TCPRoute":
		return appendTo(&c.Objects.TCPRoutes, doc)
	case "UDPRoute":
		return appendTo(&c.Objects.UDPRoutes, doc)
	case "ReferenceGrant":
		return appendTo(&c.Objects.ReferenceGrants, doc)
	case "Service":
		return appendTo(&c.Objects.Services, doc)
	case "Namespace":
		return appendTo(&c.Objects.Namespaces, doc)
	case "EndpointSlice":
		return appendTo(&c.Slices, doc)
	case "Pod":
		return appendTo(&c.Pods, doc)
	}
	return fmt.Errorf("unknown kind %q", kind)
}

// addOptions reads the document without a kind.
func (c *testCase) addOptions(doc []byte) error {
	var assigned map[string]gateway.Assigned
	var later struct {
		Then    string   `json:"then"`
		Deleted []string `json:"deleted"`
	}
	if yaml.UnmarshalStrict(doc, &later) == nil && later.Then != "" {
		return c.then(later.Deleted)
	}
	var good map[string]gateway.Parameters
	err := yaml.UnmarshalStrict(doc, &struct {
		Options  *gateway.Options               `json:"options"`
		Resolve  *gateway.ResolveOptions        `json:"resolve"`
		Progress *map[string]gateway.Progress   `json:"progress"`
		Lacking  *map[string]string             `json:"lacking"`
		Preserve **gateway.Preservation         `json:"preservation"`
		Recent   *[]string                      `json:"recent"`
		Assigned *map[string]gateway.Assigned   `json:"assigned"`
		LastGood *map[string]gateway.Parameters `json:"lastGood"`
	}{&c.Options, &c.Resolve, &c.Progress, &c.Lacking, &c.Preservation, &c.Recent, &assigned, &good})
	for name, p := range good {
		if c.Options.LastGood.Gateways == nil {
			c.Options.LastGood.Gateways = map[types.NamespacedName]gateway.Parameters{}
		}
		c.Options.LastGood.Gateways[fullName(name)] = p
	}
	if err != nil || assigned == nil {
		return err
	}
	if c.Options.Cluster == nil {
		return errors.New("assigned needs options.cluster")
	}
	cluster := *c.Options.Cluster
	c.Options.Cluster = &cluster
	cluster.Assigned = map[types.NamespacedName]gateway.Assigned{}
	for name, a := range assigned {
		cluster.Assigned[fullName(name)] = a
	}
	return nil
}

// fullName parses namespace/name.
func fullName(text string) types.NamespacedName {
	namespace, name, _ := strings.Cut(text, "/")
	return types.NamespacedName{Namespace: namespace, Name: name}
}

// IsService and the method Pods of occupants tell what the case's objects say.
func (c *testCase) IsService(addr netip.Addr) bool {
	return slices.ContainsFunc(c.Objects.Services, func(s corev1.Service) bool {
		return slices.Contains(gateway.ServiceAddresses(&s), addr)
	})
}

type occupants struct{ *testCase }

func (o occupants) Pods(addr netip.Addr) []gateway.Occupant {
	var all []gateway.Occupant
	for i := range o.testCase.Pods {
		if p := &o.testCase.Pods[i]; slices.Contains(gateway.PodAddresses(p), addr) {
			all = append(all, gateway.NewOccupant(p))
		}
	}
	return all
}

// policy returns that for endpoints, or nil without a cluster.
func (c *testCase) policy(t *gateway.Translation) *gateway.EndpointPolicy {
	if c.Options.Cluster == nil {
		return nil
	}
	return gateway.NewEndpointPolicy(t, c.Options.Cluster, c.Objects.Namespaces, occupants{c})
}

// translate calls Translate, after what was there earlier, and SetProgress with the
// progress of the case. Of a cluster with pods, routes have the condition about
// endpoints as well.
func (c *testCase) translate() gateway.Translation {
	if c.earlier != nil {
		earlier := c.earlier.translate()
		c.Options.Incumbents, c.Options.LastGood = &earlier.Incumbents, earlier.LastGood
	}
	translation := gateway.Translate(c.Objects, c.Options)
	if len(c.Pods) > 0 {
		policy := c.policy(&translation)
		translation.SetEndpoints(gateway.NewUsers(&translation, policy).Report(gateway.IndexEndpoints(c.Slices, policy)))
	}
	progress, stored := map[types.NamespacedName]gateway.Progress{}, map[types.NamespacedName][]metav1.Condition{}
	for name, p := range c.Progress {
		progress[fullName(name)] = p
	}
	for i := range c.Objects.Gateways {
		gw := &c.Objects.Gateways[i]
		stored[types.NamespacedName{Namespace: gw.Namespace, Name: gw.Name}] = gw.Status.Conditions
	}
	translation.SetProgress(progress, stored)
	ancestors := map[types.NamespacedName][]gwv1.PolicyAncestorStatus{}
	for i := range c.Objects.Policies {
		p := &c.Objects.Policies[i]
		ancestors[types.NamespacedName{Namespace: p.Namespace, Name: p.Name}] = p.Status.Ancestors
	}
	translation.SetPolicyProgress(progress, c.Lacking, ancestors)
	var notPreserved map[types.NamespacedName]gateway.NotPreserved
	if c.Preservation != nil {
		notPreserved = translation.FindNotPreserved(*c.Preservation, gateway.IndexEndpoints(c.Slices, c.policy(&translation)))
		for name, n := range notPreserved {
			n.Recent = slices.Contains(c.Recent, name.String())
			notPreserved[name] = n
		}
	}
	translation.SetNotPreserved(notPreserved, stored)
	return translation
}

func appendTo[T any, P interface {
	*T
	metav1.Object
}](list *[]T, doc []byte) error {
	var object T
	if err := yaml.UnmarshalStrict(doc, &object); err != nil {
		return err
	}
	switch any(&object).(type) {
	case *gwv1.GatewayClass, *corev1.Namespace, *v1alpha1.BlixtConfig:
	default:
		if P(&object).GetNamespace() == "" {
			P(&object).SetNamespace("default")
		}
	}
	name := types.NamespacedName{Namespace: P(&object).GetNamespace(), Name: P(&object).GetName()}
	*list = append(without[T, P](*list, name), object)
	return nil
}

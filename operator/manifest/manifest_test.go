// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// write makes a directory of files, given as name and text in turn.
func write(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, files[i]), []byte(files[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n"

func TestRead_Examples(t *testing.T) {
	set, err := Read("../../examples/standalone")
	if err != nil {
		t.Fatal(err)
	}
	translation := gateway.Translate(set.Objects, gateway.Options{})
	r := gateway.Resolve(&translation.Unresolved, gateway.IndexEndpoints(set.EndpointSlices, nil), gateway.ResolveOptions{})
	if problems := append(translation.Problems(), r.Problems()...); len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
	got := map[string]int{}
	for _, f := range r.State.Frontends {
		got[f.Key().String()] = len(f.Backends)
		var a, all uint64
		for _, b := range f.Backends {
			all += b.Weight
			if b.Service == "default/web-a" {
				a += b.Weight
			}
			if b.Local {
				t.Errorf("backend %s is local, want all of them elsewhere", b.Addr)
			}
		}
		if f.Protocol == lb.TCP && a*4 != all*3 {
			t.Errorf("%s: web-a gets %d of %d, want three of four", f.Key(), a, all)
		}
	}
	want := map[string]int{"198.51.100.10:80/tcp": 4, "198.51.100.10:53/udp": 4, "[2001:db8:100::10]:80/tcp": 4, "[2001:db8:100::10]:53/udp": 4}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("backends per frontend (-want +got):\n%s", diff)
	}
}

func TestRead_DocumentsListsAndJSON(t *testing.T) {
	dir := write(t,
		"a.yaml", "# a comment\n---\n"+service+"---\n---\n"+strings.Replace(service, "web", "web2", 1),
		"b.yml", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: web3}\n  spec: {ports: [{port: 80}]}\n",
		"c.json", "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Namespace\",\n\t\"metadata\": {\"name\": \"prod\"}\n}\n",
		"d.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: theirs, namespace: prod}\n",
		".hidden.yaml", "nonsense: [", "#a.yaml#", "nonsense: [", "a.yaml~", "nonsense: [", "a.yaml.swp", "nonsense: [", ".#a.yaml", "x", "README.md", "# x",
	)
	if err := os.Mkdir(filepath.Join(dir, "sub.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	set, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range set.Objects.Services {
		names = append(names, s.Namespace+"/"+s.Name)
	}
	if diff := cmp.Diff([]string{"default/web", "default/web2", "default/web3"}, names); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	if n := len(set.Objects.Namespaces); n != 1 || set.Objects.Namespaces[0].Namespace != "" {
		t.Errorf("%d namespaces, want one", n)
	}
	want := []Object{
		{File: "d.yaml", Line: 1, APIVersion: "apps/v1", Kind: "Deployment", Name: "default/web"},
		{File: "d.yaml", Line: 5, APIVersion: "networking.istio.io/v1", Kind: "Gateway", Name: "prod/theirs"},
	}
	if diff := cmp.Diff(want, set.Ignored); diff != "" {
		t.Errorf("ignored (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"a.yaml", "b.yml", "c.json", "d.yaml"}, set.Files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestRead_SetsDefaults(t *testing.T) {
	set, err := Read(write(t, "a.yaml", `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: demo}
spec: {gatewayClassName: blixt, addresses: [{value: 192.0.2.1}], listeners: [{name: web, protocol: TCP, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: web}
spec: {parentRefs: [{name: demo}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
`+service+`---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: grant, namespace: prod}
spec:
  from: [{group: gateway.networking.k8s.io, kind: TCPRoute, namespace: default}]
  to: [{group: "", kind: Service}]
`))
	if err != nil {
		t.Fatal(err)
	}
	gw := set.Objects.Gateways[0]
	if gw.Namespace != "default" || *gw.Spec.Addresses[0].Type != gwv1.IPAddressType ||
		*gw.Spec.Listeners[0].AllowedRoutes.Namespaces.From != gwv1.NamespacesFromSame {
		t.Errorf("gateway lacks defaults: %+v", gw)
	}
	route := set.Objects.TCPRoutes[0].Spec
	if ref := route.Rules[0].BackendRefs[0]; *ref.Weight != 1 || *ref.Kind != "Service" || *ref.Group != "" {
		t.Errorf("backendRef lacks defaults: %+v", ref)
	}
	if ref := route.ParentRefs[0]; *ref.Kind != "Gateway" || *ref.Group != gwv1.GroupName {
		t.Errorf("parentRef lacks defaults: %+v", ref)
	}
	if port := set.Objects.Services[0].Spec.Ports[0]; port.Protocol != corev1.ProtocolTCP {
		t.Errorf("service port lacks its default: %+v", port)
	}
	if len(set.Objects.ReferenceGrants) != 1 {
		t.Errorf("grant of version v1beta1 was not read")
	}
}

func TestRead_ListenerSetsAndParameters(t *testing.T) {
	set, err := Read(write(t, "a.yaml", `apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more}
spec: {parentRef: {name: demo}, listeners: [{name: dns, protocol: UDP, port: 53}]}
---
apiVersion: blixt.x-k8s.io/v1alpha1
kind: BlixtGatewayConfig
metadata: {name: own}
spec: {externalTrafficPolicy: Local, idleTimeouts: {tcp: 1h}}
---
apiVersion: blixt.x-k8s.io/v1alpha1
kind: BlixtConfig
metadata: {name: blixt}
spec: {addresses: {source: Node}}
`))
	if err != nil {
		t.Fatal(err)
	}
	if l := set.Objects.ListenerSets[0]; l.Namespace != "default" || *l.Spec.ParentRef.Kind != "Gateway" ||
		*l.Spec.Listeners[0].AllowedRoutes.Namespaces.From != gwv1.NamespacesFromSame {
		t.Errorf("ListenerSet lacks defaults: %+v", l)
	}
	if c := set.Objects.GatewayConfigs[0]; c.Namespace != "default" || c.Spec.IdleTimeouts.TCP.Duration != time.Hour {
		t.Errorf("BlixtGatewayConfig was not read: %+v", c)
	}
	if c := set.Objects.Configs[0]; c.Namespace != "" || c.Spec.Addresses.Source != "Node" {
		t.Errorf("BlixtConfig was not read: %+v", c)
	}
}

// What others read, and what Gateway API has besides, is no mistake.
func TestRead_IgnoresForeignKinds(t *testing.T) {
	foreign := []string{
		"gateway.networking.k8s.io/v1 HTTPRoute", "gateway.networking.k8s.io/v1 TLSRoute", "gateway.networking.k8s.io/v1 BackendTLSPolicy",
		"gateway.networking.x-k8s.io/v1alpha1 XListenerSet", "blixt.x-k8s.io/v1alpha1 NodeDataplane",
		"v1 ServiceAccount", "v1 Secret", "v1 Endpoints", "v1 Node", "apps/v1 Deployment", "networking.k8s.io/v1 Ingress",
		"networking.istio.io/v1 Gateway", "example.com/v1 TCPRouet", "serving.knative.dev/v1 Service",
	}
	text := ""
	for _, f := range foreign {
		apiVersion, kind, _ := strings.Cut(f, " ")
		text += fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: web}\n---\n", apiVersion, kind)
	}
	set, err := Read(write(t, "a.yaml", text))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range set.Ignored {
		got = append(got, o.APIVersion+" "+o.Kind)
	}
	if diff := cmp.Diff(foreign, got); diff != "" {
		t.Errorf("ignored (-want +got):\n%s", diff)
	}
}

// What kubectl prints has a status and managed fields.
func TestRead_TakesWhatKubectlPrints(t *testing.T) {
	set, err := Read(write(t, "a.yaml", `apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata:
  name: blixt
  creationTimestamp: "2026-01-01T00:00:00Z"
  generation: 3
  resourceVersion: "12"
  uid: 3f0c0a5e-0000-0000-0000-000000000000
  annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}
  managedFields:
  - {apiVersion: gateway.networking.k8s.io/v1, fieldsType: FieldsV1, fieldsV1: {"f:spec": {}}, manager: kubectl, operation: Apply}
spec: {controllerName: gateway.networking.k8s.io/blixt}
status: {conditions: [], whatever: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	if c := set.Objects.GatewayClasses[0]; c.Generation != 3 || c.CreationTimestamp.IsZero() {
		t.Errorf("metadata was lost: %+v", c.ObjectMeta)
	}
}

func TestRead_Anchors(t *testing.T) {
	_, err := Read(write(t, "a.yaml", `apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ports:
  - &port {name: a, port: 80}
  - <<: *port
    name: b
    port: 99999
`))
	want := "a.yaml:9: Service default/web: spec.ports[1].port: 99999 is not a port: use 1 to 65535"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestRead_NothingIsAnError(t *testing.T) {
	if _, err := Read(write(t, "README", "")); err == nil || !strings.Contains(err.Error(), "no *.yaml, *.yml or *.json files") {
		t.Errorf("error of a directory without manifests: %v", err)
	}
	if _, err := Read(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error of an absent directory: %v", err)
	}
	want := "a.yaml: the file is empty: remove it, or write a comment into it"
	if _, err := Read(write(t, "a.yaml", "\n")); err == nil || err.Error() != want {
		t.Errorf("error of an empty file: %v, want %s", err, want)
	}
	if _, err := Read(write(t, "a.yaml", "# nothing is to be served\n")); err != nil {
		t.Errorf("a file that says nothing on purpose: %v", err)
	}
}

func TestRead_ReportsAllFilesAndNamesBoth(t *testing.T) {
	_, err := Read(write(t, "b.yaml", service, "a.yaml", "# first\n"+service, "c.yaml", "a: b: c\n"))
	want := "b.yaml:1: Service default/web: is defined at a.yaml:2 already\n" +
		"c.yaml:1: mapping values are not allowed in this context"
	if err == nil || err.Error() != want {
		t.Errorf("errors:\n%v\nwant:\n%s", err, want)
	}
	var one *Error
	if !errors.As(err, &one) || one.File != "b.yaml" || one.Line != 1 {
		t.Errorf("errors.As found %+v", one)
	}
}

func TestRead_FollowsSymlinks(t *testing.T) {
	dir := write(t, "a.yaml", service)
	link := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "a.yaml"), filepath.Join(link, "b.yaml")); err != nil {
		t.Fatal(err)
	}
	set, err := Read(link)
	if err != nil || len(set.Objects.Services) != 1 {
		t.Fatalf("read through a symlink: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	var errs Errors
	if _, err := Read(link); !errors.As(err, &errs) || errs[0].File != "b.yaml" {
		t.Errorf("error of a dangling symlink: %v", err)
	}
}

func TestRead_SyntaxErrorsNameTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"a: b: c\n":                     "a.yaml:1: mapping values are not allowed in this context",
		"a: 1\nb:\n  - x\n c: 2\n":      "a.yaml:4: did not find expected key",
		"a: [1, 2\nb: 3\n":              "a.yaml:2: did not find expected ',' or ']'",
		"# c\n---\na: 1\n---\nb: *no\n": "a.yaml:5: unknown anchor 'no' referenced",
		"a: 1\n\tb: 2\n":                "a.yaml:2: a tab character: YAML indents with spaces",
	} {
		_, err := Read(write(t, "a.yaml", text))
		lines := strings.Split(err.Error(), "\n")
		if got := lines[len(lines)-1]; got != want {
			t.Errorf("%q: error %q, want %q", text, got, want)
		}
	}
}

// Aliases of aliases must not fill the memory.
func TestRead_RefusesAliasBombs(t *testing.T) {
	text := "apiVersion: v1\nkind: Service\nmetadata: {name: web}\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := range 12 {
		text += strings.ReplaceAll("aN: &aN [*aM, *aM, *aM, *aM, *aM, *aM, *aM, *aM, *aM, *aM]\n", "N", string(rune('b'+i)))
		text = strings.ReplaceAll(text, "aM", map[bool]string{true: "a0", false: "a" + string(rune('a'+i))}[i == 0])
	}
	if _, err := Read(write(t, "a.yaml", text)); err == nil || !strings.Contains(err.Error(), "excessive aliasing") {
		t.Errorf("error of an alias bomb: %v", err)
	}
}

// A set differs by endpoints if nothing else differs but lines.
func TestDiffersByEndpoints(t *testing.T) {
	const slice = "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web, labels: {kubernetes.io/service-name: web}}\n" +
		"addressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [10.0.0.1]}]\n"
	parse := func(text string) *Set {
		t.Helper()
		set, err := Parse("a.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	before := parse(service + slice)
	for text, want := range map[string]bool{
		service + slice:               true,
		"# moved\n" + service + slice: true,
		service + strings.Replace(slice, "10.0.0.1", "10.0.0.2", 1):                 true,
		service + strings.Replace(slice, "service-name: web", "service-name: b", 1): true,
		service: false,
		service + strings.Replace(slice, "{name: web,", "{name: other,", 1):             false,
		strings.Replace(service, "port: 80", "port: 81", 1) + slice:                     false,
		strings.Replace(service, "{name: web}", "{name: other}", 1) + slice:             false,
		service + slice + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n": false,
	} {
		if got := parse(text).DiffersByEndpoints(before); got != want {
			t.Errorf("differs by endpoints: %v, want %v, of\n%s", got, want, text)
		}
	}
	if before.DiffersByEndpoints(nil) || (*Set)(nil).DiffersByEndpoints(before) {
		t.Error("nothing is like a set")
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

const webPolicies = `---
apiVersion: blixt.x-k8s.io/v1alpha1
kind: BlixtPolicy
metadata: {name: base}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}]
  sources: {allow: [10.0.0.0/8], deny: [10.9.0.0/16]}
  idleTimeout: {tcp: 1h}
  maxAge: 24h
---
apiVersion: blixt.x-k8s.io/v1alpha1
kind: BlixtPolicy
metadata: {name: web}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: TCPRoute, name: web}]
  limits: {total: {newPerSecond: 20000}}
  idleTimeout: {tcp: 10m}
---
apiVersion: blixt.x-k8s.io/v1alpha1
kind: BlixtPolicy
metadata: {name: typo}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: TCPRoute, name: wbe}]
  maxAge: 1h
`

func policyFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "web.yaml")
	if err := os.WriteFile(path, []byte(webFile+webPolicies), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPolicy_TellsWhoSaysSo: of a route, its Gateway and a policy, the same listener is shown, each
// value with the policy that it comes from.
func TestPolicy_TellsWhoSaysSo(t *testing.T) {
	file := policyFile(t)
	for _, object := range []string{"tcproute/web", "TCPRoute/default/web", "gateway/web", "gateway/default/web/tcp", "bpol/base"} {
		out, err := blixt(t, "policy", object, "-f", file)
		if err != nil {
			t.Fatalf("%s: %v", object, err)
		}
		for _, want := range []string{
			`(?m)^Gateway default/web, listener tcp \(TCP 80\), TCPRoute/default/web$`,
			`(?m)^  sources +allow 10\.0\.0\.0/8; deny 10\.9\.0\.0/16; else drop +default/base +Gateway/default/web +- *$`,
			`(?m)^  limits +total 20,000 new/s, burst 20,000 on each node; else drop +default/web +TCPRoute/default/web +- *$`,
			`(?m)^  idleTimeout\.tcp +10m +default/web +TCPRoute/default/web +default/base *$`,
			`(?m)^  maxAge +24h +default/base +Gateway/default/web +- *$`,
		} {
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("%s: no line like %s in\n%s", object, want, out)
			}
		}
		if strings.Contains(out, "typo") {
			t.Errorf("%s: the problem of another policy is shown:\n%s", object, out)
		}
	}
}

// TestPolicy_IsReadByPrograms: JSON has the same.
func TestPolicy_IsReadByPrograms(t *testing.T) {
	out, err := blixt(t, "policy", "-f", policyFile(t), "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var r explained
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Listeners) != 1 || len(r.Listeners[0].Values) != 4 {
		t.Errorf("got %v, %v", r, err)
	}
	if len(r.Problems) != 1 || r.Problems[0].Object != "BlixtPolicy default/typo" || r.Problems[0].Line == 0 {
		t.Errorf("problems %v, want that of typo with its line", r.Problems)
	}
}

// TestPolicy_NamesWhatIsWrong: nobody looks for a typo in a table that is empty.
func TestPolicy_NamesWhatIsWrong(t *testing.T) {
	file := policyFile(t)
	for object, want := range map[string]string{
		"blixtpolicy/default/typo": "TCPRoute default/wbe does not exist",
		"tcproute/none":            "no listener of Blixt is concerned by tcproute/none",
		"service/web":              `"service/web" is no object: write it like gateway/infra/edge`,
		"tcproute/a/b/c":           "is no object",
		"gateway//web":             "is no object",
	} {
		_, err := blixt(t, "policy", object, "-f", file)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", object, err, want)
		}
		if usage := (&usageError{}); strings.Contains(want, "no object") && !errors.As(err, &usage) {
			t.Errorf("%s: %v is no error of usage", object, err)
		}
	}
}

// TestPolicy_OfACluster: the API server has what files have, and the status of the policies says
// what is wrong.
func TestPolicy_OfACluster(t *testing.T) {
	target := gwv1.LocalPolicyTargetReferenceWithSectionName{LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{Group: gwv1.GroupName, Kind: "Gateway", Name: "edge"}}
	policy := &v1alpha1.BlixtPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "infra", Name: "base"}, Spec: v1alpha1.BlixtPolicySpec{
		TargetRefs: []gwv1.LocalPolicyTargetReferenceWithSectionName{target}, Sources: &v1alpha1.PolicySources{Allow: []string{"10.0.0.0/8"}}}}
	policy.Status.Ancestors = []gwv1.PolicyAncestorStatus{{ControllerName: gateway.ControllerName, Conditions: []metav1.Condition{
		{Type: "Accepted", Status: "True", Reason: "Accepted"}, {Type: "Programmed", Status: "False", Reason: "NoCapacity", Message: "Table sources of node n1 is full."}}}}
	api := fake.NewClientBuilder().WithScheme(kube.Scheme).WithObjects(
		&gwv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: "blixt"}, Spec: gwv1.GatewayClassSpec{ControllerName: gateway.ControllerName}},
		&gwv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "infra", Name: "edge"}, Spec: gwv1.GatewaySpec{GatewayClassName: "blixt",
			Listeners: []gwv1.Listener{{Name: "web", Protocol: gwv1.TCPProtocolType, Port: 80}}}},
		policy,
	).Build()
	r, err := explainCluster(t.Context(), api)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.keep(object{"Gateway", "infra/edge", "gateway/infra/edge"}); err != nil {
		t.Fatal(err)
	}
	if len(r.Listeners) != 1 || len(r.Listeners[0].Values) != 2 || r.Listeners[0].Values[0].Value != "allow 10.0.0.0/8; else drop" {
		t.Errorf("got %+v", r.Listeners)
	}
	if len(r.Problems) != 1 || r.Problems[0].String() != "BlixtPolicy infra/base: NoCapacity: Table sources of node n1 is full." {
		t.Errorf("problems %v", r.Problems)
	}
}

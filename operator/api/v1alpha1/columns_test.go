// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// kubectl get shows the columns that the API server defines.
func TestColumns(t *testing.T) {
	create(t, &v1alpha1.BlixtConfig{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
	create(t, &v1alpha1.BlixtConfig{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: v1alpha1.BlixtConfigSpec{
		Dataplane: &v1alpha1.Dataplane{Bytecode: &v1alpha1.Bytecode{Image: "a@sha256:" + strings.Repeat("0", 64)}},
		Addresses: v1alpha1.Addresses{Source: v1alpha1.SourcePool, Pool: []string{"192.0.2.1"}},
	}})
	create(t, &v1alpha1.BlixtGatewayConfig{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"},
		Spec:       v1alpha1.BlixtGatewayConfigSpec{AddressSource: v1alpha1.SourceNode, ClientAddress: v1alpha1.ClientAddressPreserve},
	})
	create(t, &v1alpha1.BlixtGatewayConfig{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}})
	policy := newPolicy("a", v1alpha1.BlixtPolicySpec{Sources: &v1alpha1.PolicySources{Deny: []string{"192.0.2.0/24"}}, Mode: v1alpha1.ModeDryRun})
	create(t, policy)
	create(t, newPolicy("b", v1alpha1.BlixtPolicySpec{MaxAge: &metav1.Duration{Duration: time.Hour}}))
	node := &v1alpha1.NodeDataplane{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	create(t, node)
	create(t, &v1alpha1.NodeDataplane{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}) // not heard of
	now := metav1.NewTime(time.Now().Add(-3 * time.Hour))
	condition := func(kind string, status metav1.ConditionStatus, reason string) metav1.Condition {
		return metav1.Condition{Type: kind, Status: status, Reason: reason, LastTransitionTime: now}
	}
	policy.Status.Ancestors = []gwv1.PolicyAncestorStatus{{
		AncestorRef: gwv1.ParentReference{Name: "edge"}, ControllerName: "gateway.networking.k8s.io/blixt",
		Conditions: []metav1.Condition{condition("Accepted", "True", "Accepted"), condition("Programmed", "False", "NoCapacity")},
	}}
	if err := server.Client.Status().Update(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	node.Status = v1alpha1.NodeDataplaneStatus{
		Kernel: "6.18.0", LastContact: &now, ClientAddress: &v1alpha1.ClientAddressStatus{Announced: true},
		Conditions: []metav1.Condition{condition("Ready", "True", "Serving"), condition("Drifted", "False", "AsAsked")},
		Applications: []v1alpha1.ApplicationStatus{
			{Name: "new", Bytecode: v1alpha1.BytecodeStatus{Digest: "sha256:01"}, ProgramID: ptr[int64](4711), Frontends: 2, Backends: 30, Flows: 12345},
			{Name: "old", Bytecode: v1alpha1.BytecodeStatus{Digest: "sha256:02"}, Draining: true},
		},
	}
	if err := server.Client.Status().Update(t.Context(), node); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct{ path, want string }{
		{"blixtconfigs", `
NAME  ADDRESSES     AGE  | BYTECODE
a     LoadBalancer  0s   | 
b     Pool          0s   | a@sha256:0000000000000000000000000000000000000000000000000000000000000000
`},
		{"namespaces/default/blixtgatewayconfigs", `
NAME  POLICY   CLIENT    ADDRESSES  AGE  | 
a     Cluster  Preserve  Node       0s   | 
b     Cluster                       0s   | 
`},
		{"namespaces/default/blixtpolicies", `
NAME  TARGET  MODE     ACCEPTED  PROGRAMMED  AGE  | 
a     web     DryRun   True      NoCapacity  0s   | 
b     web     Enforce                        0s   | 
`},
		{"nodedataplanes", `
NAME  READY  REASON   DRIFTED  FRONTENDS  PROGRAM  | CLIENTS  BYTECODE   KERNEL
n1    True   Serving  False    2          4711     | true     sha256:01  6.18.0
n2                                                 |                     
`},
	} {
		t.Run(c.path, func(t *testing.T) {
			if diff := cmp.Diff(strings.TrimPrefix(c.want, "\n"), table(t, c.path)); diff != "" {
				t.Errorf("what kubectl get shows (-want +got):\n%s", diff)
			}
		})
	}
}

var seconds = regexp.MustCompile(`^[0-9]+s$`)

// table is what kubectl get prints, and behind the bar what -o wide adds.
func table(t *testing.T, path string) string {
	t.Helper()
	web, err := rest.HTTPClientFor(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.Config.Host+"/apis/blixt.x-k8s.io/v1alpha1/"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "application/json;as=Table;g=meta.k8s.io;v=v1")
	response, err := web.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	var list metav1.Table
	if err := yaml.Unmarshal(data, &list); err != nil {
		t.Fatalf("%v in %s", err, data)
	}

	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	line := func(cell func(column int) any) {
		var parts [2][]string
		for i, column := range list.ColumnDefinitions {
			wide := min(column.Priority, 1)
			text := ""
			if v := cell(i); v != nil {
				text = fmt.Sprint(v)
			}
			if seconds.MatchString(text) {
				text = "0s" // it was made in this test
			}
			parts[wide] = append(parts[wide], text)
		}
		fmt.Fprintf(w, "%s\t| %s\n", strings.Join(parts[0], "\t"), strings.Join(parts[1], "\t"))
	}
	line(func(i int) any { return strings.ToUpper(list.ColumnDefinitions[i].Name) })
	for _, row := range list.Rows {
		line(func(i int) any { return row.Cells[i] })
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	cluster "github.com/kubernetes-sigs/blixt/operator/admin/overview"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/finding"
)

// wellCluster has three nodes and two Gateways, of which one is another controller's. What
// blixt doctor finds of it is not asked here.
func wellCluster() *doctor.Facts {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.Local)
	f := &doctor.Facts{
		Now: at, Namespace: "blixt-system", Version: "v1.37.2", Unread: map[string]string{},
		Deployments: []appsv1.Deployment{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "blixt-system", Name: "blixt-operator"},
			Spec:       appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: "registry.example.com/blixt/operator:v1"}}}}},
			Status:     appsv1.DeploymentStatus{ReadyReplicas: 2},
		}},
		Leases: []coordinationv1.Lease{{ObjectMeta: metav1.ObjectMeta{Namespace: "blixt-system", Name: "blixt-operator"}, Spec: coordinationv1.LeaseSpec{HolderIdentity: new("blixt-operator-1"), RenewTime: &metav1.MicroTime{Time: at}, LeaseDurationSeconds: new(int32(15))}}},
		Classes: []gwv1.GatewayClass{
			{ObjectMeta: metav1.ObjectMeta{Name: "blixt"}, Spec: gwv1.GatewayClassSpec{ControllerName: "gateway.networking.k8s.io/blixt"}},
			{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: gwv1.GatewayClassSpec{ControllerName: "example.com/other"}},
		},
	}
	for n := range 3 {
		f.Dataplanes = append(f.Dataplanes, v1alpha1.NodeDataplane{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", n+1)},
			Status: v1alpha1.NodeDataplaneStatus{
				Kernel: "6.12.1", LastContact: new(metav1.NewTime(at)),
				Applications: []v1alpha1.ApplicationStatus{{Bytecode: v1alpha1.BytecodeStatus{Digest: "sha256:" + strings.Repeat("1", 64)}, Frontends: 2, Backends: 6, Flows: 4711}},
				Conditions:   []metav1.Condition{{Type: "Ready", Status: "True", Reason: "Serving"}, {Type: "Drifted", Status: "False", Reason: "AsAsked"}},
			},
		})
	}
	for _, class := range []gwv1.ObjectName{"blixt", "other"} {
		g := gwv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: string(class)}, Spec: gwv1.GatewaySpec{GatewayClassName: class}}
		if class == "blixt" {
			g.Status.Conditions = []metav1.Condition{{Type: "Accepted", Status: "True", Reason: "Accepted"}, {Type: "Programmed", Status: "True", Reason: "Programmed"}}
		}
		f.Gateways = append(f.Gateways, g)
	}
	return f
}

// What people see of a cluster, where all checks of what it runs on are well.
func TestOverviewOfACluster(t *testing.T) {
	for name, change := range map[string]func(*doctor.Facts){
		"well": func(*doctor.Facts) {},
		"node": func(f *doctor.Facts) {
			f.Dataplanes[1].Status.Conditions[0] = metav1.Condition{Type: "Ready", Status: "False", Reason: "NotLoaded"}
			f.Dataplanes[2].Status.Conditions[1].Status = "True"
		},
		"gateway": func(f *doctor.Facts) {
			f.Gateways[0].Status.Conditions[1] = metav1.Condition{Type: "Programmed", Status: "False", Reason: "AddressNotAssigned", Message: "The pool is empty."}
		},
		"not seen":  func(f *doctor.Facts) { f.Gateways[0].Generation = 2 },
		"no status": func(f *doctor.Facts) { f.Gateways[0].Status.Conditions = nil },
		"listener": func(f *doctor.Facts) {
			f.Gateways[0].Status.Listeners = []gwv1.ListenerStatus{{Name: "tcp", Conditions: []metav1.Condition{{Type: "Accepted", Status: "False", Reason: "PortUnavailable", Message: "Port 22 is reserved."}, {Type: "Programmed", Status: "False"}}}}
		},
		"route": func(f *doctor.Facts) {
			f.TCPRoutes = []gwv1.TCPRoute{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Status: gwv1.TCPRouteStatus{RouteStatus: gwv1.RouteStatus{Parents: []gwv1.RouteParentStatus{
				{ControllerName: "gateway.networking.k8s.io/blixt", Conditions: []metav1.Condition{{Type: "Accepted", Status: "True"}, {Type: "ResolvedRefs", Status: "False", Reason: "BackendNotFound", Message: "Service shop/web does not exist."}}},
				{ControllerName: "example.com/other", Conditions: []metav1.Condition{{Type: "Accepted", Status: "False"}}},
			}}}}}
		},
		"policy": func(f *doctor.Facts) {
			for name, programmed := range map[string]metav1.Condition{
				"base": {Type: "Programmed", Status: "True", Reason: "Programmed", Message: "All nodes serve it."},
				"full": {Type: "Programmed", Status: "False", Reason: "NoCapacity", Message: "Table sources has no room for it on n2."},
			} {
				f.BlixtPolicies = append(f.BlixtPolicies, v1alpha1.BlixtPolicy{
					ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
					Status:     v1alpha1.BlixtPolicyStatus{Ancestors: []gwv1.PolicyAncestorStatus{{ControllerName: "gateway.networking.k8s.io/blixt", Conditions: []metav1.Condition{{Type: "Accepted", Status: "True", Reason: "Accepted"}, programmed}}}},
				})
			}
		},
		"no operator": func(f *doctor.Facts) { f.Deployments, f.Leases = nil, nil },
		"many": func(f *doctor.Facts) {
			for n := range 100 {
				d := f.Dataplanes[0]
				d.Name = fmt.Sprintf("node-%03d", n)
				f.Dataplanes = append(f.Dataplanes, d)
				g := f.Gateways[0]
				g.Name, g.Status.Conditions = fmt.Sprintf("gw-%03d", n), nil
				f.Gateways = append(f.Gateways, g)
			}
		},
		"hostile": func(f *doctor.Facts) {
			f.Dataplanes[0].Status.Conditions[0].Reason = "\x1b[2J"
			f.Gateways[0].Status.Conditions[1] = metav1.Condition{Type: "Programmed", Status: "False", Reason: "X", Message: "\x1b]0;pwned\x07\nNODE  READY"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := wellCluster()
			change(f)
			w := newWell(nil)
			for _, found := range cluster.Check(f) {
				if slices.Contains([]string{"operator", "leader", "nodes", "gateways", "routes", "policies"}, found.Check) {
					w.Findings = append(w.Findings, found)
				}
			}
			w.Verdict = finding.Verdict(w.Findings)
			w.Cluster = cluster.New(f)
			var out bytes.Buffer
			w.print(&out, false)
			if n := strings.Count(out.String(), "\n"); n > statusLines {
				t.Errorf("it has %d lines, want %d at most", n, statusLines)
			}
			if strings.ContainsAny(out.String(), "\x1b\x07") {
				t.Errorf("a terminal obeys it: %q", out.String())
			}
			fmt.Fprintf(&out, "\nexit code %d\n", exitCode(w.err()))
			if name == "well" || name == "hostile" {
				w.print(&out, true)
			}
			golden.File(t, "testdata/status/cluster-"+strings.ReplaceAll(name, " ", "-")+".txt", out.Bytes())
		})
	}
}

// A cluster without Blixt is not well, and what blixt doctor says is in the overview.
func TestOverviewHasWhatDoctorFinds(t *testing.T) {
	f := wellCluster()
	f.Deployments = nil
	w := newWell(cluster.Check(f))
	w.Cluster = cluster.New(f)
	var out bytes.Buffer
	w.print(&out, false)
	if w.Verdict != finding.Failed || strings.Count(out.String(), "\n") > statusLines || !strings.Contains(out.String(), "more: blixt status -o wide") {
		t.Errorf("%s: %s", w.Verdict, out.String())
	}
	for _, found := range w.Findings {
		if found.Check == "operator" && found.Verdict == finding.Failed {
			return
		}
	}
	t.Errorf("nothing is said of the operator: %+v", w.Findings)
}

// kubeconfigFor returns a kubeconfig file of a server.
func kubeconfigFor(t *testing.T, server string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}], clusters: [{name: c, cluster: {server: %q}}]}`, server)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Whoever asks an API server that hangs is told so after a while.
func TestServerThatHangsIsToldOf(t *testing.T) {
	ends := make(chan struct{})
	for name, handler := range map[string]http.HandlerFunc{
		"at once": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-ends:
			}
		},
		"later": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/version" {
				fmt.Fprint(w, `{"gitVersion": "v1.37.2"}`)
				return
			}
			select {
			case <-r.Context().Done():
			case <-ends:
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(handler)
			t.Cleanup(server.Close)
			was, wasLimit := requestLimit, clusterLimit
			requestLimit, clusterLimit = 100*time.Millisecond, 200*time.Millisecond
			t.Cleanup(func() { requestLimit, clusterLimit = was, wasLimit })
			for _, args := range [][]string{{"status", "cluster"}, {"sysdump", "cluster", "--timeout=1s"}} {
				_, err := blixt(t, append(args, "--kubeconfig", kubeconfigFor(t, server.URL))...)
				if exitCode(err) != unreachable {
					t.Errorf("blixt %v: exit code %d, %v", args, exitCode(err), err)
				}
			}
		})
	}
	close(ends)
}

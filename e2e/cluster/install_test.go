// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

const system = "blixt-system"

// helm runs Helm as the administrator.
func helm(t *testing.T, args ...string) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(cache, "blixt", "helm-v3.22.0"), args...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG="+c.Kubeconfig())
	out, err := cmd.CombinedOutput()
	if err != nil {
		pods, _ := c.Kubectl(t.Context(), "--namespace="+system, "get", "pods,events,daemonsets", "--output=wide")
		t.Fatalf("helm %v: %v\n%s\n%s", args, err, out, pods)
	}
}

// installGatewayAPI installs the release of Gateway API that the chart has.
func installGatewayAPI(t *testing.T) {
	t.Helper()
	requireMachines(t) // tests that install Gateway API enter nodes
	files, err := kube.Standard.Files()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(t.Context(), files...); err != nil {
		t.Fatal(err)
	}
}

// installBlixt pushes the images and installs the chart. It is uninstalled when the
// test ends, unless that has failed.
func installBlixt(t *testing.T, flags ...string) (bytecode string) {
	t.Helper()
	blixt := builtBlixt(t)
	operator, err := c.Push(t.Context(), "blixt/operator:v1", cluster.Image{Files: map[string]string{"/blixt": blixt}, Entrypoint: []string{"/blixt"}, User: "65532"})
	if err != nil {
		t.Fatal(err)
	}
	repository, digest, _ := strings.Cut(operator, "@")
	bytecode = bytecodeImage(t, blixt, "65536")
	args := []string{"upgrade", "--install", "blixt", "../../charts/blixt", "--namespace=" + system, "--create-namespace", "--wait", "--timeout=2m",
		"--set=image.repository=" + repository, "--set=image.digest=" + digest, "--set=bytecode.image=" + bytecode}
	helm(t, append(args, flags...)...)
	t.Cleanup(func() {
		if !t.Failed() {
			helm(t, "uninstall", "blixt", "--namespace="+system, "--ignore-not-found")
		}
	})
	return bytecode
}

// awaitProgrammed waits until a Gateway is served by all nodes, with all of its routes,
// and returns its addresses.
func awaitProgrammed(t *testing.T, name string) (addresses []string) {
	t.Helper()
	const want = "True: All nodes serve it."
	gw := &gwv1.Gateway{}
	kube.Wait(t, patience, "Gateway "+name, want, func() (string, error) {
		// Routes first: their status is written after the Gateway's, so the Gateway's
		// is about all of them.
		if waiting, err := routesWithoutStatus(t, name); err != nil || len(waiting) > 0 {
			return fmt.Sprintf("no word on the routes %v yet", waiting), err
		}
		if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: name}, gw); err != nil {
			return "", err
		}
		p := meta.FindStatusCondition(gw.Status.Conditions, "Programmed")
		served, _, _ := strings.Cut(p.Message, " What pods") // the rest is about pods' traffic
		return fmt.Sprintf("%s: %s", p.Status, served), nil
	})
	for _, a := range gw.Status.Addresses {
		addresses = append(addresses, a.Value)
	}
	return addresses
}

// routesWithoutStatus returns the routes of a Gateway whose present generation has no
// status yet.
func routesWithoutStatus(t *testing.T, gateway string) (names []string, err error) {
	var tcp gwv1.TCPRouteList
	if err := c.Client.List(t.Context(), &tcp); err != nil {
		return nil, err
	}
	var udp gwv1.UDPRouteList
	if err := c.Client.List(t.Context(), &udp); err != nil {
		return nil, err
	}
	note := func(name string, generation int64, refs []gwv1.ParentReference, parents []gwv1.RouteParentStatus) {
		ours := func(r gwv1.ParentReference) bool {
			return (r.Kind == nil || *r.Kind == "Gateway") && string(r.Name) == gateway
		}
		if slices.ContainsFunc(refs, ours) && !slices.ContainsFunc(parents, func(p gwv1.RouteParentStatus) bool {
			accepted := meta.FindStatusCondition(p.Conditions, string(gwv1.RouteConditionAccepted))
			return ours(p.ParentRef) && accepted != nil && accepted.ObservedGeneration == generation
		}) {
			names = append(names, name)
		}
	}
	for _, r := range tcp.Items {
		note("tcp/"+r.Name, r.Generation, r.Spec.ParentRefs, r.Status.Parents)
	}
	for _, r := range udp.Items {
		note("udp/"+r.Name, r.Generation, r.Spec.ParentRefs, r.Status.Parents)
	}
	return names, nil
}

// programID returns the id of a node's program, as its NodeDataplane reports it.
func programID(t *testing.T, node, application string) uint32 {
	t.Helper()
	ndp := &v1alpha1.NodeDataplane{}
	if err := c.Client.Get(t.Context(), client.ObjectKey{Name: node}, ndp); err != nil {
		t.Fatal(err)
	}
	for _, a := range ndp.Status.Applications {
		if a.Name == application && a.ProgramID != nil {
			return uint32(*a.ProgramID)
		}
	}
	t.Fatalf("NodeDataplane %s has no program of %s: %+v", node, application, ndp.Status)
	return 0
}

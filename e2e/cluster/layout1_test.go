// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

// TestUpgradeFromLayout1 upgrades the release of a Blixt whose maps have layout 1 to this
// one, with its own operator, agents and bytecode: its agents and its program serve
// their connections until these end.
func TestUpgradeFromLayout1(t *testing.T) {
	installGatewayAPI(t)
	source, blixt := lab.Revision(t, lab.Layout1)
	operator, err := c.Push(t.Context(), "blixt/operator:v0", cluster.Image{Files: map[string]string{"/blixt": blixt}, Entrypoint: []string{"/blixt"}, User: "65532"})
	if err != nil {
		t.Fatal(err)
	}
	repository, digest, _ := strings.Cut(operator, "@")
	bytecode := bytecodeImage(t, blixt, "65536")
	helm(t, "upgrade", "--install", "blixt", filepath.Join(source, "charts/blixt"), "--namespace="+system, "--create-namespace", "--wait", "--timeout=2m",
		"--set=image.repository="+repository, "--set=image.digest="+digest, "--set=bytecode.image="+bytecode, pool, "--set="+bridge)
	applyUntilEnd(t, "balanced.yaml", ", clientAddress: Node", "") // it knows none
	applyUntilEnd(t, "web.yaml", "NAME", "rolling")
	awaitPods(t, "default")
	previous := rollout.Name(bytecode)
	s := &scene{vips: awaitServed(t, "balanced"), application: previous}
	web := awaitServed(t, "rolling")
	routeAddresses(t, s.vips, c.Nodes[0])
	routeAddresses(t, web, c.Nodes[0])
	awaitServers(t, net.JoinHostPort(web[0], "80"))
	awaitLinks(t, "cni0", "eth0")
	s.startLoad(t)
	crowd := startVisitors(t, net.JoinHostPort(web[0], "80"))
	s.run(t, "upgraded", func(*testing.T) { // the release outlives this part
		// The chart of this version asks for these two, and refuses the upgrade before.
		kubectl(t, "annotate", "gatewayclass", "blixt", "helm.sh/resource-policy=keep")
		kubectl(t, "label", "--overwrite", "gatewayclass", "blixt", "app.kubernetes.io/managed-by=blixt-operator")
		s.application = rollout.Name(installBlixt(t, pool, "--set="+bridge))
		serving := fmt.Sprintf("%s layout %d, %s layout 1 draining", s.application, bpf.Layout, previous)
		kube.Wait(t, 2*patience, "programs", map[string]string{"node-1": serving, "node-2": serving}, layouts)
	})
	s.startLoad(t)
	s.run(t, "agents deleted", func(t *testing.T) {
		kubectl(t, "--namespace="+system, "delete", "pods", "--selector=app.kubernetes.io/component=agent")
		awaitPods(t, system)
	})
	s.endFirstLoad()
	s.run(t, "connections of the old layout ended", func(t *testing.T) { awaitAlone(t, s.application) })
	crowd.finish(t, "during the upgrade")
}

// awaitServed waits until two nodes serve a Gateway by the word of an earlier version, and
// returns its addresses.
func awaitServed(t *testing.T, gateway string) (addresses []string) {
	t.Helper()
	gw := &gwv1.Gateway{}
	kube.Wait(t, patience, "Gateway "+gateway, "Served by 2 nodes.", func() (string, error) {
		if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: gateway}, gw); err != nil {
			return "", err
		}
		p := meta.FindStatusCondition(gw.Status.Conditions, "Programmed")
		if p == nil || p.Status != metav1.ConditionTrue {
			return fmt.Sprintf("%v", p), nil
		}
		return p.Message, nil
	})
	for _, a := range gw.Status.Addresses {
		addresses = append(addresses, a.Value)
	}
	return addresses
}

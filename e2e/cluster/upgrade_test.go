// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	bpfmanv1alpha1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

// setBytecode has the nodes run other bytecode.
func setBytecode(t *testing.T, image string) {
	t.Helper()
	configure(t, "config.dataplane.bytecode.image="+image)
}

// testExchangedImages replaces the image of the operator, and thereby that of the
// agents, by one of another digest.
func testExchangedImages(t *testing.T, s *scene, v *variants) {
	v.await(t)
	digest := operatorImage(t, v.same, "fault_test.go")
	configure(t, "image.digest="+digest)
	kube.Wait(t, patience, "whether the agents have the new image", true, func() (bool, error) {
		return strings.HasSuffix(agentsImage(t, s.application), digest), nil
	})
	awaitPods(t, system)
	awaitProgrammed(t, "balanced")
}

// agentsImage returns the image of an application's agents.
func agentsImage(t *testing.T, application string) string {
	t.Helper()
	set := &appsv1.DaemonSet{}
	if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: system, Name: rollout.AgentsName(application)}, set); err != nil {
		t.Fatal(err)
	}
	return set.Spec.Template.Spec.Containers[0].Image
}

// testRegistryAway sets bytecode that cannot be pulled for a while, in which pods are
// restarted. It takes over as soon as it can be pulled.
func testRegistryAway(t *testing.T, s *scene, v *variants) {
	image := v.objectImage(t, "../../bpf/blixt_bpfel.o", "--flows=32768")
	old := s.application
	s.application = rollout.Name(image)
	reachable := refuseRegistry(t)
	t.Cleanup(reachable)
	setBytecode(t, image)
	awaitNodes(t, "True UpgradeBlocked", "the image cannot be pulled")
	awaitGateway(t, "UpgradeBlocked: Node node-1 goes on with "+old)
	kubectl(t, "--namespace="+system, "delete", "pods", "--selector=app.kubernetes.io/component in (agent, operator)")
	awaitPods(t, system)
	reachable()
	kube.Wait(t, patience, "nodes whose old program drains", []string{"node-1", "node-2"}, func() ([]string, error) { return draining(t, old), nil })
	counted := countFlows(t, old)
	s.checkNewClients(t)
	if diff := cmp.Diff(counted, countFlows(t, old)); diff != "" {
		t.Errorf("new flows that the old programs have counted (-want +got):\n%s", diff)
	}
}

// refuseRegistry has connections to the registry refused until the function that it
// returns is called.
func refuseRegistry(t *testing.T) (again func()) {
	t.Helper()
	_, port, _ := strings.Cut(cluster.Registry, ":")
	rules := "add table inet refuse; add chain inet refuse input { type filter hook input priority 0; }; " +
		"add rule inet refuse input tcp dport " + port + " reject with tcp reset"
	if _, err := c.Control.Run(patience, "nft", rules); err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		if _, err := c.Control.Run(patience, "nft", "delete table inet refuse"); err != nil {
			t.Error(err)
		}
	})
}

// draining returns the nodes whose program drains.
func draining(t *testing.T, application string) (nodes []string) {
	t.Helper()
	for _, m := range c.Nodes {
		if status(t, m, programID(t, m.Name, application)).Draining {
			nodes = append(nodes, m.Name)
		}
	}
	return nodes
}

// testAnotherLayout exchanges all of Blixt for a version with another map layout: the
// maps that it finds are left to the previous agents.
func testAnotherLayout(t *testing.T, s *scene, v *variants) {
	v.await(t)
	digest := operatorImage(t, v.next, "upgrade_test.go")
	image := bytecodeImage(t, v.next, "65536")
	old, before := s.application, agentsImage(t, s.application)
	s.application, s.counted = rollout.Name(image), false
	configure(t, "image.digest="+digest+",config.dataplane.bytecode.image="+image)
	serving := fmt.Sprintf("%s layout %d, %s layout %d draining", s.application, nextLayout, old, nextLayout-1)
	kube.Wait(t, 2*patience, "programs", map[string]string{"node-1": serving, "node-2": serving}, layouts)
	kubectl(t, "--namespace="+system, "delete", "pods", "--selector=app.kubernetes.io/component=agent")
	awaitPods(t, system)
	if after := agentsImage(t, old); after != before {
		t.Errorf("agents of the old layout have the image %s, want them as they were: %s", after, before)
	}
	if image := agentsImage(t, s.application); !strings.HasSuffix(image, digest) {
		t.Errorf("agents of the new layout have the image %s, want that of the operator: %s", image, digest)
	}
}

// layouts returns what each node runs, as its NodeDataplane reports it.
func layouts() (map[string]string, error) {
	all, err := nodeDataplanes()
	found := map[string]string{}
	for _, n := range all {
		var programs []string
		for _, a := range n.Status.Applications {
			text := fmt.Sprintf("%s layout %d", a.Name, a.Layout)
			if a.Draining {
				text += " draining"
			}
			programs = append(programs, text)
		}
		found[n.Name] = strings.Join(programs, ", ")
	}
	return found, err
}

func nodeDataplanes() ([]v1alpha1.NodeDataplane, error) {
	var list v1alpha1.NodeDataplaneList
	err := c.Client.List(context.Background(), &list)
	return list.Items, err
}

// awaitNodes waits until the condition Ready of every node is this, with a message that
// has a part.
func awaitNodes(t *testing.T, want, part string) {
	t.Helper()
	kube.Wait(t, patience, "what nodes say", map[string]string{"node-1": want, "node-2": want}, func() (map[string]string, error) {
		all, err := nodeDataplanes()
		got := map[string]string{}
		for _, n := range all {
			if ready := meta.FindStatusCondition(n.Status.Conditions, v1alpha1.NodeReady); ready != nil {
				got[n.Name] = fmt.Sprintf("%s %s", ready.Status, ready.Reason)
				if !strings.Contains(ready.Message, part) {
					got[n.Name] += ": " + ready.Message
				}
			}
		}
		return got, err
	})
}

// awaitGateway waits until the Gateway is served and its message has a part.
func awaitGateway(t *testing.T, part string) {
	t.Helper()
	kube.Wait(t, patience, "the Gateway's word", "True "+part, func() (string, error) {
		gw := &gwv1.Gateway{}
		err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "balanced"}, gw)
		p := meta.FindStatusCondition(gw.Status.Conditions, string(gwv1.GatewayConditionProgrammed))
		if p == nil || !strings.Contains(p.Message, part) {
			return fmt.Sprintf("%v", p), err
		}
		return string(p.Status) + " " + part, err
	})
}

// awaitApplications waits until exactly these ClusterBpfApplications are left.
func awaitApplications(t *testing.T, applications ...string) {
	t.Helper()
	kube.Wait(t, 2*patience, "ClusterBpfApplications", applications, func() ([]string, error) {
		var list bpfmanv1alpha1.ClusterBpfApplicationList
		err := c.Client.List(t.Context(), &list)
		var names []string
		for _, a := range list.Items {
			names = append(names, a.Name)
		}
		slices.Sort(names)
		return names, err
	})
}

// awaitAlone waits until an application is the only one, in the kernels too.
func awaitAlone(t *testing.T, application string) {
	t.Helper()
	awaitApplications(t, application)
	for _, m := range c.Nodes {
		checkAttached(t, m, programID(t, m.Name, application))
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

const metallb = "metallb-system"

// TestMetalLB has MetalLB give addresses and answer for them in the nodes' network. A
// Gateway keeps its address, and clients their connections, whatever happens to its
// configuration, MetalLB and Blixt; only the Gateway's deletion releases the address.
func TestMetalLB(t *testing.T) {
	requireMachines(t)
	installMetalLB(t)
	installGatewayAPI(t)
	application := rollout.Name(installBlixt(t, "--set=config.addresses.source=LoadBalancer"))
	applyUntilEnd(t, "balanced.yaml", "", "")
	vips := awaitProgrammed(t, "balanced")
	if want := []string{"10.210.0.200", "fd00:210::200"}; !slices.Equal(vips, want) {
		t.Fatalf("addresses %v of Gateway balanced, want those of MetalLB's pool, %v", vips, want)
	}
	applyUntilEnd(t, "waiting.yaml", "", "")
	awaitCondition(t, gatewayCondition(t, "waiting", "Programmed"), "False AddressNotAssigned")

	service := watchService(t, "blixt-balanced")
	l := startLoad(t, vips)
	t.Cleanup(l.end)
	for _, event := range []struct {
		name string
		do   func(t *testing.T)
	}{
		{"nothing", func(*testing.T) {}},
		{"typo in the class", func(t *testing.T) {
			nameConfig(t, "blixtt")
			awaitCondition(t, classCondition(t), "False InvalidParameters")
			checkNewClients(t, vips, "tcp", "udp")
			nameConfig(t, "blixt")
			awaitCondition(t, classCondition(t), "True Accepted")
		}},
		{"configuration deleted", func(t *testing.T) {
			kubectl(t, "delete", "blixtgatewayconfig", "balanced")
			awaitCondition(t, gatewayCondition(t, "balanced", "Accepted"), "False InvalidParameters")
			checkNewClients(t, vips, "tcp", "udp")
			applyFile(t, "balanced.yaml", "", "")
			awaitCondition(t, gatewayCondition(t, "balanced", "Accepted"), "True Accepted")
		}},
		{"MetalLB's controller restarted", func(t *testing.T) {
			kubectl(t, "--namespace="+metallb, "delete", "pods", "--selector=component=controller")
			awaitPods(t, metallb)
		}},
		{"operators deleted", func(t *testing.T) {
			kubectl(t, "--namespace="+system, "delete", "pods", "--selector=app.kubernetes.io/component=operator")
			awaitPods(t, system)
		}},
		{"upgrade", func(t *testing.T) {
			setBytecode(t, bytecodeImage(t, builtBlixt(t), "32768"))
			kube.Wait(t, patience, "nodes whose old program drains", []string{"node-1", "node-2"}, func() ([]string, error) { return draining(t, application), nil })
		}},
	} {
		t.Run(event.name, func(t *testing.T) {
			l.during(t, func() {
				event.do(t)
				if got := awaitProgrammed(t, "balanced"); !slices.Equal(got, vips) {
					t.Errorf("the Gateway has the addresses %v, had %v", got, vips)
				}
				checkNewClients(t, vips, "tcp", "udp")
			})
		})
	}
	l.end()
	if was := service(); len(was) != 1 {
		t.Errorf("UID and addresses of the Gateway's Service have been, in turn: %q; want the same throughout", was)
	}
	awaitCondition(t, gatewayCondition(t, "waiting", "Programmed"), "False AddressNotAssigned")

	deleteFile(t, "balanced.yaml", "", "")
	kube.Wait(t, patience, "whether the Service of the deleted Gateway is gone", true, func() (bool, error) {
		err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "blixt-balanced"}, &corev1.Service{})
		return err != nil, client.IgnoreNotFound(err)
	})
	if got := awaitProgrammed(t, "waiting"); !slices.Equal(got, vips) {
		t.Errorf("the Gateway that has waited got the addresses %v, want %v, which were released", got, vips)
	}
	checkNewClients(t, vips, "tcp")
	deleteFile(t, "waiting.yaml", "", "")
	t.Run("migrated", testMigrated)
}

// installMetalLB installs MetalLB as it is released, with one address of each family to
// give. It is removed when the test ends: other tests want nobody to give addresses.
func installMetalLB(t *testing.T) {
	t.Helper()
	for _, name := range []string{"controller", "speaker"} {
		image := cluster.Image{Files: map[string]string{"/" + name: c.MetalLB(name)}, Entrypoint: []string{"/" + name}}
		if _, err := c.Push(t.Context(), "metallb/"+name+":"+cluster.MetalLBVersion, image); err != nil {
			t.Fatal(err)
		}
	}
	manifest := c.MetalLB("metallb-native.yaml")
	t.Cleanup(func() {
		if _, err := c.Kubectl(context.Background(), "delete", "--ignore-not-found", "--timeout=1m", "--filename="+manifest); err != nil {
			t.Error(err)
		}
	})
	kubectl(t, "apply", "--server-side", "--filename="+manifest)
	awaitPods(t, metallb)
	kube.Wait(t, patience, "whether MetalLB takes its pool", true, func() (bool, error) { // it has to give its webhook a certificate first
		text, err := testdata("metallb.yaml", "", "")
		if err == nil {
			err = c.ApplyYAML(t.Context(), text)
		}
		return err == nil, err
	})
}

// watchService notes every UID and every list of addresses that a Service has, until the
// function that it returns is called, which returns all that differ from those before.
func watchService(t *testing.T, name string) (seen func() []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	type printed struct {
		text string
		err  error
	}
	end := make(chan printed, 1)
	go func() {
		text, err := c.Kubectl(ctx, "get", "service", name, "--watch", `--output=jsonpath={.metadata.uid}{" "}{.status.loadBalancer.ingress[*].ip}{"\n"}`)
		end <- printed{text, err}
	}()
	return func() []string {
		if len(end) > 0 { // nothing else ends it
			t.Fatalf("the watch of Service %s ended early: %v", name, (<-end).err)
		}
		cancel()
		return slices.Compact(strings.Split(strings.TrimSpace((<-end).text), "\n"))
	}
}

// nameConfig has the class name a BlixtConfig.
func nameConfig(t *testing.T, name string) {
	t.Helper()
	kubectl(t, "patch", "gatewayclass", "blixt", "--type=merge", `--patch={"spec":{"parametersRef":{"name":"`+name+`"}}}`)
}

// awaitCondition waits until a condition has the status and reason.
func awaitCondition(t *testing.T, read func() (string, error), want string) {
	t.Helper()
	kube.Wait(t, patience, "status and reason of the condition", want, read)
}

func classCondition(t *testing.T) func() (string, error) {
	return func() (string, error) {
		class := &gwv1.GatewayClass{}
		err := c.Client.Get(t.Context(), client.ObjectKey{Name: "blixt"}, class)
		return describe(class.Status.Conditions, "Accepted", class.Generation), err
	}
}

func gatewayCondition(t *testing.T, name, condition string) func() (string, error) {
	return func() (string, error) {
		gw := &gwv1.Gateway{}
		err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: name}, gw)
		return describe(gw.Status.Conditions, condition, gw.Generation), err
	}
}

// describe returns a condition's status and reason, if it is about the generation.
func describe(conditions []metav1.Condition, name string, generation int64) string {
	condition := meta.FindStatusCondition(conditions, name)
	if condition == nil || condition.ObservedGeneration != generation {
		return "none yet"
	}
	return fmt.Sprintf("%s %s", condition.Status, condition.Reason)
}

// checkNewClients asks each address from outside, to which nothing but MetalLB's answers
// to ARP and neighbor discovery leads.
func checkNewClients(t *testing.T, vips []string, networks ...string) {
	t.Helper()
	for _, vip := range vips {
		for _, network := range networks {
			got, err := asker{dial: c.Outside}.ask(t, network, net.JoinHostPort(vip, "80"), 20)
			if err != nil {
				t.Errorf("%s to %s: answers %v, then %v", network, vip, got, err)
			}
		}
	}
}

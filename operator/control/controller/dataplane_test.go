// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

const secondCode = "registry.example.com/bytecode@sha256:2222222222222222222222222222222222222222222222222222222222222222"

// upgrade asks for other bytecode.
func (o *operator) upgrade(image string) {
	o.Helper()
	o.apply(fmt.Sprintf(`{apiVersion: blixt.x-k8s.io/v1alpha1, kind: BlixtConfig, metadata: {name: blixt}, spec: {addresses: {source: Pool, pool: [198.51.100.0/29]}, dataplane: {bytecode: {image: "%s"}}}}`, image))
}

// applications lists those of bpfman.
func (o *operator) applications() (names []string) {
	o.Helper()
	var list bpfmanv1.ClusterBpfApplicationList
	o.must(o.kube.List(o.Context(), &list))
	for _, a := range list.Items {
		names = append(names, a.Name)
	}
	return names
}

func (o *operator) settings(application string) (s fleet.Settings) {
	o.agents.change(func(a *agents) { s = a.settings[application] })
	return s
}

// TestUpgradeHandsOver goes from one digest to another, with a restart of the
// operator in the middle.
func TestUpgradeHandsOver(t *testing.T) {
	o := start(t)
	o.serve()
	first, second := rollout.Name(firstCode), rollout.Name(secondCode)
	ports := o.settings(first).SNAT
	o.agents.change(func(a *agents) {
		for i := range a.reports {
			a.reports[i].Flows = 7
		}
	})
	o.upgrade(secondCode)
	o.load(secondCode, "n1")
	// n2 cannot: it goes on with the first, n1 drains.
	o.eventually("draining", func() error {
		if d := o.settings(first).Drain; !d["n1"] || d["n2"] {
			return fmt.Errorf("on %v, want n1", d)
		}
		return nil
	})
	o.condition(named[v1alpha1.NodeDataplane]("", "n1"), "Ready", "True Serving", "")
	if other := o.settings(second).SNAT; other.First <= ports.Last && ports.First <= other.Last {
		t.Errorf("source ports %v and %v overlap", ports, other)
	}
	if front, behind := o.settings(first).Upgrading, o.settings(second).Upgrading; front || !behind {
		t.Errorf("the first application is told %v, the second %v: want that the second is behind another", front, behind)
	}
	o.stop()
	o.run()
	o.state(second, "n2", 201)
	o.agents.connect("n2", second)
	o.eventually("draining", func() error {
		if d := o.settings(first).Drain; !d["n1"] || !d["n2"] {
			return fmt.Errorf("on %v, want both", d)
		}
		return nil
	})
	o.condition(named[gwv1.Gateway]("default", "web"), "Programmed", "True Programmed", "All nodes")
	if got := o.applications(); len(got) != 2 {
		t.Errorf("applications %v, want two: connections are left", got)
	}
	ndp := named[v1alpha1.NodeDataplane]("", "n2")
	o.eventually("NodeDataplane", func() error {
		o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(ndp), ndp))
		if a := ndp.Status.Applications; len(a) != 2 || a[0].Name != second || !a[1].Draining {
			return fmt.Errorf("it has %+v, want the new one before the one that drains", a)
		}
		return nil
	})
}

// TestBytecodeNobodySignedIsNotLoaded asks a registry that is not there.
func TestBytecodeNobodySignedIsNotLoaded(t *testing.T) {
	o := start(t)
	o.serve()
	o.apply(fmt.Sprintf(`
apiVersion: blixt.x-k8s.io/v1alpha1
kind: BlixtConfig
metadata: {name: blixt}
spec:
  addresses: {source: Pool, pool: [198.51.100.0/29]}
  dataplane:
    bytecode:
      image: localhost:1/bytecode@%s
      verificationKeys:
        - |
          -----BEGIN PUBLIC KEY-----
          MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAENN2gg3VvdqEmnhqpqnWuCo9ZCRCo
          TKtlJpTmZrvrfTMEsfJbyxuWnyTLHGCpv4aMvIyQ8GLBiC2nQQmgdrJcKQ==
          -----END PUBLIC KEY-----
`, secondCode[strings.Index(secondCode, "@")+1:]))
	o.condition(named[v1alpha1.NodeDataplane]("", "n1"), "Drifted", "True OtherBytecode", "")
	o.condition(named[gwv1.Gateway]("default", "web"), "Programmed", "True Programmed", "All nodes")
	o.calm()
	if got := o.applications(); len(got) != 1 || got[0] != rollout.Name(firstCode) {
		t.Errorf("applications %v, want the first alone", got)
	}
}

// TestReloadedProgramGetsAFreshVolume restarts the agent that has the maps of
// a program that is gone.
func TestReloadedProgramGetsAFreshVolume(t *testing.T) {
	o := start(t)
	o.serve()
	o.state(rollout.Name(firstCode), "n1", 555)
	pod := named[corev1.Pod](namespace, "agent-n1-"+rollout.Name(firstCode))
	o.eventually("pod", func() error {
		if err := o.kube.Get(t.Context(), client.ObjectKeyFromObject(pod), pod); err == nil && pod.DeletionTimestamp == nil {
			return fmt.Errorf("it is still there")
		}
		return nil
	})
	o.condition(named[v1alpha1.NodeDataplane]("", "n1"), "Ready", "False ReloadedProgram", "")
}

// TestAgentsMayDoNothing looks at the DaemonSet.
func TestAgentsMayDoNothing(t *testing.T) {
	o := start(t)
	o.serve()
	set := named[appsv1.DaemonSet](namespace, rollout.AgentsName(rollout.Name(firstCode)))
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(set), set))
	pod := set.Spec.Template.Spec
	security := pod.Containers[0].SecurityContext
	if pod.HostNetwork || *pod.AutomountServiceAccountToken || *security.AllowPrivilegeEscalation || !*security.ReadOnlyRootFilesystem ||
		len(security.Capabilities.Add) > 0 || security.Capabilities.Drop[0] != "ALL" || *pod.SecurityContext.RunAsUser != 65532 {
		t.Errorf("agents run as %+v, %+v", pod, security)
	}
	for _, v := range pod.Volumes {
		if v.HostPath != nil {
			t.Errorf("agents mount %s of the host", v.HostPath.Path)
		}
	}
}

// TestKindsMayComeLater starts without Gateway API and bpfman.
func TestKindsMayComeLater(t *testing.T) {
	o := start(t)
	o.stop()
	late := []string{"udproutes.gateway.networking.k8s.io", "clusterbpfapplications.bpfman.io", "clusterbpfapplicationstates.bpfman.io"}
	var crds []*apiextv1.CustomResourceDefinition
	for _, name := range late {
		crd := named[apiextv1.CustomResourceDefinition]("", name)
		o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(crd), crd))
		o.must(o.kube.Delete(t.Context(), crd))
		crds = append(crds, crd)
	}
	restore := func() {
		for _, crd := range crds {
			fresh := named[apiextv1.CustomResourceDefinition]("", crd.Name)
			fresh.Spec, fresh.Annotations = crd.Spec, crd.Annotations
			for { // it is gone when its objects are
				err := server.Client.Create(context.Background(), fresh)
				if err == nil {
					break
				}
				if client.IgnoreAlreadyExists(err) != nil {
					t.Fatal(err)
				}
				existing := named[apiextv1.CustomResourceDefinition]("", crd.Name)
				if err := server.Client.Get(context.Background(), client.ObjectKeyFromObject(existing), existing); err == nil && existing.DeletionTimestamp == nil {
					break
				}
			}
		}
	}
	defer restore()
	o.run()
	o.apply(kube.WebGateway)
	gw := named[gwv1.Gateway]("default", "web")
	o.condition(gw, "Accepted", "True Accepted", "")
	o.condition(gw, "Programmed", "False NoResources", "v1alpha1 is missing, so no data plane is loaded: install bpfman-operator")
	o.condition(named[gwv1.GatewayClass]("", "blixt"), "Accepted", "True Accepted", "UDPRoute v1 is missing")
	restore()
	o.load(firstCode, "n1", "n2")
	o.condition(gw, "Programmed", "True Programmed", "All nodes")
	o.condition(named[gwv1.GatewayClass]("", "blixt"), "Accepted", "True Accepted", "Blixt serves")
}

// TestBpfmansFaultsAreTold has bpfman fail in the ways that it does.
func TestBpfmansFaultsAreTold(t *testing.T) {
	o := start(t)
	bpfman := server.PlayBpfman(t)
	for fault, want := range map[kube.Fault]string{
		kube.LoadFails:   "False LoadFailed",
		kube.LinksEmpty:  "False LinksMissing",
		kube.AttachFails: "False NotAttached",
		0:                "False NoAgent", // of which there is none here
	} {
		bpfman.Break("n1", fault)
		o.apply(kube.WebGateway)
		ndp := named[v1alpha1.NodeDataplane]("", "n1")
		o.condition(ndp, "Ready", want, "")
		o.condition(named[gwv1.Gateway]("default", "web"), "Programmed", "False Pending", "n1: "+strings.TrimPrefix(want, "False "))
		bpfman.Break("n1", 0)
		o.must(o.kube.Delete(t.Context(), named[gwv1.Gateway]("default", "web")))
		o.must(o.kube.Delete(t.Context(), named[gwv1.GatewayClass]("", "blixt")))
		o.eventually("applications", func() error {
			if n := len(o.applications()); n > 0 {
				return fmt.Errorf("there are %d, want none", n)
			}
			return nil
		})
	}
}

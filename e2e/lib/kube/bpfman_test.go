// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	bpfman "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

// scene is one application on nodes of its own.
type scene struct {
	t           *testing.T
	server      *kube.Server
	bpfman      *kube.Bpfman
	application *bpfman.ClusterBpfApplication
	nodes       []string
}

func newScene(t *testing.T, server *kube.Server, name string, nodes ...string) *scene {
	s := &scene{t: t, server: server, nodes: nodes}
	yes := true
	link := func(direction bpfman.TCDirectionType) bpfman.ClTcxAttachInfo {
		return bpfman.ClTcxAttachInfo{Direction: direction, InterfaceSelector: bpfman.InterfaceSelector{PrimaryNodeInterface: &yes}}
	}
	s.application = &bpfman.ClusterBpfApplication{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: bpfman.ClBpfApplicationSpec{
			BpfAppCommon: bpfman.BpfAppCommon{ByteCode: bpfman.ByteCodeSelector{Image: &bpfman.ByteCodeImage{Url: "example.com/blixt"}}},
			Programs: []bpfman.ClBpfApplicationProgram{{
				Name: "blixt", Type: bpfman.ProgTypeTCX,
				TCX: &bpfman.ClTcxProgramInfo{Links: []bpfman.ClTcxAttachInfo{link(bpfman.TCIngress), link(bpfman.TCEgress)}},
			}},
		},
	}
	for _, name := range nodes {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
		s.try(server.Client.Create(t.Context(), node))
		t.Cleanup(func() {
			if err := server.Client.Delete(context.WithoutCancel(t.Context()), node); err != nil {
				t.Error(err)
			}
		})
	}
	s.bpfman = server.PlayBpfman(t)
	return s
}

func (s *scene) try(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) create() { s.t.Helper(); s.try(s.server.Client.Create(s.t.Context(), s.application)) }

// want waits until the application's condition, and below it a line for each node, are
// these.
func (s *scene) want(what string, lines ...string) {
	s.t.Helper()
	kube.Wait(s.t, 10*time.Second, what, strings.Join(lines, "\n"), s.told)
}

func (s *scene) told() (string, error) {
	key := client.ObjectKeyFromObject(s.application)
	if err := s.server.Client.Get(s.t.Context(), key, s.application); client.IgnoreNotFound(err) != nil {
		return "", err
	} else if err != nil {
		s.application.Status.Conditions = []metav1.Condition{{Type: "gone"}}
	}
	var lines []string
	for _, c := range s.application.Status.Conditions {
		lines = append(lines, c.Type)
	}
	for _, node := range s.nodes {
		var states bpfman.ClusterBpfApplicationStateList
		if err := s.server.Client.List(s.t.Context(), &states, client.MatchingLabels{"bpfman.io/ownedByProgram": s.application.Name, corev1.LabelHostname: node}); err != nil {
			return "", err
		}
		for _, state := range states.Items {
			line := state.Status.Node + " " + string(state.Status.AppLoadStatus)
			for _, c := range state.Status.Conditions {
				line += " " + c.Type
			}
			for _, program := range state.Status.Programs {
				line += fmt.Sprintf(" %s:%s", program.Name, program.ProgramLinkStatus)
				for _, link := range program.TCX.Links {
					line += fmt.Sprintf(" %s/%s/%d:%s", link.InterfaceName, link.Direction, link.Priority, link.LinkStatus)
				}
			}
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n"), nil
}

func (s *scene) wantPrograms(what string, want int) {
	s.t.Helper()
	if got := s.bpfman.Programs(); len(got) != want {
		s.t.Errorf("%s: programs in the kernels: got %v, want %d", what, got, want)
	}
}

const attached = " LoadSuccess Success blixt:Success eth0/Ingress/1000:Attached eth0/Egress/1000:Attached"

func TestBpfmanLoads(t *testing.T) {
	s := newScene(t, server, "loads", "loads-1", "loads-2")
	s.create()
	s.want("loaded", "Success", "loads-1"+attached, "loads-2"+attached)
	s.wantPrograms("loaded", 2)

	links := s.application.Spec.Programs[0].TCX.Links
	links[0].InterfaceSelector = bpfman.InterfaceSelector{Interfaces: []string{"eth1"}}
	priority := int32(7)
	links[1].Priority = &priority
	s.try(server.Client.Update(t.Context(), s.application))
	const changed = " LoadSuccess Success blixt:Success eth1/Ingress/1000:Attached eth0/Egress/7:Attached"
	s.want("changed", "Success", "loads-1"+changed, "loads-2"+changed)
	s.wantPrograms("changed", 2)

	s.try(server.Client.Delete(t.Context(), s.application))
	s.want("deleted", "gone")
	s.wantPrograms("deleted", 0)
}

// TestBpfmanSelectsNodes: on a node that is not selected bpfman-agent panics. What is
// there stays Pending. What was there is unloaded while its state goes on reporting it.
func TestBpfmanSelectsNodes(t *testing.T) {
	s := newScene(t, server, "selects", "selects-1", "selects-2")
	s.application.Spec.NodeSelector.MatchLabels = map[string]string{corev1.LabelHostname: "selects-1"}
	s.create()
	s.want("selected one", "Pending", "selects-1"+attached, "selects-2 NotLoaded Pending blixt:Pending")

	s.application.Spec.NodeSelector.MatchLabels[corev1.LabelHostname] = "selects-2"
	s.try(server.Client.Update(t.Context(), s.application))
	s.want("selected the other", "Success", "selects-1"+attached, "selects-2"+attached)
	s.wantPrograms("selected the other", 1)

	s.try(server.Client.Delete(t.Context(), s.application))
	s.want("deleted", "gone")
	s.wantPrograms("deleted", 0)
}

func TestBpfmanFaults(t *testing.T) {
	for name, c := range map[string]struct {
		fault kube.Fault
		want  []string
	}{
		"load":    {kube.LoadFails, []string{"Error", "load-1 LoadError Error blixt:Pending"}},
		"empty":   {kube.LinksEmpty, []string{"Success", "empty-1 LoadSuccess Success blixt:Success"}},
		"attach":  {kube.AttachFails, []string{"Error", "attach-1 LoadSuccess Error blixt:Error eth0/Ingress/1000:AttachError eth0/Egress/1000:AttachError"}},
		"nowhere": {kube.AgentAway, []string{"Pending"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, server, name, name+"-1")
			s.bpfman.Break(name+"-1", c.fault)
			s.create()
			s.want("broken", c.want...)
			s.bpfman.Break(name+"-1", 0)
			s.want("repaired", "Success", name+"-1"+attached)
			s.try(server.Client.Delete(t.Context(), s.application))
			s.want("deleted", "gone")
		})
	}
}

// TestBpfmanLosesPrograms: a loss is not noticed until bpfman has forgotten the program
// too.
func TestBpfmanLosesPrograms(t *testing.T) {
	s := newScene(t, server, "loses", "loses-1")
	s.create()
	s.want("loaded", "Success", "loses-1"+attached)
	before := s.bpfman.Programs()

	s.bpfman.Lose("loses-1")
	time.Sleep(200 * time.Millisecond) // several passes
	s.want("lost, and not noticed", "Success", "loses-1"+attached)
	s.wantPrograms("lost", 0)

	s.bpfman.Forget("loses-1")
	kube.Wait(t, 5*time.Second, "loaded again", before[0].ID+1, func() (uint32, error) {
		if p := s.bpfman.Programs(); len(p) == 1 {
			return p[0].ID, nil
		}
		return 0, nil
	})
	s.want("loaded again", "Success", "loses-1"+attached)
	s.try(server.Client.Delete(t.Context(), s.application))
	s.want("deleted", "gone")
}

// TestBpfmanLinkIDs: with the kinds of its release, bpfman loads again until the ids of
// all links fit, and leaves behind what it loaded before.
func TestBpfmanLinkIDs(t *testing.T) {
	narrow, err := kube.Start(t.Context(), kube.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(narrow.Stop)
	for _, c := range []struct {
		name   string
		server *kube.Server
		copies int
	}{{"wide", server, 0}, {"narrow", narrow, 2}} {
		s := newScene(t, c.server, c.name, c.name+"-1")
		last := uint32(0)
		s.bpfman.SetLinkIDs(func() uint32 { // the first four are too great
			last++
			if last <= 4 {
				return 1<<31 + last
			}
			return last
		})
		s.create()
		s.want(c.name, "Success", c.name+"-1"+attached)
		s.wantPrograms(c.name, 1+c.copies)
		s.try(c.server.Client.Delete(t.Context(), s.application))
		s.want("deleted", "gone")
		s.wantPrograms(c.name+" after the application", c.copies)
	}
}

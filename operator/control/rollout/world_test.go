// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// world simulates a cluster: bpfman loads what it can, agents write maps and
// obey, and all of them are slow and fail.
type world struct {
	*rand.Rand
	t        *testing.T
	now      time.Time
	log      []string
	reliable bool // nothing fails any more

	wanted   byte // digit of the digest
	priority int32
	ports    v1alpha1.PortRange

	nodes      map[string]bool // ready
	away       map[string]bool // nodes whose bpfman is restarting, and reports no program
	apps       map[string]*bpfmanv1.ClusterBpfApplication
	sets       map[string]bool // DaemonSets, by application
	programs   map[instanceKey]*program
	agents     map[instanceKey]*agentPod
	bad        map[string]bool // image digit and node where it does not load
	dataplanes []v1alpha1.NodeDataplane
	started    time.Time
	orders     map[instanceKey]bool // drain
	since      map[string]time.Time // since when a previous application drains on some node
	nextID     uint32
}

type instanceKey struct{ application, node string }

// program is in a kernel.
type program struct {
	id       uint32
	priority int32
	written  bool // its maps hold a state
	draining bool
	gone     bool // unpinned by a restart of bpfman
	flows    uint64
}

// serves reports whether new connections are served.
func (p *program) serves() bool { return p != nil && p.written && !p.draining && !p.gone }

// before reports whether packets reach a program before another: of equal
// priority, they reach the older one first.
func (p *program) before(o *program) bool {
	return p.priority < o.priority || p.priority == o.priority && p.id < o.id
}

// agentPod is an agent's pod.
type agentPod struct {
	name      string
	maps      *program // whose maps it has mounted
	connected bool
	known     bool // this operator has its report
	contact   time.Time
}

func newWorld(t *testing.T, seed uint64) *world {
	return &world{
		Rand: rand.New(rand.NewPCG(seed, 0)), t: t, now: clock("00:00:00"), wanted: 'a', priority: 50,
		nodes: map[string]bool{"n1": true, "n2": true, "n3": true}, away: map[string]bool{}, apps: map[string]*bpfmanv1.ClusterBpfApplication{},
		sets: map[string]bool{}, programs: map[instanceKey]*program{}, agents: map[instanceKey]*agentPod{}, bad: map[string]bool{}, orders: map[instanceKey]bool{},
	}
}

func (w *world) logf(format string, args ...any) {
	w.log = append(w.log, w.now.Format(time.TimeOnly)+" "+fmt.Sprintf(format, args...))
}

func (w *world) chance(percent int) bool { return w.IntN(100) < percent }

// names returns the applications, sorted, so that a seed gives one history.
func (w *world) names() []string {
	var all []string
	for name := range w.apps {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// step lets some time pass, and something happen.
func (w *world) step() {
	w.now = w.now.Add(time.Duration(1+w.IntN(40)) * time.Second)
	for _, node := range []string{"n1", "n2", "n3"} {
		if !w.reliable && w.chance(2) {
			w.nodes[node] = !w.nodes[node]
			w.logf("node %s ready: %v", node, w.nodes[node])
		}
		w.nodes[node] = w.nodes[node] || w.reliable
		if away := !w.reliable && w.chance(map[bool]int{false: 5, true: 70}[w.away[node]]); away != w.away[node] {
			w.away[node] = away
			w.logf("bpfman away from %s: %v", node, away)
		}
		for _, name := range w.names() {
			at := instanceKey{name, node}
			if w.reliable || w.chance(60) && !w.away[node] {
				w.bpfman(at)
			}
			if w.reliable || w.chance(60) {
				w.agent(at)
			}
			if !w.reliable && w.chance(1) {
				w.breakProgram(at)
			}
		}
	}
	for _, name := range w.names() {
		if w.apps[name].DeletionTimestamp != nil && !w.loaded(name) {
			delete(w.apps, name)
		}
	}
	if !w.reliable && w.chance(3) {
		w.wanted = byte('a' + w.IntN(4))
		w.logf("wanted: %c", w.wanted)
	}
	if !w.reliable && w.chance(2) {
		w.priority = int32(20 + 30*w.IntN(3))
		w.ports = v1alpha1.PortRange{First: int32(1000 * (1 + w.IntN(9))), Last: int32(1000 * (11 + w.IntN(9)))}
		w.logf("priority %d, ports %v", w.priority, w.ports)
	}
	if !w.reliable && w.chance(3) {
		w.logf("the operator restarts")
		w.started = w.now
		for _, a := range w.agents {
			a.known, a.connected = false, false
		}
	}
}

func (w *world) loaded(application string) bool {
	for at := range w.programs {
		if at.application == application {
			return true
		}
	}
	return false
}

// bpfman makes a node's kernel run what an application asks for.
func (w *world) bpfman(at instanceKey) {
	app, p := w.apps[at.application], w.programs[at]
	key := app.Name[6:7] + at.node
	switch {
	case app.DeletionTimestamp != nil:
		delete(w.programs, at)
		delete(w.agents, at)
	case p == nil && !w.reliable && !w.bad[key] && w.chance(20):
		w.bad[key] = true
		w.logf("%v does not load", at)
	case w.bad[key] && !w.reliable && !w.chance(5):
	case p == nil:
		delete(w.bad, key)
		w.nextID++
		w.programs[at] = &program{id: w.nextID, priority: *app.Spec.Programs[0].TCX.Links[0].Priority}
	default:
		p.priority = *app.Spec.Programs[0].TCX.Links[0].Priority
	}
}

// breakProgram loads a program anew, or loses it.
func (w *world) breakProgram(at instanceKey) {
	p, a := w.programs[at], w.agents[at]
	switch {
	case p == nil || a == nil || !a.connected || !w.nodes[at.node]: // the operator could not know
	case w.chance(50):
		w.logf("%v is loaded anew", at)
		w.nextID++
		w.programs[at] = &program{id: w.nextID, priority: p.priority}
	default:
		w.logf("%v is gone", at)
		p.gone = true
	}
}

// agent simulates an agent: it mounts, connects, writes and obeys.
func (w *world) agent(at instanceKey) {
	a, p := w.agents[at], w.programs[at]
	switch {
	case a == nil && w.sets[at.application] && p != nil:
		w.nextID++
		w.agents[at] = &agentPod{name: fmt.Sprintf("agent-%d", w.nextID), maps: p}
		return
	case a == nil:
		return
	case !a.connected:
		a.connected = true
	case !w.reliable && w.chance(3) && !a.lost(p):
		a.connected = false
		return
	}
	a.known, a.contact = true, w.now
	a.maps.written = true
	if drain, told := w.orders[at]; told {
		a.maps.draining = drain
	}
	if a.maps.draining {
		a.maps.flows /= 2
	} else {
		a.maps.flows = uint64(w.IntN(10))
	}
	if p != nil && p.gone && w.chance(30) {
		w.nextID++
		w.programs[at] = &program{id: w.nextID, priority: p.priority}
	}
}

// inContact reports whether the agent is connected to this operator, or was within
// the last minute.
func (w *world) inContact(at instanceKey) bool {
	a := w.agents[at]
	return a != nil && a.known && (a.connected || w.now.Sub(a.contact) <= time.Minute)
}

// lost reports whether the agent's heartbeat has stopped.
func (a *agentPod) lost(p *program) bool { return a.maps != p || p.gone }

// cluster returns what the operator observes.
func (w *world) cluster() rollout.Cluster {
	c := rollout.Cluster{Started: w.started, Dataplanes: w.dataplanes}
	for _, node := range []string{"n1", "n2", "n3"} {
		n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown}}
		if w.nodes[node] {
			n.Status.Conditions[0].Status = corev1.ConditionTrue
		}
		c.Nodes = append(c.Nodes, n)
	}
	for _, name := range w.names() {
		c.Applications = append(c.Applications, *w.apps[name].DeepCopy())
		for _, n := range c.Nodes {
			at := instanceKey{name, n.Name}
			c.States = append(c.States, w.state(at))
			if a := w.agents[at]; a != nil {
				pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: a.name, Labels: map[string]string{"blixt.x-k8s.io/application": name}}}
				pod.Spec.NodeName, pod.Status.Phase = n.Name, corev1.PodRunning
				c.Pods = append(c.Pods, pod)
				if a.known {
					c.Reports = append(c.Reports, w.report(at, a))
				}
			}
		}
	}
	return c
}

func (w *world) report(at instanceKey, a *agentPod) lb.Report {
	r := lb.Report{
		Node: at.node, Application: at.application, Pod: a.name, Connected: a.connected, LastContact: a.contact,
		Draining: a.maps.draining, Flows: a.maps.flows, HeartbeatLost: a.lost(w.programs[at]),
	}
	if a.maps.written {
		r.Version, r.AckedAt = lb.Version{Epoch: 1, Sequence: 1}, a.contact
	}
	return r
}

func (w *world) state(at instanceKey) bpfmanv1.ClusterBpfApplicationState {
	s := bpfmanv1.ClusterBpfApplicationState{ObjectMeta: metav1.ObjectMeta{
		Name: at.application + "-" + at.node, CreationTimestamp: w.apps[at.application].CreationTimestamp,
		Labels: map[string]string{"bpfman.io/ownedByProgram": at.application, "kubernetes.io/hostname": at.node},
	}}
	s.Status.AppLoadStatus = bpfmanv1.AppLoadNotLoaded
	p := w.programs[at]
	if p == nil && w.bad[at.application[6:7]+at.node] {
		s.Status.AppLoadStatus = bpfmanv1.AppLoadError
	}
	if p == nil || w.away[at.node] {
		return s
	}
	s.Status.AppLoadStatus = bpfmanv1.AppLoadSuccess
	var state bpfmanv1.ClBpfApplicationProgramState
	state.Name, state.ProgramId, state.TCX = "blixt", &p.id, &bpfmanv1.ClTcxProgramInfoState{}
	for _, direction := range []bpfmanv1.TCDirectionType{bpfmanv1.TCIngress, bpfmanv1.TCEgress} {
		link := bpfmanv1.ClTcxAttachInfoState{InterfaceName: "eth0", Direction: direction, Priority: p.priority}
		link.ShouldAttach, link.LinkStatus = true, bpfmanv1.ApAttachAttached
		state.TCX.Links = append(state.TCX.Links, link)
	}
	s.Status.Programs = []bpfmanv1.ClBpfApplicationProgramState{state}
	return s
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(w.log[max(0, len(w.log)-60):], "\n"))
}

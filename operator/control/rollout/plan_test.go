// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"flag"
	"slices"
	"testing"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

var worlds = flag.Uint64("worlds", 20, "how many worlds to drive upgrades through")

// TestPlanNeverStopsServing drives upgrades through a world in which everything
// is late and much fails. No pass takes the last serving program from a node, except
// from a single one that did not change over in the time that the first node's
// connections had, or gives two applications a port in common. When nothing fails any more, one
// application is left: the one that is asked for.
func TestPlanNeverStopsServing(t *testing.T) {
	passes := 300
	upgrades, deletions := 0, 0
	for seed := range *worlds {
		w := newWorld(t, seed)
		for range passes {
			w.step()
			created, deleted := w.pass()
			upgrades, deletions = upgrades+created, deletions+deleted
		}
		w.reliable = true
		w.logf("nothing fails any more")
		for range 300 {
			w.step()
			w.pass()
		}
		if names := w.names(); len(names) != 1 || names[0] != rollout.Name(image(w.wanted)) {
			w.fail("seed %d: %v are left, want %s alone", seed, names, rollout.Name(image(w.wanted)))
		}
		for node := range w.nodes {
			if p := w.programs[instanceKey{w.names()[0], node}]; !p.serves() {
				w.fail("seed %d: node %s does not serve: %+v", seed, node, p)
			}
		}
	}
	t.Logf("%d applications were created, %d deleted", upgrades, deletions)
	if upgrades < 2*int(*worlds) || deletions < int(*worlds) {
		t.Errorf("%d applications created and %d deleted in %d worlds: too few to show anything", upgrades, deletions, *worlds)
	}
}

// pass is one pass of the operator: it plans, and the plan is checked and carried
// out.
func (w *world) pass() (created, deleted int) {
	spec := rollout.Default(&v1alpha1.Dataplane{
		Bytecode: &v1alpha1.Bytecode{Image: image(w.wanted)}, Priority: &w.priority, SNATPorts: w.ports,
	}, release, nil)
	c := w.cluster()
	desired := rollout.Plan(w.now, spec, c)
	w.check(desired)

	apply, remove := rollout.Objects(spec, release, desired)
	for _, object := range apply {
		switch o := object.(type) {
		case *appsv1.DaemonSet:
			w.sets[o.Spec.Selector.MatchLabels["blixt.x-k8s.io/application"]] = true
		case *bpfmanv1.ClusterBpfApplication:
			if stored := w.apps[o.Name]; stored != nil {
				o.CreationTimestamp = stored.CreationTimestamp
			} else {
				o.CreationTimestamp = metav1.NewTime(w.now)
				w.logf("create %s", o.Name)
				created++
			}
			w.apps[o.Name] = o
		}
	}
	for _, object := range remove {
		if o, ok := object.(*bpfmanv1.ClusterBpfApplication); ok {
			w.logf("delete %s", o.Name)
			w.apps[o.Name].DeletionTimestamp = &metav1.Time{Time: w.now}
			delete(w.sets, o.Name)
			deleted++
		}
	}
	since := map[string]time.Time{} // when each began to drain on some node
	for _, a := range desired.Applications[1:] {
		for _, drain := range a.Drain {
			if first, ok := w.since[a.Name]; ok && drain {
				since[a.Name] = first
			} else if drain {
				since[a.Name] = w.now
			}
		}
	}
	w.since = since
	clear(w.orders)
	for _, a := range desired.Applications {
		for node, drain := range a.Drain {
			w.orders[instanceKey{a.Name, node}] = drain
		}
	}
	w.dataplanes = nil
	for _, v := range rollout.Judge(w.now, spec, desired, c) {
		w.dataplanes = append(w.dataplanes, v1alpha1.NodeDataplane{ObjectMeta: metav1.ObjectMeta{Name: v.Node}, Status: v.Status})
		for _, pod := range v.Restart {
			w.logf("restart %s", pod)
			for at, a := range w.agents {
				if a.name == pod {
					delete(w.agents, at)
				}
			}
		}
	}
	return created, deleted
}

func (w *world) check(desired rollout.Desired) {
	w.t.Helper()
	if len(desired.Applications) == 0 {
		w.fail("no application is left")
	}
	if n := len(desired.Applications); n > 2 {
		w.fail("%d applications, want two at most", n)
	}
	for i, a := range desired.Applications {
		for _, b := range desired.Applications[:i] {
			if a.SNAT.First <= b.SNAT.Last && b.SNAT.First <= a.SNAT.Last {
				w.fail("%s and %s have ports in common: %v and %v", a.Name, b.Name, a.SNAT, b.SNAT)
			}
		}
	}
	givenUp := 0
	for node := range w.nodes {
		if w.checkNode(node, desired) {
			givenUp++
		}
	}
	if givenUp > 1 {
		w.fail("%d nodes are given up at once: %+v", givenUp, desired)
	}
}

// checkNode fails if a node would lose the program that serves it before its time,
// or get one in front of it that takes its flows for new ones. It returns whether
// the node's time is over.
func (w *world) checkNode(node string, desired rollout.Desired) (givenUp bool) {
	w.t.Helper()
	served, remains := false, false
	for at, p := range w.programs {
		if at.node != node || !p.serves() || w.apps[at.application].DeletionTimestamp != nil || w.away[node] && !w.inContact(at) {
			continue // the operator cannot know
		}
		if since, ok := w.since[at.application]; ok && slices.Contains(desired.Delete, at.application) && w.now.Sub(since) >= time.Hour {
			givenUp = true
			continue
		}
		served = true
		for _, a := range desired.Applications {
			drain, told := a.Drain[node]
			remains = remains || a.Name == at.application && !drain
			if q := w.programs[instanceKey{a.Name, node}]; told && !drain && q != nil && q.draining && q.before(p) && w.inContact(at) {
				w.fail("node %s: %s takes new connections again, in front of %s: %+v", node, a.Name, at.application, desired)
			}
		}
	}
	if served && !remains {
		w.fail("node %s is served, and would not be any more: %+v", node, desired)
	}
	return givenUp
}

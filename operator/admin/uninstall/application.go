// SPDX-License-Identifier: Apache-2.0

package uninstall

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/kube"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// application matches the names of the operator's applications.
var application = regexp.MustCompile(`^blixt-[0-9a-f]{12}$`)

// unload deletes the applications, and waits until bpfman has unloaded them on every
// node: bpfman then removes its finalizer from the node's state.
func (r *remover) unload(ctx context.Context) error {
	forced := map[string]bool{}
	err := r.until(ctx, func(ctx context.Context) ([]blocker, error) {
		left, err := r.removeAll(ctx, &bpfmanv1.ClusterBpfApplicationList{}, ours)
		if err != nil {
			return nil, err
		}
		var states bpfmanv1.ClusterBpfApplicationStateList
		if err := kube.List(ctx, r.client, &states); err != nil {
			return nil, err
		}
		nodes, err := r.readNodes(ctx)
		if err != nil {
			return nil, err
		}
		return r.unloading(ctx, left, states.Items, nodes, forced)
	})
	for node := range forced {
		r.say("node %s may still run a program of Blixt: restart it before it serves again", node)
	}
	return err
}

// findForeign returns an error if bpfman is to go, and others have programs that only
// bpfman can unload.
func (r *remover) findForeign(ctx context.Context) error {
	if !r.WithBpfman {
		return nil
	}
	var foreign []string
	for _, list := range []client.ObjectList{&bpfmanv1.ClusterBpfApplicationList{}, &bpfmanv1.BpfApplicationList{}} {
		if err := kube.List(ctx, r.client, list); err != nil {
			return err
		}
		err := meta.EachListItem(list, func(item runtime.Object) error {
			if object := item.(client.Object); !v1alpha1.Managed(object) {
				foreign = append(foreign, kube.NameOf(object))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(foreign) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s. Delete these applications first, or nobody could ever unload them. Nothing was removed", ErrOthers, phrase.Sample(foreign))
}

// unloading returns what blocks. With ForceNodesDown it forgets the states of nodes that
// are down instead.
func (r *remover) unloading(ctx context.Context, left []client.Object, states []bpfmanv1.ClusterBpfApplicationState, nodes nodes, forced map[string]bool) ([]blocker, error) {
	var blockers []blocker
	waits := map[string]bool{} // applications that wait for nodes
	for i := range states {
		state := &states[i]
		owner := kube.ApplicationOf(state)
		named := slices.ContainsFunc(left, func(o client.Object) bool { return o.GetName() == owner })
		if !named && !application.MatchString(owner) || len(state.Finalizers) == 0 {
			continue // foreign, or unloaded
		}
		node := kube.NodeOf(state)
		if why := nodes.down(node); why != "" && r.ForceNodesDown {
			if err := r.forget(ctx, state, node, why); err != nil {
				return nil, err
			}
			forced[node] = true
			continue
		}
		waits[owner] = true
		blockers = append(blockers, r.blocker(state, node, nodes))
	}
	for _, object := range left {
		if !waits[object.GetName()] {
			blockers = append(blockers, blocker{
				Object: kube.NameOf(object), Why: held(object),
				Remedy: "bpfman's operator removes the finalizer when all nodes have unloaded it. Is it running? kubectl get pods -A | grep bpfman-operator. If bpfman was removed before Blixt, install it again until this is done.",
			})
		}
	}
	slices.SortFunc(blockers, func(a, b blocker) int { return strings.Compare(a.Object, b.Object) })
	return blockers, nil
}

// blocker describes a node that has not unloaded an application.
func (r *remover) blocker(state *bpfmanv1.ClusterBpfApplicationState, node string, nodes nodes) blocker {
	b := blocker{Object: kube.NameOf(state), Node: node}
	if why := nodes.down(node); why != "" {
		b.Why = "the node " + why + ", so that nobody there can unload the program"
		b.Remedy = "Bring the node back, or have its program forgotten: blixt uninstall --namespace " + r.Namespace + " --force-nodes-down. Restart the node before it serves again."
		return b
	}
	b.Why = fmt.Sprintf("bpfman has not unloaded it (%s)", state.Status.AppLoadStatus)
	b.Remedy = fmt.Sprintf("The log of bpfman-agent on the node says why: kubectl -n bpfman logs -c bpfman-agent POD, of the bpfman-daemon pod on %s. "+
		"If there is no such pod, start it. If it cannot unload the program, restart the node, and then: kubectl patch clusterbpfapplicationstate %s --type=merge -p '{\"metadata\":{\"finalizers\":null}}'", node, state.Name)
	if state.Status.AppLoadStatus == bpfmanv1.AppUnloadError {
		b.Why = "bpfman could not unload it"
	}
	return b
}

// forget removes bpfman's finalizer from a state, so that the deletion of its
// application no longer waits for the node.
func (r *remover) forget(ctx context.Context, state *bpfmanv1.ClusterBpfApplicationState, node, why string) error {
	stored := state.DeepCopy()
	state.Finalizers = nil
	err := r.client.Patch(ctx, state, client.MergeFromWithOptions(stored, client.MergeFromWithOptimisticLock{}))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("remove finalizer of %s: %w", kube.NameOf(state), err)
	}
	r.say("forgot %s: node %s %s", kube.NameOf(state), node, why)
	return nil
}

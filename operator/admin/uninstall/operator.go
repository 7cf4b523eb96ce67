// SPDX-License-Identifier: Apache-2.0

package uninstall

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// stopOperator scales the operator's Deployment to zero, and waits until its pods are
// gone: a leader that still runs would undo every step.
func (r *remover) stopOperator(ctx context.Context) error {
	d := &appsv1.Deployment{}
	err := r.client.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: v1alpha1.Operator}, d)
	if apierrors.IsNotFound(err) {
		return r.elsewhere(ctx)
	}
	if err != nil {
		return fmt.Errorf("get Deployment %s/%s: %w", r.Namespace, v1alpha1.Operator, err)
	}
	if d.Spec.Replicas == nil || *d.Spec.Replicas != 0 {
		stored := d.DeepCopy()
		d.Spec.Replicas = new(int32)
		if err := r.client.Patch(ctx, d, client.MergeFrom(stored)); err != nil {
			return fmt.Errorf("scale Deployment %s/%s to 0: %w", r.Namespace, v1alpha1.Operator, err)
		}
		r.say("scaled %s to 0", kube.NameOf(d))
	}
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return fmt.Errorf("selector of Deployment %s/%s: %w", r.Namespace, v1alpha1.Operator, err)
	}
	return r.untilPodsGone(ctx, client.MatchingLabelsSelector{Selector: selector})
}

// elsewhere returns an error if the operator is in another namespace, as far as this
// account may list Deployments.
func (r *remover) elsewhere(ctx context.Context) error {
	var all appsv1.DeploymentList
	err := kube.List(ctx, r.client, &all, client.MatchingFields{"metadata.name": v1alpha1.Operator})
	if err != nil && !apierrors.IsForbidden(err) {
		return err
	}
	if len(all.Items) > 0 {
		return fmt.Errorf("there is no Deployment %s/%s, but %s: name its namespace with --namespace %s", r.Namespace, v1alpha1.Operator, kube.NameOf(&all.Items[0]), all.Items[0].Namespace)
	}
	r.say("no Deployment %s/%s: no operator to stop", r.Namespace, v1alpha1.Operator)
	return nil
}

// removeAgents deletes the DaemonSets, and waits for their pods.
func (r *remover) removeAgents(ctx context.Context) error {
	if err := r.removeUntilGone(ctx, r.Namespace, "", &appsv1.DaemonSetList{}); err != nil {
		return err
	}
	return r.untilPodsGone(ctx, ours)
}

// removePods deletes the agents' pods on nodes that were down, without waiting for the
// node: there bpfman's CSI driver fails for ever to unmount a volume that a power cut
// has already unmounted. Containers without a pod end by themselves.
func (r *remover) removePods(ctx context.Context) error {
	if r.DryRun { // which has left those of all nodes
		return nil
	}
	var pods corev1.PodList
	if err := kube.List(ctx, r.client, &pods, client.InNamespace(r.Namespace), ours); err != nil {
		return err
	}
	for i := range pods.Items {
		if err := r.client.Delete(ctx, &pods.Items[i], client.GracePeriodSeconds(0)); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete %s: %w", kube.NameOf(&pods.Items[i]), err)
		}
		r.say("%s deleted: node %s was down", kube.NameOf(&pods.Items[i]), pods.Items[i].Spec.NodeName)
	}
	return nil
}

// untilPodsGone waits until pods are gone, except pods of nodes that are down: the node
// stops them before it can be ready again.
func (r *remover) untilPodsGone(ctx context.Context, which client.ListOption) error {
	skipped := map[string]bool{}
	return r.until(ctx, func(ctx context.Context) ([]blocker, error) {
		nodes, err := r.readNodes(ctx)
		if err != nil {
			return nil, err
		}
		var pods corev1.PodList
		if err := kube.List(ctx, r.client, &pods, client.InNamespace(r.Namespace), which); err != nil {
			return nil, err
		}
		var blockers []blocker
		for i := range pods.Items {
			pod := &pods.Items[i]
			node := pod.Spec.NodeName
			if why := nodes.down(node); node != "" && why != "" {
				if !skipped[pod.Name] {
					skipped[pod.Name] = true
					r.say("not waiting for %s: node %s %s", kube.NameOf(pod), node, why)
				}
				continue
			}
			why := "it has not been deleted yet"
			if pod.DeletionTimestamp != nil {
				why = "it is ending"
			}
			blockers = append(blockers, blocker{
				Object: kube.NameOf(pod), Node: node, Why: why,
				Remedy: fmt.Sprintf("See why: kubectl -n %s describe pod %s", r.Namespace, pod.Name),
			})
		}
		return blockers, nil
	})
}

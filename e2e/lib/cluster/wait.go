// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// await calls f until it returns nil. When the context is done it returns f's last
// error.
func await(ctx context.Context, what string, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w: %w", what, context.Cause(ctx), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// AwaitPods returns when every Deployment and DaemonSet of a namespace, in its present
// generation, has its pods ready.
func (c *Cluster) AwaitPods(ctx context.Context, namespace string) error {
	return await(ctx, "the pods of namespace "+namespace+" are ready", func() error {
		var deployments appsv1.DeploymentList
		if err := c.Client.List(ctx, &deployments, client.InNamespace(namespace)); err != nil {
			return err
		}
		for _, d := range deployments.Items {
			s, want := d.Status, int32(1)
			if d.Spec.Replicas != nil {
				want = *d.Spec.Replicas
			}
			if s.ObservedGeneration != d.Generation || s.UpdatedReplicas != want || s.Replicas != want || s.AvailableReplicas != want {
				return fmt.Errorf("deployment %s has %d of %d, %d of them new", d.Name, s.AvailableReplicas, want, s.UpdatedReplicas)
			}
		}
		var sets appsv1.DaemonSetList
		if err := c.Client.List(ctx, &sets, client.InNamespace(namespace)); err != nil {
			return err
		}
		for _, d := range sets.Items {
			s, want := d.Status, d.Status.DesiredNumberScheduled
			if s.ObservedGeneration != d.Generation || s.UpdatedNumberScheduled != want || s.NumberAvailable != want || want == 0 {
				return fmt.Errorf("daemonset %s has %d of %d, %d of them new", d.Name, s.NumberAvailable, want, s.UpdatedNumberScheduled)
			}
		}
		return nil
	})
}

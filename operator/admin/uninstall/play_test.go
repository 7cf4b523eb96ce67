// SPDX-License-Identifier: Apache-2.0

package uninstall_test

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/control/controller"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

// operator runs the real one. Agents never come.
func (c *cluster) operator() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- controller.Run(ctx, server.Config, controller.ManagerOptions{
			Release: rollout.Release{
				Namespace: namespace, AgentImage: "registry.example.com/blixt@sha256:0", Bytecode: bytecode,
				ServiceAccount: "blixt-agent", CAConfigMap: "blixt-ca", Operator: "blixt-operator.blixt-system.svc:8443",
			},
			FleetAddress: "127.0.0.1:0", TLSSecret: "blixt-tls", MetricsAddress: "0", HealthAddress: "0", LeaderElection: true,
			Registerer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
		})
	}()
	return func() {
		cancel()
		if err := <-done; err != nil {
			c.Errorf("operator: %v", err)
		}
	}
}

// play plays Kubernetes' controllers until the test ends: the operator runs
// while its Deployment says so, and pods go with what owns them.
func (c *cluster) play(stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		running := true
		for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
			var d appsv1.Deployment
			key := client.ObjectKey{Namespace: namespace, Name: "blixt-operator"}
			if err := c.kube.Get(ctx, key, &d); running && err == nil && *d.Spec.Replicas == 0 {
				running = false
				stop()
				pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "blixt-operator-1"}}
				_ = c.kube.Delete(ctx, pod, client.GracePeriodSeconds(0))
			}
			c.collect(ctx)
		}
		if running {
			stop()
		}
	}()
	c.Cleanup(func() { cancel(); <-done })
}

// collect makes an agent's pod for each DaemonSet, and deletes those of others.
func (c *cluster) collect(ctx context.Context) {
	var sets appsv1.DaemonSetList
	var pods corev1.PodList
	if c.kube.List(ctx, &sets, client.InNamespace(namespace)) != nil || c.kube.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabels{"app.kubernetes.io/component": "agent"}) != nil {
		return
	}
	for i := range sets.Items {
		set := &sets.Items[i]
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: set.Name + "-1", Labels: set.Spec.Template.Labels},
			Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "agent", Image: "blixt"}}},
		}
		_ = c.kube.Create(ctx, pod) // it may be there
	}
	for i := range pods.Items {
		if len(sets.Items) == 0 {
			_ = c.kube.Delete(ctx, &pods.Items[i], client.GracePeriodSeconds(0))
		}
	}
}

// hook returns a client that may do what the chart's hook may.
func (c *cluster) hook() client.Client {
	c.Helper()
	c.must(server.GrantOperator(c.Context(), "../../../charts/blixt", namespace))
	config, err := server.AsServiceAccount(c.Context(), namespace, "blixt-operator")
	c.must(err)
	config.QPS = -1
	as, err := client.New(config, client.Options{Scheme: kube.Scheme})
	c.must(err)
	return as
}

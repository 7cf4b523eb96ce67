// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// TestNodesThatComeAndGoCostFewWrites counts how often the Programmed conditions of
// Gateways would be written while 100 of 200 nodes are not always ready.
func TestNodesThatComeAndGoCostFewWrites(t *testing.T) {
	const gateways, others, nodes = 100, 100, 100
	const delay, hour = 45 * time.Second, time.Hour
	start := time.Unix(1_000_000_000, 0)
	// ready says when a node serves.
	for _, c := range []struct {
		name  string
		ready func(node int, at time.Duration) bool
		most  int // writes of each Gateway
	}{
		{"come one by one, ready within 30 s", func(n int, at time.Duration) bool {
			came := time.Duration(n) * 10 * time.Second
			return at < came || at > came+30*time.Second
		}, 0},
		{"flap", func(n int, at time.Duration) bool { return (int(at/(20*time.Second))+n)%2 == 0 }, 0},
		{"come at once, ready after three minutes", func(n int, at time.Duration) bool {
			return at < time.Minute || at > 4*time.Minute+time.Duration(n)*100*time.Millisecond
		}, 4},
		{"fail for good", func(_ int, at time.Duration) bool { return at < time.Minute }, 2},
		{"fail and recover in any order for an hour", func(n int, at time.Duration) bool {
			return rand.New(rand.NewPCG(uint64(n), uint64(at/(5*time.Minute)))).IntN(2) == 0
		}, int(hour / delay)},
	} {
		t.Run(c.name, func(t *testing.T) {
			since := map[int]time.Duration{}
			was := map[int]bool{}
			published := map[types.NamespacedName]rollout.PublishedGateway{}
			stored := map[types.NamespacedName][]metav1.Condition{}
			for i := range gateways {
				published[types.NamespacedName{Namespace: "default", Name: fmt.Sprint(i)}] = rollout.PublishedGateway{Since: lb.Version{Epoch: 1, Sequence: 1}}
			}
			writes := 0
			for at := time.Duration(0); at < hour; at += 10 * time.Second {
				f := rollout.Fleet{Now: start.Add(at), Delay: delay, Epoch: 1}
				for n := range others + nodes {
					ready := n < others || at == 0 || c.ready(n-others, at)
					if ready != was[n] {
						was[n], since[n] = ready, at
					}
					name, status, reason := fmt.Sprintf("n%03d", n), metav1.ConditionTrue, "Serving"
					if !ready {
						status, reason = metav1.ConditionFalse, "NoAgent"
					}
					f.Nodes = append(f.Nodes, rollout.NodeStatus{Node: name, Counted: true, Status: v1alpha1.NodeDataplaneStatus{Conditions: []metav1.Condition{
						{Type: v1alpha1.NodeReady, Status: status, Reason: reason, LastTransitionTime: metav1.NewTime(start.Add(since[n]))},
					}}})
					f.Reports = append(f.Reports, lb.Report{Node: name, Version: lb.Version{Epoch: 1, Sequence: 1}})
				}
				all := rollout.Progress(f, published)
				for name := range all {
					translation := gateway.Translation{Gateways: []gateway.GatewayStatus{{NamespacedName: name}}}
					status := &translation.Gateways[0].Status
					status.Conditions = []metav1.Condition{{Type: string(gwv1.GatewayConditionProgrammed), Status: metav1.ConditionUnknown, Reason: string(gwv1.GatewayReasonPending)}}
					translation.SetProgress(all, stored)
					if before := stored[name]; at > 0 && before[0] != status.Conditions[0] {
						writes++
					}
					stored[name] = status.Conditions
				}
			}
			t.Logf("%d writes for 1,000 Gateways", writes*1000/gateways)
			if writes > c.most*gateways {
				t.Errorf("%d writes, want at most %d", writes, c.most*gateways)
			}
			for name, conditions := range stored {
				if conditions[0].Status != metav1.ConditionTrue {
					t.Fatalf("Gateway %s, which half of the nodes always serve, is %+v", name, conditions[0])
				}
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/controller"
)

// lease is that of the operators.
func (o *operator) lease() *coordinationv1.Lease {
	o.Helper()
	lease := named[coordinationv1.Lease](namespace, "blixt-operator")
	o.must(client.IgnoreNotFound(o.kube.Get(o.Context(), client.ObjectKeyFromObject(lease), lease)))
	return lease
}

// saysReady waits until a replica says something of whether it is ready, and
// returns all of it.
func (o *operator) saysReady(address, want string) (said string) {
	o.Helper()
	o.eventually("readiness", func() error {
		response, err := http.Get("http://" + address + "/readyz?verbose")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		said = fmt.Sprint(response.StatusCode, " ", string(text))
		if err == nil && !strings.Contains(said, want) {
			err = fmt.Errorf("it is %s, want %s", said, want)
		}
		return err
	})
	return said
}

// replicaPod makes a pod of the operator, as its events are about it.
func (o *operator) replicaPod(name string) *corev1.Pod {
	o.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "operator", Image: "blixt"}}}}
	o.create(pod)
	return pod
}

// TestReady has a replica wait for a leader that is gone, and another one bring a
// BlixtConfig that the API server does not take: an upgrade stops there, and what
// was applied before stays, whoever leads.
func TestReady(t *testing.T) {
	o := prepare(t)
	o.must(grant())
	lease := o.lease()
	lease.Spec = coordinationv1.LeaseSpec{
		HolderIdentity: new("gone"), LeaseDurationSeconds: new(int32(4)), LeaseTransitions: new(int32(1)),
		AcquireTime: new(metav1.NewMicroTime(time.Now().Add(-time.Hour))), RenewTime: new(metav1.NewMicroTime(time.Now().Add(-time.Hour))),
	}
	if lease.ResourceVersion == "" {
		o.must(o.kube.Create(t.Context(), lease))
	} else {
		o.must(o.kube.Update(t.Context(), lease))
	}
	t.Cleanup(func() {
		o.must(o.kube.Delete(context.Background(), named[coordinationv1.Lease](namespace, "blixt-operator")))
	})
	first, second := "127.0.0.1:"+o.freePort(), "127.0.0.2:"+o.freePort()
	stop := o.replica("127.0.0.1:"+o.freePort(), func(m *controller.ManagerOptions) { m.HealthAddress = first })
	o.saysReady(first, "[-]leader failed")
	o.saysReady(first, "200 ")
	config := named[v1alpha1.BlixtConfig]("", "blixt")
	o.eventually("config", func() error { return o.kube.Get(t.Context(), client.ObjectKeyFromObject(config), config) })
	applied := config.Generation

	pod := o.replicaPod("operator-2")
	o.replica("127.0.0.2:"+o.freePort(), func(m *controller.ManagerOptions) {
		m.HealthAddress, m.Pod = second, pod.Name
		m.ConfigFile = o.configFile("{addresses: {source: Pool, pool: [198.51.100.300]}}")
	})
	if said := o.saysReady(second, "[-]config failed"); !strings.Contains(said, "[+]leader ok") {
		t.Errorf("with a leader it says %s", said)
	}
	o.eventually("event", func() error {
		var events corev1.EventList
		o.must(o.kube.List(t.Context(), &events, client.InNamespace(namespace)))
		for _, e := range events.Items {
			if e.InvolvedObject.UID == pod.UID && e.Type == corev1.EventTypeWarning && e.Reason == "ConfigRefused" && strings.Contains(e.Message, "spec.addresses.pool[0]") {
				return nil
			}
		}
		return fmt.Errorf("none of pod %s among %+v", pod.Name, events.Items)
	})
	before := *o.lease().Spec.HolderIdentity
	stop()
	o.eventually("another leader", func() error {
		if now := o.lease().Spec.HolderIdentity; now == nil || *now == "" || *now == before {
			return fmt.Errorf("it is %v", now)
		}
		return nil
	})
	o.saysReady(second, "[-]config failed")
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(config), config))
	if config.Generation != applied || config.Spec.Addresses.Pool[0] != "198.51.100.0/29" {
		t.Errorf("the BlixtConfig has become %+v", config.Spec.Addresses)
	}
}

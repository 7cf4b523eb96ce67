// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
)

// After a restart, forged statuses do not say who has an address: an older Gateway of
// another namespace gets none by them.
func TestForgedStatusTakesNoAddress(t *testing.T) {
	o := start(t)
	o.must(client.IgnoreAlreadyExists(o.kube.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "aaa"}})))
	old, web := named[gwv1.Gateway]("aaa", "old"), named[gwv1.Gateway]("default", "web")
	old.Spec.GatewayClassName = "blixt"
	old.Spec.Listeners = []gwv1.Listener{{Name: "web", Port: 80, Protocol: gwv1.TCPProtocolType}}
	o.create(old)
	o.apply(kube.WebGateway)
	o.config("{source: Pool, pool: [192.0.2.40-192.0.2.49]}")
	o.load(firstCode, "n1", "n2")
	address := func(gw *gwv1.Gateway, want string) {
		t.Helper()
		o.eventually("address of "+gw.Name, func() error {
			if err := o.kube.Get(t.Context(), client.ObjectKeyFromObject(gw), gw); err != nil {
				return err
			}
			if a := gw.Status.Addresses; len(a) != 1 || a[0].Value != want {
				return fmt.Errorf("addresses are %+v, want %s", a, want)
			}
			return nil
		})
	}
	o.condition(web, "Programmed", "True Programmed", "")
	o.condition(old, "Programmed", "True Programmed", "")
	its, others := web.Status.Addresses[0].Value, old.Status.Addresses[0].Value
	o.eventually("incumbents are stored", func() error {
		stored := named[corev1.ConfigMap](namespace, v1alpha1.IncumbentsConfigMap)
		if err := o.kube.Get(t.Context(), client.ObjectKeyFromObject(stored), stored); err != nil {
			return err
		}
		r, err := gzip.NewReader(bytes.NewReader(stored.BinaryData["incumbents.json.gz"]))
		if err != nil {
			return err
		}
		text, err := io.ReadAll(r)
		if err == nil && (!strings.Contains(string(text), its) || !strings.Contains(string(text), others)) {
			err = fmt.Errorf("they are %s", text)
		}
		return err
	})
	o.calm()
	o.stop()

	edit(o, old, func(g *gwv1.Gateway) { g.Spec.Addresses = []gwv1.GatewaySpecAddress{{Value: its}} })
	old.Status.Addresses[0].Value = its
	o.must(o.kube.Status().Update(t.Context(), old))
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(web), web))
	web.Status.Addresses[0].Value = others
	o.must(o.kube.Status().Update(t.Context(), web))
	o.agents.change(func(a *agents) { a.snapshot = fleet.Snapshot{} })
	o.run()
	o.condition(old, "Programmed", "False AddressNotUsable", "Gateway default/web has it already")
	address(web, its)
	o.published("the frontend at its address", func(s fleet.Snapshot) bool {
		for _, f := range s.Frontends {
			if f.Addr.String() == its && f.Gateway != "default/web" {
				t.Errorf("Gateway %s has %s", f.Gateway, f.Key)
			}
		}
		return len(s.Frontends) > 0
	})
}

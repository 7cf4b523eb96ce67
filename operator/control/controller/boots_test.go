// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"net/netip"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Boot numbers are in the NodeDataplanes, from which the next leader knows them before it
// publishes. One that is deleted is written again.
func TestBootNumbersAreStored(t *testing.T) {
	o := start(t)
	o.serve()
	boot := lb.Boot{ID: "6d3e1f2a-0000-4000-8000-000000000001", Number: 65535}
	o.agents.change(func(a *agents) {
		for i := range a.reports {
			if r := &a.reports[i]; r.Node == "n1" {
				r.Boot, r.UndoesNot, r.IgnoredAddresses = boot, lb.ReasonNotAcked, []netip.Addr{netip.MustParseAddr("172.17.0.1")}
				r.Announcing = &lb.Announcing{
					Backends: 3, Peers: 1, Failing: 1, Unannounced: []lb.Unannounced{{Reason: lb.ReasonNoAnswer, Backends: 2}},
					Pairs: []lb.Pair{{Node: "n2", Unanswered: 3, Undone: 1 << 40}},
				}
			}
		}
	})
	ndp := named[v1alpha1.NodeDataplane]("", "n1")
	stored := func() {
		t.Helper()
		o.eventually("stored boot number", func() error {
			if err := o.kube.Get(t.Context(), client.ObjectKeyFromObject(ndp), ndp); err != nil {
				return err
			}
			var told map[string]lb.Boot
			o.agents.change(func(a *agents) { told = a.boots })
			c := ndp.Status.ClientAddress
			if b := ndp.Status.Boot; b == nil || b.ID != boot.ID || b.Number != 65535 || told["n1"] != boot || len(told) != 1 || c == nil ||
				c.Reason != lb.ReasonNotAcked || c.Unannounced[0].Backends != 2 || c.Pairs[0].Unanswered != "TCP/IPv4, TCP/IPv4 alone" || c.IgnoredAddresses[0] != "172.17.0.1" {
				return fmt.Errorf("boot %+v, client address %+v, agents are told %+v", b, c, told)
			}
			return nil
		})
	}
	stored()
	o.must(o.kube.Delete(t.Context(), ndp))
	stored()
	o.stop()
	o.agents = newAgents(2)
	o.run()
	o.eventually("publication", func() (err error) {
		o.agents.change(func(a *agents) {
			if a.published == 0 || a.firstBoots["n1"] != boot {
				err = fmt.Errorf("%d publications, boots before the first %+v", a.published, a.firstBoots)
			}
		})
		return err
	})
}

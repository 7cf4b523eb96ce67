// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

func TestClientAddress(t *testing.T) {
	at := instanceKey{"blue", "n1"}
	judged := func(r *lb.Report, stored *v1alpha1.ClientAddressStatus) *v1alpha1.ClientAddressStatus {
		j := &judge{observed: &observed{reports: map[instanceKey]*lb.Report{}}, instances: []planned{{instance: instance{at: at}}}}
		if r != nil {
			j.reports[at] = r
		}
		return j.clientAddress(stored)
	}
	before := &v1alpha1.ClientAddressStatus{Announced: true}
	if judged(nil, before) != before {
		t.Error("what was stored is lost while the agent has not reported")
	}
	if c := judged(&lb.Report{}, before); c != nil {
		t.Errorf("an agent of an earlier version: %+v", c)
	}

	c := judged(&lb.Report{Announcing: &lb.Announcing{Backends: 7, Peers: 2}}, nil)
	if !c.Announced || c.Message != "All 7 backends on other nodes that are to see their clients do." {
		t.Errorf("%+v", c)
	}
	r := &lb.Report{
		UndoesNot: lb.ReasonNotAcked, IgnoredAddresses: []netip.Addr{netip.MustParseAddr("172.17.0.1")},
		Announcing: &lb.Announcing{
			Backends: 7, Peers: 3, Failing: 1,
			Unannounced: []lb.Unannounced{{Reason: lb.ReasonNoAnswer, Backends: 2}, {Reason: lb.ReasonEarlier, Backends: 1}, {Reason: lb.ReasonEarlier, Backends: 1}},
			Pairs: []lb.Pair{
				{Node: "n2", Unanswered: lb.FormOf(true, false, false), Plain: 1 << 63, Unannounced: 2},
				{Node: "n3", Answered: 255}, {Node: "n3"},
			},
		},
	}
	c = judged(r, nil)
	if c.Announced || c.Reason != lb.ReasonNotAcked || len(c.Unannounced) != 2 || len(c.Pairs) != 2 || c.Pairs[0].Plain < 0 || c.IgnoredAddresses[0] != "172.17.0.1" {
		t.Errorf("%+v", c)
	}
	for _, want := range []string{
		"Backends on this node see the addresses of other nodes: ", "2 of 7 backends on other nodes see this node's address: something between the nodes drops",
		"1 of 7 ", "do not believe that this node has 172.17.0.1", "Node n2, for one, does not answer TCP/IPv4 alone.",
	} {
		if !strings.Contains(c.Message, want) {
			t.Errorf("%q does not say %q", c.Message, want)
		}
	}
}

// Each reason has words.
func TestReasonsInWords(t *testing.T) {
	for _, reason := range []string{
		lb.ReasonNoKey, lb.ReasonNotProbed, lb.ReasonNoAnswer, lb.ReasonNoPeer,
		lb.ReasonEarlier, lb.ReasonNotAcked, lb.ReasonNoHeartbeat, lb.ReasonAway, lb.ReasonNoAddress,
	} {
		if inWords[reason] == "" {
			t.Errorf("%s has no words", reason)
		}
	}
}

// Counts alone cause no write; what is in force does.
func TestClientAddressIsWritten(t *testing.T) {
	now := time.Unix(1_000_000_000, 0)
	status := func(c v1alpha1.ClientAddressStatus, boot int32) v1alpha1.NodeDataplaneStatus {
		return v1alpha1.NodeDataplaneStatus{LastContact: timestamp(now), ClientAddress: &c, Boot: &v1alpha1.BootStatus{ID: "a", Number: boot}}
	}
	why := []v1alpha1.UnannouncedStatus{{Reason: lb.ReasonNoAnswer, Backends: 1}}
	before := status(v1alpha1.ClientAddressStatus{Announced: true, Backends: 1, Unannounced: why}, 1)
	more := []v1alpha1.UnannouncedStatus{{Reason: lb.ReasonNoAnswer, Backends: 9}}
	if got := keepStored(now, &before, status(v1alpha1.ClientAddressStatus{Announced: true, Backends: 9, Message: "x", Pairs: []v1alpha1.PairStatus{{Node: "n2"}}, Unannounced: more}, 1)); got.ClientAddress.Backends != 1 {
		t.Error("counts are written at once")
	}
	for name, after := range map[string]v1alpha1.NodeDataplaneStatus{
		"not in force":    status(v1alpha1.ClientAddressStatus{Unannounced: why}, 1),
		"no reason":       status(v1alpha1.ClientAddressStatus{Announced: true}, 1),
		"another boot":    status(v1alpha1.ClientAddressStatus{Announced: true, Unannounced: why}, 2),
		"an address more": status(v1alpha1.ClientAddressStatus{Announced: true, Unannounced: why, IgnoredAddresses: []string{"192.0.2.1"}}, 1),
	} {
		if got := keepStored(now, &before, after); got.ClientAddress.Backends != 0 {
			t.Errorf("%s is not written at once", name)
		}
	}
}

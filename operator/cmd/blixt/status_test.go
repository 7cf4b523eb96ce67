// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

func TestStatusShowsWhatTheKernelHas(t *testing.T) {
	for want, all := range map[string][]loader.LinkInfo{
		"nothing": nil,
		"eth0 (egress link 5, ingress link 6), lo (egress link 7 detached, ingress link 8)": {
			{ID: 5, Interface: "eth0", Direction: "egress"}, {ID: 6, Interface: "eth0", Direction: "ingress"},
			{ID: 7, Interface: "lo", Direction: "egress", Detached: true}, {ID: 8, Interface: "lo", Direction: "ingress"},
		},
		"eth0 (ingress link 6 behind XDP program 3 (filter) and program 4 (without a name), nothing in the other direction)": {
			{ID: 6, Interface: "eth0", Direction: "ingress", Before: []loader.Program{{ID: 3, Name: "filter", XDP: true}, {ID: 4}}},
		},
		"interface 9 that is gone (egress link 5 detached, ingress link 6 detached)": {
			{ID: 5, Index: 9, Direction: "egress", Detached: true}, {ID: 6, Index: 9, Direction: "ingress", Detached: true},
		},
	} {
		if got := links(all); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// TestDefaultCapacity checks that the operator, which knows no map, assumes the
// sizes of the program's.
func TestDefaultCapacity(t *testing.T) {
	want := lb.Capacity{Addresses: int(bpf.BlixtLimitMAX_ADDRESSES), Frontends: int(bpf.BlixtLimitMAX_FRONTENDS)}
	if lb.DefaultCapacity != want {
		t.Errorf("lb.DefaultCapacity is %+v, want %+v", lb.DefaultCapacity, want)
	}
}

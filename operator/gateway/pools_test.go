// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// What several Gateways share is in use once, and a pool counts once that several classes
// have. A pool that nobody's class names counts nowhere.
func TestPoolUse(t *testing.T) {
	c := readCase(t, "testdata/shared-addresses.in.yaml")
	again := c.Objects.GatewayClasses[0].DeepCopy()
	again.Name = "again"
	c.Objects.GatewayClasses = append(c.Objects.GatewayClasses, *again)
	unused := c.Objects.Configs[0].DeepCopy()
	unused.Name = "unused"
	c.Objects.Configs = append(c.Objects.Configs, *unused)
	c.Objects.Configs[0].Spec.Addresses.Pool = append(c.Objects.Configs[0].Spec.Addresses.Pool, "2001:db8::/126")
	translation := c.translate()
	uses := 0
	for _, g := range translation.Gateways {
		uses += len(g.Status.Addresses)
	}
	if uses < 7 {
		t.Fatalf("%d addresses of Gateways: none is shared", uses)
	}
	if d := cmp.Diff([]gateway.PoolUse{{Config: "config", Size: 4, InUse: 4}, {Config: "config", V6: true, Size: 4, InUse: 1}}, translation.Pools); d != "" {
		t.Error(d)
	}
}

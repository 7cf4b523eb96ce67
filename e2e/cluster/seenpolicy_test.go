// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

// testOneClient has a NetworkPolicy allow one client: that one reaches servers on every
// node, whichever node it comes in by, and another reaches none.
func testOneClient(t *testing.T, vips []string) {
	if err := c.KeepPolicies(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.IgnorePolicies(context.Background()); err != nil {
			t.Error(err)
		}
	})
	c.Outside.IP("addr replace "+other.ipv4+"/24 dev eth0", "addr replace "+other.ipv6+"/64 dev eth0 nodad preferred_lft 0") // nobody else's source
	t.Cleanup(func() {
		c.Outside.IP("addr del "+other.ipv4+"/24 dev eth0", "addr del "+other.ipv6+"/64 dev eth0")
	})
	if err := c.Outside.Err(); err != nil {
		t.Fatal(err)
	}
	for _, by := range c.Nodes {
		routeAddresses(t, vips, by)
		for _, vip := range vips {
			for _, network := range []string{"tcp", "udp"} {
				if got, err := (asker{dial: other}).ask(t, network, net.JoinHostPort(vip, "80"), 20); err != nil {
					t.Errorf("%s to %s, before there is a policy: %v, %v", network, vip, got, err)
				}
			}
		}
	}
	applyUntilEnd(t, "oneclient.yaml", "", "")
	for _, by := range c.Nodes {
		routeAddresses(t, vips, by)
		for _, vip := range vips {
			for _, network := range []string{"tcp", "udp"} {
				addr := net.JoinHostPort(vip, "80")
				const n = 6
				kube.Wait(t, patience, fmt.Sprintf("answers to another client, of %s to %s by %s", network, vip, by.Name), 0, func() (int, error) {
					answered := 0
					for range n {
						if _, err := ask(other, network, "", addr); err == nil {
							answered++
						}
					}
					return answered, nil
				})
			}
		}
	}
	testSeen(t, vips)
}

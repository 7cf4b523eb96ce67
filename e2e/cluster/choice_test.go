// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"fmt"
	"net"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// testChoice has the owner of Gateway server change clientAddress: new connections follow,
// and the Gateway's condition says what is in force.
func testChoice(t *testing.T, vips []string) {
	awaitPreserved(t, "True Preserved")
	for _, c := range []struct {
		choice, want string
		clients      bool // that servers on all nodes see
	}{{"Node", "False NodeChosen", false}, {"Preserve", "True Preserved", true}} {
		kubectl(t, "patch", "blixtgatewayconfig", "server", "--type=merge", fmt.Sprintf(`--patch={"spec":{"clientAddress":%q}}`, c.choice))
		awaitPreserved(t, c.want)
		for _, vip := range vips {
			for _, network := range []string{"tcp", "udp"} {
				kube.Wait(t, patience, fmt.Sprintf("servers at %s see clients by %s alone, with clientAddress %s", vip, network, c.choice), c.clients, func() (bool, error) {
					clients := true
					for range 20 { // by both nodes' servers
						who, err := ask(usual, network, "", net.JoinHostPort(vip, "80"))
						if err != nil {
							return false, err
						}
						clients = clients && who.sees == usual.ip(vip)
					}
					return clients, nil
				})
			}
		}
	}
}

// awaitPreserved waits until Gateway server says whether clients' addresses are preserved.
func awaitPreserved(t *testing.T, want string) {
	t.Helper()
	kube.Wait(t, patience, "condition "+gateway.GatewayConditionClientAddressPreserved, want, func() (string, error) {
		gw := &gwv1.Gateway{}
		if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "server"}, gw); err != nil {
			return "", err
		}
		p := meta.FindStatusCondition(gw.Status.Conditions, gateway.GatewayConditionClientAddressPreserved)
		if p == nil || p.ObservedGeneration != gw.Generation {
			return "nothing of this generation", nil
		}
		if got := string(p.Status) + " " + p.Reason; got == want {
			return got, nil
		}
		return fmt.Sprintf("%s %s: %s", p.Status, p.Reason, p.Message), nil
	})
}

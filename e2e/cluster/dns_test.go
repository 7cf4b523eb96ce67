// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

// testDNS asks the cluster's name server from outside by UDP and TCP at one port, also
// from one client port.
func testDNS(t *testing.T, application string) {
	const n = 10
	applyUntilEnd(t, "names.yaml", "", "")
	var service corev1.Service
	if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "server"}, &service); err != nil {
		t.Fatal(err)
	}
	ip := service.Spec.ClusterIP
	vip := routeVIPs(t, "names", c.Nodes[0])[0]
	kube.Wait(t, patience, "the Service's address", ip, func() (string, error) { return dig(vip, "+notcp") })
	want := countFlows(t, application)
	for range n {
		port++
		for network, option := range map[string]string{"udp": "+notcp", "tcp": "+tcp"} {
			got, err := dig(vip, option, fmt.Sprintf("-b%s#%d", cluster.Outside4, port))
			if err != nil || got != ip {
				t.Errorf("the Service's address by %s: %q, %v, want %s", network, got, err, ip)
			}
			want["node-1 "+net.JoinHostPort(vip, "53")+"/"+network]++
		}
	}
	if diff := cmp.Diff(want, countFlows(t, application)); diff != "" {
		t.Errorf("new flows that the programs have counted (-want +got):\n%s", diff)
	}
}

// dig asks a name server from outside for the addresses of Service server.
func dig(server string, options ...string) (string, error) {
	out, err := c.Outside.Run(patience, "dig", append([]string{"@" + server, "+short", "+tries=1", "server.default.svc.cluster.local."}, options...)...)
	return strings.TrimSpace(out), err
}

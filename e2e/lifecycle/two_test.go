// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestTwoLoadBalancersOnOneHost: the second one does not start with ports of the first,
// and neither takes answers to the other.
func TestTwoLoadBalancersOnOneHost(t *testing.T) {
	w := labtest.New(t, "two", 2, 0)
	w.StartBlixt(one(w.Backends[0]), "eth0", "eth1")
	second, err := w.Standard.Blixt(w.Balancer, labtest.Binary, nil, "eth0", "eth1")
	w.Check(err)
	second.Name += "-second"
	second.Dir = filepath.Join(w.Dir(), "second")
	w.Check(os.MkdirAll(second.Dir, 0o755))
	c := labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, w.Backends[1])})
	c.Gateways[0].Addresses = []string{"198.51.100.20", "2001:db8:100::20"}
	w.Check(c.Write(second.Dir))

	if err := second.Start(); err == nil {
		t.Error("the second load balancer starts with ports of the first")
	}
	if said := second.Log(); !strings.Contains(said, "another load balancer on this host") || !strings.Contains(said, "--snat-ports, for example ") {
		t.Errorf("it said:\n%s", said)
	}
	second.Args = append(second.Args, "--snat-ports", "1024-10999")
	w.Check(second.Start())
	t.Cleanup(func() { w.Check(second.Stop()) })

	// The same server on the same ports of the client, by both.
	c.Services[0].Endpoints = lab.Endpoints(8080, w.Backends[0])
	w.Check(second.Apply(c))
	for i := range 20 {
		for _, network := range []string{"udp", "tcp"} {
			for _, vip := range []string{lab.VIP4, "198.51.100.20", lab.VIP6, "2001:db8:100::20"} {
				conn, err := w.Client.Dial(network, fmt.Sprintf(":%d", 32800+i), labtest.At(vip, 80), labtest.Patience)
				w.Check(err)
				if got := w.Ask(conn, "who").Server; got != "backend-1" {
					t.Errorf("%s at %s is answered by %s", network, vip, got)
				}
				_ = conn.Close()
			}
		}
	}
}

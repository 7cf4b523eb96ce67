// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestAnswersThatLeaveByASecondInterface routes what a pod sends by another interface
// than the one that clients' packets come in by, as cloud networks do for pods whose
// addresses are those of a second network card.
func TestAnswersThatLeaveByASecondInterface(t *testing.T) {
	for _, c := range []struct {
		name       string
		interfaces []string
		sees       string // the address that the pod sees, by IPv4; "": the client gets no answer
	}{
		{"without the program there", []string{"lo", "eth0", "eth1"}, ""},
		{"with the program there", []string{"lo", "eth0", "eth1", "eth2"}, lab.Client4},
		{"with the program where they come in", []string{"lo", "eth0", "eth1", "pods"}, lab.Pods4},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := labtest.New(t, "second", 1, 1)
			w.Link(w.Client, "eth1", w.Balancer, "eth2")
			w.Client.Addr("eth1", "10.67.0.2/24")
			w.Client.Sysctl("net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth1.rp_filter=0")
			w.Balancer.Addr("eth2", "10.67.0.1/24")
			w.Balancer.IP("rule add from 10.88.0.11 lookup 7", "route add default via 10.67.0.2 dev eth2 table 7")
			w.Check(w.Err())
			w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{toPods: lab.On("balancer", lab.Endpoints(8080, w.Pods...))}), c.interfaces...)
			w.Check(ping(w.Pods[0], lab.Pods4))  // so that the program has seen packets of the pods
			w.Check(ping(w.Client, "10.67.0.1")) // and of the second interface
			const told = "routes the answers of"
			for _, network := range []string{"tcp", "udp"} {
				s := w.Count(func() {
					client, err := ask(w.Client, network, labtest.VIP(4, toPods))
					if client != c.sees || (err == nil) != (c.sees != "") {
						t.Errorf("%s: the pod sees %q (%v), want %q", network, client, err, c.sees)
					}
				})
				if n := s.Rise("flow_answered_elsewhere"); (n > 0) != (c.sees == "") {
					t.Errorf("%s: flow_answered_elsewhere rose by %d", network, n)
				}
			}
			status, err := w.Blixt.Run("status")
			w.Check(err)
			if strings.Contains(status, told) != (c.sees == "") {
				t.Errorf("blixt status says\n%s\nwhich has %q, or should", status, told)
			}
		})
	}
}

// ask asks one question. It returns the address that the server sees.
func ask(from *lab.Node, network, address string) (client string, err error) {
	c, err := from.Dial(network, "", address, 3*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	a, err := lab.Ask(c, "who asks?", 3*time.Second)
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", address, err)
	}
	client, _, err = net.SplitHostPort(a.Client)
	return client, err
}

// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestPortsThatTheHostUsedBefore has the host masquerade connections to a backend, as
// kube-proxy does, before the program is there to see them. Their ports are ports of
// Blixt, so conntrack takes answers that are for flows. A flow with such a port gets
// another one when its client repeats its SYN, which Linux does after 1, 3 and 7 seconds.
func TestPortsThatTheHostUsedBefore(t *testing.T) {
	const (
		before = 1000 // of 19,000 ports
		flows  = 60
	)
	w := labtest.New(t, "before", 1, 2)
	// Answers of pods to the host have to pass conntrack before they come to the program.
	firewall(w, true)
	path := w.Dir() + "/proxy.nft"
	w.Check(os.WriteFile(path, fmt.Appendf(nil, `table ip proxy {
	chain before { type nat hook prerouting priority -100; ip daddr 10.99.0.1 tcp dport 80 dnat to %[1]s:8080;
	}
	chain after { type nat hook postrouting priority 100; ip daddr %[1]s tcp dport 8080 masquerade to :11000-29999 random;
	}
}
`, w.Pods[0].IPv4), 0o600))
	_, err := w.Balancer.Run(labtest.Patience, "nft", "-f", path)
	w.Check(err)
	for range before {
		c, err := w.Pods[1].Dial("tcp", "", "10.99.0.1:80", labtest.Patience)
		w.Check(err)
		defer c.Close()
	}
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{toPods: lab.On("balancer", lab.Endpoints(8080, w.Pods[0]))}), "lo", "eth0", "eth1", "pods")
	repeated := 0
	for range flows {
		begin := time.Now()
		c, err := w.Pods[0].Dial("tcp", "", labtest.VIP(4, toPods), 8*time.Second)
		if err != nil {
			t.Fatalf("after %v: %v", time.Since(begin), err)
		}
		if time.Since(begin) > 500*time.Millisecond {
			repeated++
		}
		w.Ask(c, "question")
		w.Check(c.Close())
	}
	t.Logf("%d of %d clients had to repeat a SYN", repeated, flows)
}

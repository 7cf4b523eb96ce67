// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestClientsAreChallenged connects where clients have to prove that their addresses are
// not forged: a kernel that knows nothing of it does so by itself, and soon enough.
func TestClientsAreChallenged(t *testing.T) {
	w := labtest.New(t, "challenged", 1, 1)
	config := labtest.ConfigOf(map[int][]lab.Endpoint{
		90: lab.Endpoints(8080, w.Backends...), 91: lab.On("balancer", lab.Endpoints(8080, w.Pods...)), 92: lab.Endpoints(8080, w.Backends...),
	})
	config.Policies = []lab.Policy{{Name: "challenge", Targets: append(routesOf(90), routesOf(91)...), Spec: "overload: {synChallenge: {mode: Always}}"}}
	w.StartBlixt(config)
	connect := func(family, port int) time.Duration {
		began := time.Now()
		c, err := w.Client.Dial("tcp", "", labtest.VIP(family, port), labtest.Patience)
		w.Check(err)
		took := time.Since(began)
		defer c.Close()
		w.Ask(c, "hello")
		return took
	}
	for _, family := range []int{4, 6} {
		before := w.Status()
		usual := connect(family, 92)
		for i, port := range []int{90, 91} { // who has proven itself at one is known at the other
			first, second := connect(family, port), connect(family, port)
			t.Logf("IPv%d, port %d: connected in %v, and in %v again; without a challenge in %v", family, port, first, second, usual)
			if i == 0 && first > 500*time.Millisecond {
				t.Errorf("IPv%d: %v until a client was connected that had to prove itself: its SYN was not repeated at once", family, first)
			}
		}
		after := w.Status()
		if unproven, proven := labtest.Rise(before, after, "reject_unproven"), labtest.Rise(before, after, "client_proven"); unproven != 1 || proven != 1 {
			t.Errorf("IPv%d: %d challenges and %d proofs, want one of each", family, unproven, proven)
		}
		if got := hears(w, w.Client, "udp", "", labtest.VIP(family, 90)); got != answered {
			t.Errorf("IPv%d: UDP: %s, want %s", family, got, answered)
		}
	}
	w.CheckChecksums()
}

// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestConnectionsEndAtTheirAge keeps connections busy for as long as they may last: they are reset
// then, not before, and a UDP client goes on with a new flow.
func TestConnectionsEndAtTheirAge(t *testing.T) {
	w := labtest.New(t, "age", 2, 0)
	config := labtest.ConfigOf(map[int][]lab.Endpoint{90: lab.Endpoints(8080, w.Backends...), 91: lab.Endpoints(8080, w.Backends...)})
	config.Policies = []lab.Policy{{Name: "age", Targets: routesOf(90), Spec: "maxAge: 1m"}}
	w.StartBlixt(config)
	others := w.StartClients(10, "tcp", labtest.VIP(4, 91), labtest.VIP(6, 91))
	udp := w.StartClients(10, "udp", labtest.VIP(4, 90), labtest.VIP(6, 90))
	before := w.Status()
	began := time.Now()
	clients := w.StartClients(20, "tcp", labtest.VIP(4, 90), labtest.VIP(6, 90))
	time.Sleep(50 * time.Second)
	clients.CheckUnharmed("before their age")
	ended := map[time.Duration]int{}
	w.Check(lab.Eventually(40*time.Second, func() error {
		for _, errs := range clients.Lost() {
			for _, err := range errs {
				if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
					t.Errorf("a connection ends with %v, want a reset", err)
				}
				ended[time.Since(began).Round(5*time.Second)]++
			}
		}
		if len(clients.Alive) > 0 {
			return errors.New("connections are older than a minute")
		}
		return nil
	}))
	t.Logf("connections have ended after %v; %v", ended, labtest.Rise(before, w.Status(), "flow_new"))
	others.CheckUnharmed("others")
	// UDP flows are looked through after TCP connections, so the last may be of age a moment later.
	w.Check(lab.Eventually(20*time.Second, func() error {
		if n := labtest.Rise(before, w.Status(), "flow_new"); n < 30 {
			return fmt.Errorf("%d new flows, want 20 connections and a second flow of each of 10 UDP clients", n)
		}
		return nil
	}))
	udp.AwaitRound()
	if lost := udp.Lost(); len(lost) > 0 {
		t.Errorf("UDP clients: %v", lost)
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

// testSources checks that no machine has sent a packet with a source address of another
// since the switch had dropped so many, and that the switch would notice one.
func testSources(t *testing.T, before int) {
	if got := droppedSources(t); got != before {
		t.Errorf("packets that the switch has dropped because the source was not the sender's: %d, want %d", got, before)
		before = got
	}
	const foreign = "192.0.2.1"
	m := c.Nodes[0]
	m.IP("addr replace " + foreign + "/32 dev lo")
	t.Cleanup(func() {
		m.IP("addr del " + foreign + "/32 dev lo")
		if err := m.Err(); err != nil {
			t.Error(err)
		}
	})
	conn, err := m.Dial("udp", foreign+":0", cluster.Outside4+":9", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	kube.Wait(t, patience, "packets that the switch has dropped", before+1, func() (int, error) { return c.DroppedSources() })
}

// droppedSources returns how many packets the switch has dropped for their source, 0
// where it checks none.
func droppedSources(t *testing.T) int {
	t.Helper()
	if !c.ChecksSources() {
		return 0
	}
	n, err := c.DroppedSources()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

func get(n *node, path string) (int, string) {
	r := httptest.NewRecorder()
	n.Handler().ServeHTTP(r, httptest.NewRequest(http.MethodGet, path, nil))
	return r.Code, r.Body.String()
}

// An agent is ready once its maps hold what the operator said, and its metrics
// tell what they hold.
func TestHealth(t *testing.T) {
	o := newOperator(t, "", nil)
	n := newNode(t, o, "n1", nil)
	eventually(t, func() string {
		if code, text := get(n, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "has not said yet") {
			return text
		}
		return ""
	})
	if code, text := get(n, "/healthz"); code != http.StatusOK {
		t.Error(text)
	}
	n.fake.CounterTable[3] = 7
	o.serves(t, "n1", o.Publish(web(3)), web(3))
	if code, text := get(n, "/readyz"); code != http.StatusOK {
		t.Error(text)
	}
	_, text := get(n, "/metrics")
	for _, want := range []string{"blixt_ready 1", "blixt_operator_connected 1", "blixt_frontends 1", "blixt_backends 3", "blixt_state_epoch 1",
		"blixt_state_sequence 1", "blixt_state_failing 0", `blixt_table_used{table="backends"} 3`, `blixt_table_size{table="backends"} 511`, "} 7\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics have no %q:\n%s", want, text)
		}
	}
	o.Publish(web(600))
	eventually(t, func() string {
		if _, text := get(n, "/metrics"); !strings.Contains(text, "blixt_state_failing 1") {
			return text
		}
		return ""
	})
	if code, text := get(n, "/readyz"); code != http.StatusOK { // it goes on serving
		t.Error(text)
	}
}

func TestHeartbeat(t *testing.T) {
	now := time.Unix(1e9, 0)
	links := func(in, out, tunnel uint64) []writer.LinkCount {
		return []writer.LinkCount{
			{Link: writer.Link{Index: 2, Direction: "ingress"}, Packets: in},
			{Link: writer.Link{Index: 2, Direction: "egress"}, Packets: out},
			{Link: writer.Link{Index: 9, Direction: "ingress"}, Packets: tunnel},
		}
	}
	var h heartbeat
	for _, step := range []struct {
		after           time.Duration
		in, out, tunnel uint64
		age             time.Duration
		lost            bool
	}{
		{0, 10, 10, 5, 0, false},
		{40 * time.Second, 11, 11, 5, 0, false},
		{40 * time.Second, 12, 12, 5, 0, false}, // the tunnel is idle
		{40 * time.Second, 13, 12, 5, 0, false},
		{40 * time.Second, 14, 12, 5, 0, true}, // nothing leaves: a link is missing
		{10 * time.Second, 15, 13, 5, 0, false},
		{61 * time.Second, 15, 13, 5, 61 * time.Second, true},
		{10 * time.Second, 0, 1, 0, 0, false}, // loaded again
	} {
		now = now.Add(step.after)
		h.sample(now, links(step.in, step.out, step.tunnel))
		if age, lost := h.age(now), h.lost(now); age != step.age || lost != step.lost {
			t.Errorf("%+v: age %v, lost %v", step, age, lost)
		}
	}
}

// Where packets always came soon, silence says so soon; where they never did, or
// nobody can know yet, it does not.
func TestHeartbeatLearns(t *testing.T) {
	for name, c := range map[string]struct {
		known, every, within time.Duration
	}{
		"busy":  {time.Minute, pulse, 6 * time.Second},
		"quiet": {time.Minute, 4 * pulse, 20 * time.Second},
		"idle":  {10 * time.Minute, 15 * pulse, 62 * time.Second},
		"new":   {10 * time.Second, pulse, 20 * time.Second}, // that it is busy is known by then
	} {
		t.Run(name, func(t *testing.T) {
			var h heartbeat
			began, packets := time.Unix(1e9, 0), uint64(0)
			sample := func(after time.Duration) bool {
				h.sample(began.Add(after), []writer.LinkCount{
					{Link: writer.Link{Index: 2, Direction: "ingress"}, Packets: packets}, {Link: writer.Link{Index: 2, Direction: "egress"}, Packets: packets},
				})
				return h.lost(began.Add(after))
			}
			at, last := time.Duration(0), time.Duration(0)
			for ; at <= c.known; at += pulse {
				if at%c.every == 0 {
					packets, last = packets+1, at
				}
				if sample(at) {
					t.Fatalf("lost after %v, with packets every %v", at, c.every)
				}
			}
			for !sample(at) {
				at += pulse
			}
			if silent := at - last; silent != c.within {
				t.Errorf("lost after a silence of %v, want %v", silent, c.within)
			}
		})
	}
}

// On the only node of a cluster packets come when somebody uses Blixt.
func TestSilenceOfTheOnlyNode(t *testing.T) {
	o := newOperator(t, "", nil)
	n := newNode(t, o, "n1", nil)
	o.serves(t, "n1", o.Publish(web(1)), web(1))
	for _, alone := range []bool{true, false, true} {
		nodes := []Node{testNode(1)}
		if !alone {
			nodes = append(nodes, testNode(2))
		}
		o.SetNodes(nodes)
		eventually(t, func() string {
			n.mu.Lock()
			defer n.mu.Unlock()
			if lost := n.heartbeat.lost(time.Now().Add(time.Hour)); lost == alone {
				return fmt.Sprintf("packets are lost after an hour: %v, want %v on one of %d nodes", lost, !alone, len(nodes))
			}
			return ""
		})
	}
}

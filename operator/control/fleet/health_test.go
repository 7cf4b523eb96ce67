// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func get(n *node, path string) (int, string) {
	r := httptest.NewRecorder()
	h := n.Handler()
	if path == "/metrics" {
		h = n.Metrics("")
	}
	h.ServeHTTP(r, httptest.NewRequest(http.MethodGet, path, nil))
	return r.Code, r.Body.String()
}

// An agent is ready once its maps hold what the operator published, and its
// metrics show what they hold.
func TestHealth(t *testing.T) {
	o := newOperator(t, "", nil)
	n := newNode(t, o, "n1", nil)
	eventually(t, func() string {
		if code, text := get(n, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "has not published yet") {
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

// On the only node of a cluster, silence means nothing: the operator tells the
// agent that it is alone.
func TestAgentIsToldThatItIsAlone(t *testing.T) {
	o := newOperator(t, "", nil)
	for _, alone := range []bool{true, false, true} {
		nodes := []Node{testNode(1)}
		if !alone {
			nodes = append(nodes, testNode(2))
		}
		o.SetNodes(nodes)
		r := newRaw(t, o, "n1/agent")
		r.hello("n1", "blue", nil, nil)
		m, err := r.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if c := m.GetConfig(); c == nil || c.Alone != alone {
			t.Errorf("on one of %d nodes the agent gets %v, want alone: %v", len(nodes), m, alone)
		}
	}
}

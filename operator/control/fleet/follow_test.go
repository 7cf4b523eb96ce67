// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// follows collects what Follow gets.
type follows struct {
	mu     sync.Mutex
	pieces []string
	lost   int
}

func (f *follows) text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.pieces, " ")
}

// Agents that connect later are followed as well. Pieces that are too large or no JSON are
// counted, and what comes after them arrives.
func TestFollow(t *testing.T) {
	o := newOperator(t, "", nil)
	newNode(t, o, "n1", answering(answerer(func(ctx context.Context, q observe.Query, send func(json.RawMessage) error) error {
		if q.Flows == nil || !q.Flows.Follow || q.Flows.Last != 1 {
			return errors.New("another question")
		}
		for _, piece := range []string{`{"a":1}`, `"` + strings.Repeat("x", 3*maxFollowed) + `"`, `{`, `{"a":2}`} {
			if err := send(json.RawMessage(piece)); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return ctx.Err()
	})))
	o.connected(t, "n1")
	f := &follows{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- o.Follow(ctx, observe.FlowsQuery{Last: 1}, func(node string, piece json.RawMessage) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.pieces = append(f.pieces, node+string(piece))
			return nil
		}, func(n int) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.lost += n
		})
	}()
	has := func(want string) {
		t.Helper()
		eventually(t, func() string {
			if got := f.text(); got != want {
				return "got " + got + ", want " + want
			}
			return ""
		})
	}
	has(`n1{"a":1} n1{"a":2}`)
	newNode(t, o, "n2", answering(sends(`{"a":3}`)))
	has(`n1{"a":1} n1{"a":2} n2{"a":3}`)
	if f.lost != 2 {
		t.Errorf("%d pieces are lost, want 2", f.lost)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ends with %v", err)
	}
}

// A follower's server that does not lead has no agents.
func TestFollowOfFollower(t *testing.T) {
	err := newFollower(t, "", nil).Follow(t.Context(), observe.FlowsQuery{}, nil, nil)
	if !errors.Is(err, errNotLeader) {
		t.Errorf("follows: %v", err)
	}
}

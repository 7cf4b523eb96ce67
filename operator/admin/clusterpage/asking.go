// SPDX-License-Identifier: Apache-2.0

package clusterpage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

const (
	// askFor is how long nodes have to answer, less than the time between two looks.
	askFor = 3 * time.Second
	// lateFor is how long a node that was late has after all others have answered, so that
	// it holds up nobody but itself.
	lateFor = 250 * time.Millisecond
	// lateRecordsFor is how long all have while some are late, if a node may well have
	// nothing to answer: nobody can tell whether the others have.
	lateRecordsFor = time.Second
)

var errLate = errors.New("the time to answer is over")

// asking knows which nodes there are, and which of them are late.
type asking struct {
	limit time.Duration

	mu    sync.Mutex
	nodes map[string]bool // all; true: it has not told its status in time when it was asked last
}

// setNodes sets which nodes are waited for.
func (a *asking) setNodes(all []v1alpha1.NodeDataplane) {
	a.mu.Lock()
	defer a.mu.Unlock()
	nodes := make(map[string]bool, len(all))
	for i := range all {
		nodes[all[i].Name] = a.nodes[all[i].Name]
	}
	a.nodes = nodes
}

// split returns the nodes that are not late, and those that are.
func (a *asking) split() (prompt, late map[string]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	prompt, late = map[string]bool{}, map[string]bool{}
	for node, is := range a.nodes {
		if is {
			late[node] = true
		} else {
			prompt[node] = true
		}
	}
	return prompt, late
}

// setLate sets which nodes are late.
func (a *asking) setLate(late map[string]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for node := range a.nodes {
		a.nodes[node] = late[node]
	}
}

// Ask implements observe.Asker. If nodes have not answered in time, the error is a
// NodesError, and what others have answered counts.
func (s *Source) Ask(ctx context.Context, q observe.Query, got func(node string, piece json.RawMessage) error) error {
	a := &s.asking
	q = a.share(q)
	prompt, late := a.split()
	missing := maps.Clone(late)
	limit := a.limit
	if each := q.Status != nil || q.Trace != nil; each { // every node answers something
		maps.Copy(missing, prompt)
	} else if len(late) > 0 {
		limit = min(limit, lateRecordsFor)
	}
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	over := time.AfterFunc(limit, func() { giveUp(errLate) })
	defer over.Stop()
	err := s.o.Asker.Ask(ctx, q, func(node string, piece json.RawMessage) error {
		delete(missing, node)
		if prompt[node] {
			if delete(prompt, node); len(prompt) == 0 {
				over.Reset(min(limit, lateFor))
			}
		}
		return got(node, piece)
	})
	if err != nil && errors.Is(context.Cause(ctx), errLate) {
		err = a.lateError(err, missing)
	}
	if q.Status != nil && (err == nil || errors.As(err, new(*observe.NodesError))) {
		a.setLate(missing)
	}
	return err
}

// manyBackends is how many backends all nodes together tell one by one: 4 MB.
const manyBackends = 20_000

// share has each node tell its share of what all may.
func (a *asking) share(q observe.Query) observe.Query {
	if q.Status == nil || q.Status.Scope == nil {
		return q
	}
	a.mu.Lock()
	n := len(a.nodes)
	a.mu.Unlock()
	status, scope := *q.Status, *q.Status.Scope
	scope.Backends = manyBackends / max(n, 1)
	status.Scope, q.Status = &scope, &status
	return q
}

// lateError returns an error for nodes that were late, and for those that had failed
// before.
func (a *asking) lateError(err error, missing map[string]bool) error {
	reasons := map[string]string{}
	for node := range missing {
		reasons[node] = fmt.Sprintf("its agent has not answered within %v", a.limit)
	}
	if known := (*observe.NodesError)(nil); errors.As(err, &known) {
		maps.Copy(reasons, known.Reasons)
	}
	if len(reasons) == 0 {
		return fmt.Errorf("not all nodes have answered within %v", a.limit)
	}
	return &observe.NodesError{Reasons: reasons}
}

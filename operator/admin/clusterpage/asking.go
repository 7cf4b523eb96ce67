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
	askFor = 4 * time.Second
	// lateFor is how long one that has not answered the last question in time has after all
	// others have answered: it holds up nobody but itself.
	lateFor = 250 * time.Millisecond
)

// asking knows which nodes there are, and which of them were late.
type asking struct {
	limit time.Duration

	mu    sync.Mutex
	nodes map[string]bool // all; true: it has not answered the last question
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

// Ask implements observe.Asker. It returns a NodesError for nodes that have not answered in
// time; what the others have answered counts.
func (s *Source) Ask(ctx context.Context, q observe.Query, got func(node string, piece json.RawMessage) error) error {
	if q.Status == nil {
		ctx, cancel := context.WithTimeout(ctx, s.asking.limit)
		defer cancel()
		return s.asking.named(ctx, s.o.Asker.Ask(ctx, q, got), nil)
	}
	return s.asking.status(ctx, s.o.Asker, q, got)
}

// status asks for the status of all nodes, which is one piece of each.
func (a *asking) status(ctx context.Context, to observe.Asker, q observe.Query, got func(node string, piece json.RawMessage) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, a.limit, errLate)
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	waiting := map[string]bool{}
	a.mu.Lock()
	for node, late := range a.nodes {
		if !late {
			waiting[node] = true
		}
	}
	a.mu.Unlock()
	answered := map[string]bool{}
	var rest *time.Timer
	err := to.Ask(ctx, q, func(node string, piece json.RawMessage) error {
		answered[node] = true
		delete(waiting, node)
		if len(waiting) == 0 && rest == nil {
			rest = time.AfterFunc(lateFor, func() { giveUp(errLate) })
		}
		return got(node, piece)
	})
	if rest != nil {
		rest.Stop()
	}
	err = a.named(ctx, err, answered)
	if err == nil || errors.As(err, new(*observe.NodesError)) {
		a.mu.Lock()
		for node := range a.nodes {
			a.nodes[node] = !answered[node]
		}
		a.mu.Unlock()
	}
	return err
}

var errLate = errors.New("the time to answer is over")

// named returns an error that names the nodes that were late, if that is what has
// happened. answered are those that were not; nil: that is not known.
func (a *asking) named(ctx context.Context, err error, answered map[string]bool) error {
	late := errors.Is(context.Cause(ctx), errLate) || errors.Is(context.Cause(ctx), context.DeadlineExceeded)
	if err == nil || !late {
		return err
	}
	var known *observe.NodesError
	reasons := map[string]string{}
	if errors.As(err, &known) {
		maps.Copy(reasons, known.Reasons)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for node := range a.nodes {
		if reasons[node] == "" && answered != nil && !answered[node] {
			reasons[node] = fmt.Sprintf("its agent has not answered within %v", a.limit)
		}
	}
	if len(reasons) == 0 {
		return fmt.Errorf("not all nodes have answered within %v", a.limit)
	}
	return &observe.NodesError{Reasons: reasons}
}

// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"context"
	"encoding/json"
	"errors"
)

// Answers is an Answerer of functions: nil for what the node cannot answer. send
// sends a piece, which it makes JSON.
type Answers struct {
	Flows  func(ctx context.Context, q FlowsQuery, send func(any) error) error
	Drops  func(ctx context.Context, q DropsQuery, send func(any) error) error
	Trace  func(ctx context.Context, q TraceQuery, send func(any) error) error
	Status func(ctx context.Context, q StatusQuery, send func(any) error) error
}

// errUnknown is for a question of a later version, too: nothing of it is known here.
var errUnknown = errors.New("the node cannot answer this: it may run an earlier version of Blixt")

// Answer implements Answerer.
func (a Answers) Answer(ctx context.Context, q Query, send func(json.RawMessage) error) error {
	sendAny := func(piece any) error {
		text, err := json.Marshal(piece)
		if err != nil {
			return err
		}
		return send(text)
	}
	switch {
	case q.Flows != nil && a.Flows != nil:
		return a.Flows(ctx, *q.Flows, sendAny)
	case q.Drops != nil && a.Drops != nil:
		return a.Drops(ctx, *q.Drops, sendAny)
	case q.Trace != nil && a.Trace != nil:
		return a.Trace(ctx, *q.Trace, sendAny)
	case q.Status != nil && a.Status != nil:
		return a.Status(ctx, *q.Status, sendAny)
	}
	return errUnknown
}

// Local asks an answerer of this process, under the name of its node.
type Local struct {
	Node     string
	Answerer Answerer
}

// Ask implements Asker.
func (l Local) Ask(ctx context.Context, q Query, got func(node string, piece json.RawMessage) error) error {
	return l.Answerer.Answer(ctx, q, func(piece json.RawMessage) error { return got(l.Node, piece) })
}

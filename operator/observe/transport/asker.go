// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// Limits of what answers can take: of a piece, and of all pieces that have come in
// part.
const (
	maxPiece   = 64 << 20
	maxPartial = 512 << 20
)

// Asker asks over a connection.
type Asker struct {
	conn  grpc.ClientConnInterface
	nodes []string
}

// NewAsker returns an Asker that asks nodes; none: all of them.
func NewAsker(conn grpc.ClientConnInterface, nodes []string) *Asker {
	return &Asker{conn: conn, nodes: nodes}
}

// Ask implements observe.Asker. If nodes have failed, the error is a NodesError, or wraps
// one if ctx has ended before all have answered.
func (a *Asker) Ask(ctx context.Context, q observe.Query, got func(node string, piece json.RawMessage) error) error {
	text, err := json.Marshal(q)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := wire.NewObserveClient(a.conn).Ask(ctx, &wire.AskRequest{Query: text, Nodes: a.nodes})
	if err != nil {
		return readable(err)
	}
	answers := newAnswers()
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return answers.end()
		}
		if err != nil {
			return answers.cut(ctx, readable(err))
		}
		if err := answers.pass(r, got); err != nil {
			return err
		}
	}
}

// Fleet asks agents: fleet.Server.
type Fleet interface {
	Ask(ctx context.Context, q observe.Query, nodes []string, send func(*wire.AskReply) error) error
}

// Direct is an Asker of all agents for the process that they are connected to.
type Direct struct{ Fleet Fleet }

// Ask implements observe.Asker, as Asker does.
func (d Direct) Ask(ctx context.Context, q observe.Query, got func(node string, piece json.RawMessage) error) error {
	answers := newAnswers()
	var failed error
	err := d.Fleet.Ask(ctx, q, nil, func(r *wire.AskReply) error {
		failed = answers.pass(r, got)
		return failed
	})
	switch {
	case failed != nil:
		return failed
	case err != nil:
		return answers.cut(ctx, readable(err))
	}
	return answers.end()
}

// readable returns an error in words.
func readable(err error) error {
	s := status.Convert(err)
	switch s.Code() {
	case codes.Canceled:
		return context.Canceled
	case codes.Unimplemented:
		return errors.New("who was asked is of a version that answers no questions")
	case codes.Unavailable:
		return fmt.Errorf("the answer is not complete: %s", s.Message())
	}
	return errors.New(s.Message())
}

// answers puts the pieces of several nodes together.
type answers struct {
	pieces  map[source][]byte // that have come in part
	partial int               // their size
	failed  map[source]string
}

func newAnswers() *answers {
	return &answers{pieces: map[source][]byte{}, failed: map[source]string{}}
}

// pass passes on the piece that a reply completes.
func (a *answers) pass(r *wire.AskReply, got func(node string, piece json.RawMessage) error) error {
	piece, err := a.add(r)
	if err == nil && piece != nil {
		err = got(r.Node, piece)
	}
	return err
}

// cut returns the error of an answer that was cut off. If whoever has asked waits no
// longer, it tells which nodes have failed until then.
func (a *answers) cut(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return errors.Join(err, a.end())
}

// source is who answers: there are several applications on a node while it is
// upgraded.
type source struct{ node, application string }

// add returns the piece that a reply completes; nil: none. What a node says after it
// has said something wrong is left out.
func (a *answers) add(r *wire.AskReply) (json.RawMessage, error) {
	from := source{r.Node, r.Application}
	if _, failed := a.failed[from]; failed {
		return nil, nil
	}
	piece := append(a.pieces[from], r.Data...)
	a.partial += len(r.Data)
	if a.partial > maxPartial {
		return nil, fmt.Errorf("the pieces of the nodes' answers are too large: %d MiB have come in part: ask fewer nodes at a time", maxPartial>>20)
	}
	why := ""
	switch {
	case r.End && r.Error != "":
		why = r.Error
	case r.End && len(piece) > 0:
		why = "the answer ends in the middle"
	case len(piece) > maxPiece:
		why = fmt.Sprintf("a piece of the answer is larger than %d MiB", maxPiece>>20)
	case r.Last && !json.Valid(piece):
		why = "a piece of the answer is no JSON"
	case !r.Last && !r.End:
		a.pieces[from] = piece
		return nil, nil
	}
	delete(a.pieces, from)
	a.partial -= len(piece)
	if why != "" {
		a.failed[from] = why
	}
	if why != "" || r.End {
		return nil, nil
	}
	return piece, nil
}

// end returns what is wrong with the answers after the last reply.
func (a *answers) end() error {
	for from := range a.pieces {
		a.failed[from] = "the answer ends in the middle"
	}
	reasons := map[string]string{}
	for from, why := range a.failed {
		if from.node == "" {
			return errors.New(why)
		}
		if other := reasons[from.node]; other != "" && other != why {
			why = phrase.Join(slices.Sorted(slices.Values([]string{other, why})))
		}
		reasons[from.node] = why
	}
	if len(reasons) > 0 {
		return &observe.NodesError{Reasons: reasons}
	}
	return nil
}

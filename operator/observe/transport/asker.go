// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubernetes-sigs/blixt/operator/observe"
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

// Ask implements observe.Asker. If nodes have failed, the error is a NodesError.
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
	answers := &answers{pieces: map[string][]byte{}, failed: map[string]string{}}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return answers.end()
		}
		if err != nil {
			return readable(err)
		}
		piece, err := answers.add(r)
		if err == nil && piece != nil {
			err = got(r.Node, piece)
		}
		if err != nil {
			return err
		}
	}
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
	pieces  map[string][]byte // that have come in part
	partial int               // their size
	failed  map[string]string
}

// add returns the piece that a reply completes; nil: none. What a node says after it
// has said something wrong is left out.
func (a *answers) add(r *wire.AskReply) (json.RawMessage, error) {
	if _, failed := a.failed[r.Node]; failed {
		return nil, nil
	}
	piece := append(a.pieces[r.Node], r.Data...)
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
		a.pieces[r.Node] = piece
		return nil, nil
	}
	delete(a.pieces, r.Node)
	a.partial -= len(piece)
	if why != "" {
		a.failed[r.Node] = why
	}
	if why != "" || r.End {
		return nil, nil
	}
	return piece, nil
}

// end returns what is wrong with the answers after the last reply.
func (a *answers) end() error {
	for node := range a.pieces {
		a.failed[node] = "the answer ends in the middle"
	}
	if why, alone := a.failed[""]; alone {
		return errors.New(why)
	}
	if len(a.failed) > 0 {
		return &observe.NodesError{Reasons: a.failed}
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/kubernetes-sigs/blixt/operator/scrape"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// reviews has the operator review tokens of those who want to read metrics: the agent
// itself has no way to the API server.
type reviews struct {
	send chan *wire.TokenReview // for the stream

	mu      sync.Mutex
	known   bool // the operator has once said that it reviews
	on      bool
	last    uint64
	waiting map[uint64]chan *wire.TokenVerdict
}

func newReviews() *reviews {
	return &reviews{send: make(chan *wire.TokenReview), waiting: map[uint64]chan *wire.TokenVerdict{}}
}

// set records whether the operator reviews tokens: by its config, or because the stream
// has ended.
func (r *reviews) set(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.on, r.known = on, r.known || on
}

var errAway = errors.New("the operator is away")

// review is a scrape.Review.
func (r *reviews) review(ctx context.Context, token string) (scrape.Verdict, error) {
	r.mu.Lock()
	if !r.on {
		defer r.mu.Unlock()
		if r.known {
			return scrape.Verdict{}, errAway
		}
		return scrape.Verdict{}, scrape.ErrNoReviews
	}
	r.last++
	id, verdict := r.last, make(chan *wire.TokenVerdict, 1)
	r.waiting[id] = verdict
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.waiting, id)
	}()
	select {
	case r.send <- &wire.TokenReview{Id: id, Token: token}:
	case <-ctx.Done():
		return scrape.Verdict{}, errAway
	}
	select {
	case v := <-verdict:
		switch v.Code {
		case http.StatusOK, http.StatusUnauthorized, http.StatusForbidden:
			return scrape.Verdict{Code: int(v.Code), Why: v.Why}, nil
		}
		return scrape.Verdict{}, errors.New("the operator could not have it reviewed")
	case <-ctx.Done():
		return scrape.Verdict{}, errAway
	}
}

// receive passes a verdict on to who waits for it.
func (r *reviews) receive(v *wire.TokenVerdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if verdict := r.waiting[v.Id]; verdict != nil {
		delete(r.waiting, v.Id)
		verdict <- v
	}
}

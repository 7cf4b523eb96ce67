// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"sync"

	"golang.org/x/time/rate"

	"github.com/kubernetes-sigs/blixt/operator/scrape"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// Limits of an agent's reviews. It remembers verdicts, and asks for less.
const (
	reviewsPerSecond = 2
	maxTokenReviews  = 4 // at a time
)

// tokenReviews are the reviews of tokens that one agent wants. Tokens are of those who
// read its metrics.
type tokenReviews struct {
	limit *rate.Limiter

	mu       sync.Mutex
	running  int // or done, and not sent yet
	verdicts []*wire.TokenVerdict
}

func newTokenReviews() tokenReviews {
	return tokenReviews{limit: rate.NewLimiter(reviewsPerSecond, 10*reviewsPerSecond)}
}

// start has a token reviewed, and c woken when there is a verdict. It returns false, and
// there will be none, if the agent asks too much.
func (t *tokenReviews) start(ctx context.Context, review scrape.Review, c *session, m *wire.TokenReview) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running >= maxTokenReviews || !t.limit.Allow() {
		return false
	}
	t.running++
	go func() {
		v := &wire.TokenVerdict{Id: m.Id}
		if verdict, err := review(ctx, m.Token); err == nil {
			v.Code, v.Why = uint32(verdict.Code), clip(verdict.Why)
		}
		t.mu.Lock()
		t.verdicts = append(t.verdicts, v)
		t.mu.Unlock()
		c.wakeUp()
	}()
	return true
}

// next returns the verdicts to send now.
func (t *tokenReviews) next() (all []*wire.TokenVerdict) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, t.verdicts = t.verdicts, nil
	t.running -= len(all)
	return all
}

// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits of reviews.
const (
	// allowFor and denyFor are how long a verdict is used without asking again.
	allowFor = time.Minute
	denyFor  = 30 * time.Second
	// keepFor is how long who was allowed still is while nobody can review: metrics are
	// needed most when the operator, or the API server, is away. A token that says that it
	// expires earlier is not kept longer.
	keepFor = 24 * time.Hour
	// maxVerdicts are remembered. Those who are allowed give way last.
	maxVerdicts = 256
	// maxToken is in bytes.
	maxToken      = 8 << 10
	reviewTimeout = 5 * time.Second
)

// Verdict says whether the owner of a token may read metrics.
type Verdict struct {
	// Code is that of the HTTP answer: OK, Unauthorized (nobody knows the token) or
	// Forbidden (its owner may not).
	Code int
	Why  string // not OK
}

// ErrNoReviews is returned where no tokens are reviewed.
var ErrNoReviews = errors.New("no tokens are reviewed here")

// Review has somebody who knows judge a token. An error means that this cannot be done
// now.
type Review func(ctx context.Context, token string) (Verdict, error)

// Reviews remembers verdicts, and limits how many are asked for.
type Reviews struct {
	review   Review
	audience string
	clock    func() time.Time
	limit    *rate.Limiter
	running  chan struct{} // has an element for each review

	mu       sync.Mutex
	verdicts map[[sha256.Size]byte]verdict
}

type verdict struct {
	Verdict
	at      time.Time
	expires time.Time // as the token says
}

// NewReviews returns reviews of tokens for an audience, of which perSecond may be asked
// for, and some more at once.
func NewReviews(review Review, audience string, perSecond int) *Reviews {
	return &Reviews{
		review: review, audience: audience, clock: time.Now, limit: rate.NewLimiter(rate.Limit(perSecond), 10*perSecond),
		running: make(chan struct{}, 2*perSecond), verdicts: map[[sha256.Size]byte]verdict{},
	}
}

// Check returns the verdict on a token. An error means that there is none.
func (r *Reviews) Check(ctx context.Context, token string) (Verdict, error) {
	expires, ok := claims(token, r.audience)
	if !ok {
		return Verdict{http.StatusUnauthorized, fmt.Sprintf("the token is none of a ServiceAccount for audience %s", r.audience)}, nil
	}
	key := sha256.Sum256([]byte(token))
	known, fresh := r.known(key)
	if fresh {
		return known.Verdict, nil
	}
	v, err := r.ask(ctx, token)
	if err != nil {
		if now := r.clock(); known.Code == http.StatusOK && now.Sub(known.at) < keepFor && now.Before(known.expires) {
			return known.Verdict, nil
		}
		return Verdict{}, err
	}
	r.remember(key, verdict{v, r.clock(), expires})
	return v, nil
}

// known returns what is known of a token, and whether that is new enough to be used. It is
// the zero value for what is not known.
func (r *Reviews) known(key [sha256.Size]byte) (v verdict, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v = r.verdicts[key]
	age, most := r.clock().Sub(v.at), denyFor
	if v.Code == http.StatusOK {
		most = allowFor
	}
	return v, age >= 0 && age < most // less than 0: the clock was wrong
}

var errBusy = errors.New("too many tokens are being reviewed: try again")

func (r *Reviews) ask(ctx context.Context, token string) (Verdict, error) {
	select {
	case r.running <- struct{}{}:
		defer func() { <-r.running }()
	default:
		return Verdict{}, errBusy
	}
	if !r.limit.Allow() {
		return Verdict{}, errBusy
	}
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	return r.review(ctx, token)
}

// remember makes room by forgetting the oldest of those who are not allowed, or else of
// all.
func (r *Reviews) remember(key [sha256.Size]byte, v verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verdicts[key] = v
	if len(r.verdicts) <= maxVerdicts {
		return
	}
	var oldest *[sha256.Size]byte
	for k, other := range r.verdicts {
		if oldest == nil || before(other, r.verdicts[*oldest]) {
			oldest = new(k)
		}
	}
	delete(r.verdicts, *oldest)
}

// before reports whether a verdict is forgotten before another one.
func before(a, b verdict) bool {
	if allowed := a.Code == http.StatusOK; allowed != (b.Code == http.StatusOK) {
		return !allowed
	}
	return a.at.Before(b.at)
}

// claims returns when a token of a ServiceAccount expires by what it says, whoever has
// signed it, and whether it is one for the audience: for no other need anybody be asked.
// Above all, a token that opens the API server goes no further.
func claims(token, audience string) (expires time.Time, ok bool) {
	var said struct {
		Audiences []string `json:"aud"`
		Expires   int64    `json:"exp"`
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > maxToken {
		return expires, false
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(text, &said) != nil {
		return expires, false
	}
	// For this audience alone: with others, it is worth more than metrics.
	return time.Unix(said.Expires, 0), slices.Equal(said.Audiences, []string{audience})
}

// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"crypto/sha256"
	"sync"
	"time"
)

// Tokens that were refused are refused again, for a moment, without asking the API
// server. Good tokens are always checked: their Pod may be gone.
const (
	refusedFor       = 10 * time.Second
	maxRefusedTokens = 1024
)

// refusedTokens has the refusals of the last moments, by the hash of the token.
type refusedTokens struct {
	clock func() time.Time
	mu    sync.Mutex
	all   map[[sha256.Size]byte]refusedToken
}

type refusedToken struct {
	why *RefusedError
	at  time.Time
}

func newRefusedTokens(clock func() time.Time) *refusedTokens {
	return &refusedTokens{clock: clock, all: map[[sha256.Size]byte]refusedToken{}}
}

// get returns why a token was refused; nil: it was not.
func (r *refusedTokens) get(token string) *RefusedError {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.all[sha256.Sum256([]byte(token))]
	if !ok || !r.fresh(t) {
		return nil
	}
	return t.why
}

func (r *refusedTokens) fresh(t refusedToken) bool {
	age := r.clock().Sub(t.at)
	return age >= 0 && age < refusedFor
}

func (r *refusedTokens) add(token string, why *RefusedError) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.all) >= maxRefusedTokens {
		for hash, t := range r.all {
			if !r.fresh(t) {
				delete(r.all, hash)
			}
		}
	}
	for hash := range r.all { // any: whoever fills it has many
		if len(r.all) < maxRefusedTokens {
			break
		}
		delete(r.all, hash)
	}
	r.all[sha256.Sum256([]byte(token))] = refusedToken{why, r.clock()}
}

// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Pauses between tries to write an object that the API server does not take.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Minute
	// changedPause is the longest one if something else is to be written than what
	// has failed: somebody may have mended it.
	changedPause = time.Second
)

// retries have when objects that could not be written are tried again. An event
// does not hasten that, so nobody makes the operator ask more often.
type retries[K comparable] struct {
	clock func() time.Time
	mu    sync.Mutex
	of    map[K]retry
}

type retry struct {
	content  string // what could not be written
	failures int
	at       time.Time
}

func newRetries[K comparable](clock func() time.Time) *retries[K] {
	return &retries[K]{clock: clock, of: map[K]retry{}}
}

// pause returns how long to wait before content is written.
func (r *retries[K]) pause(key K, content string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, failed := r.of[key]
	if !failed {
		return 0
	}
	pause := min(firstPause<<min(last.failures-1, 20), longestPause)
	if last.content != content {
		pause = min(pause, changedPause)
	}
	return pause - r.clock().Sub(last.at)
}

// failed returns how long to wait before the next try.
func (r *retries[K]) failed(key K, content string) time.Duration {
	r.mu.Lock()
	r.of[key] = retry{content, r.of[key].failures + 1, r.clock()}
	r.mu.Unlock()
	return r.pause(key, content)
}

// fails reports whether the last try has failed.
func (r *retries[K]) fails(key K) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, failed := r.of[key]
	return failed
}

func (r *retries[K]) forget(key K) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.of, key)
}

// isRefusal reports whether the API server has refused an object for its content:
// by validation, a quota or an admission policy. That is a fault of the object, or of
// its namespace, and none of the operator. A permission that the operator lacks is.
func isRefusal(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err) ||
		apierrors.IsForbidden(err) && !strings.Contains(err.Error(), "is forbidden: User ")
}

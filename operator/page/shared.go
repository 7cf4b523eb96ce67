// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// shared is something that is read once for all who want it at about the same time. Who
// reads may panic, fail or hang: then those who wait are told, and nothing is read beside
// it.
type shared[T any] struct {
	mu      sync.Mutex
	running chan struct{} // nil: nobody reads
	value   T
	err     error
	at      time.Time // when reading ended, zero: never
}

// get returns what was read less than fresh ago, or reads it. It returns an error if that
// fails, or takes longer than patience.
func (s *shared[T]) get(fresh, patience time.Duration, read func(context.Context) (T, error)) (T, time.Time, error) {
	s.mu.Lock()
	if age := time.Since(s.at); s.at.IsZero() || age >= fresh {
		if s.running == nil {
			s.running = make(chan struct{})
			go s.read(patience, read)
		}
		running := s.running
		s.mu.Unlock()
		select {
		case <-running:
		case <-time.After(patience + patience/4): // who reads has the first word
			var none T
			return none, time.Time{}, fmt.Errorf("there is no answer within %s", patience)
		}
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	return s.value, s.at, s.err
}

func (s *shared[T]) read(patience time.Duration, read func(context.Context) (T, error)) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	value, err := guarded(ctx, read)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value, s.err, s.at = value, err, time.Now().UTC()
	close(s.running)
	s.running = nil
}

// guarded calls a function, and makes an error of its panic: the process of a load balancer
// does not end for the sake of a page.
func guarded[T any](ctx context.Context, read func(context.Context) (T, error)) (value T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a mistake in Blixt: panic: %v\n%s", p, debug.Stack())
		}
	}()
	return read(ctx)
}

// isOld reports whether nobody has wanted it for so long.
func (s *shared[T]) isOld(age time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running == nil && !s.at.IsZero() && time.Since(s.at) > age
}

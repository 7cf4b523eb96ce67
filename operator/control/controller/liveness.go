// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"fmt"
	"net/http"
	"sync"
	"time"
)

// passLimit is how long a pass of a loop may take. Writes have a limit of their own.
const passLimit = 2 * time.Minute

// Liveness notices a pass that has not ended long after its limit. Then something
// waits that no context ends, and only a new process helps. The zero value is ready
// to use.
type Liveness struct {
	mu    sync.Mutex
	began map[string]time.Time // by loop
}

// begin notes that a loop begins a pass. The function that it returns notes the end.
func (l *Liveness) begin(loop string, now time.Time) (end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.began == nil {
		l.began = map[string]time.Time{}
	}
	l.began[loop] = now
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.began, loop)
	}
}

// Check is a healthz.Checker.
func (l *Liveness) Check(*http.Request) error { return l.check(time.Now()) }

func (l *Liveness) check(now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for loop, began := range l.began {
		if took := now.Sub(began); took > 2*passLimit {
			return fmt.Errorf("a pass of the %s has not ended since %s", loop, began.Format(time.RFC3339))
		}
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Events of one object: so many at once, and one more in each pause, as client-go
// has it for events of the core group. The recorder of the newer ones has no limit,
// and whoever may write a route can have its conditions change all the time.
const (
	eventBurst = 25
	eventPause = 5 * time.Minute
)

// eventLimit bounds the events of each object.
type eventLimit struct {
	mu sync.Mutex
	// full is when each object may have eventBurst events again.
	full map[types.UID]time.Time
}

// allows reports whether an object may have one more event, and counts that.
func (l *eventLimit) allows(object types.UID, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	full := l.full[object]
	if full.Before(now) {
		full = now
	}
	if full.Sub(now) > (eventBurst-1)*eventPause {
		return false
	}
	if l.full == nil {
		l.full = map[types.UID]time.Time{}
	}
	for other, at := range l.full { // it looks at a few of them each time
		if !at.Before(now) {
			break
		}
		delete(l.full, other)
	}
	l.full[object] = full.Add(eventPause)
	return true
}

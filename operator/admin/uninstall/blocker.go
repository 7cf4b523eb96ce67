// SPDX-License-Identifier: Apache-2.0

package uninstall

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Blocker is what keeps a step from ending.
type Blocker struct {
	// Object is kind and name, Node where it is; "": nowhere.
	Object, Node string
	// Why it is still there, and what to do if it stays.
	Why, Remedy string
}

func (b Blocker) String() string {
	text := b.Object
	if b.Node != "" {
		text += " on node " + b.Node
	}
	return text + ": " + b.Why
}

// BlockedError says what was left when the time was over.
type BlockedError struct {
	Timeout  time.Duration
	Blockers []Blocker
}

func (e *BlockedError) Error() string {
	text := fmt.Sprintf("not done within %s", e.Timeout)
	for _, b := range e.Blockers {
		text += "\n  " + b.String()
		if b.Remedy != "" {
			text += "\n    " + b.Remedy
		}
	}
	return text + "\nThen run it again: it goes on where it stopped."
}

// repeat is how often the same blockers are said again.
const repeat = 30 * time.Second

// until looks until nothing blocks, and says what does.
func (r *remover) until(ctx context.Context, look func(context.Context) ([]Blocker, error)) error {
	var last []Blocker
	var said time.Time
	for first := true; ; first = false {
		blockers, err := look(ctx)
		switch {
		case ctx.Err() != nil:
			return r.blocked(ctx, last)
		case err != nil:
			return err
		case len(blockers) == 0:
			return nil
		}
		changed := !slices.Equal(blockers, last)
		if !first && (changed || time.Since(said) >= repeat) { // most are gone at the second look
			said = time.Now()
			for _, b := range blockers {
				r.say("  waiting for %s", b)
			}
		}
		last = blockers
		select {
		case <-ctx.Done():
			return r.blocked(ctx, last)
		case <-time.After(r.Pause):
		}
	}
}

// blocked is why it ended: the time was over, or somebody has stopped it.
func (r *remover) blocked(ctx context.Context, last []Blocker) error {
	if ctx.Err() == context.Canceled {
		return context.Canceled
	}
	slices.SortFunc(last, func(a, b Blocker) int { return strings.Compare(a.String(), b.String()) })
	return &BlockedError{Timeout: r.Timeout, Blockers: last}
}

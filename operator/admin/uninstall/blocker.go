// SPDX-License-Identifier: Apache-2.0

package uninstall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Blocker is what keeps a step from ending.
type blocker struct {
	// Object is kind and name, Node where it is; "": nowhere.
	Object, Node string
	// Why it is still there, and what to do if it stays.
	Why, Remedy string
}

func (b blocker) String() string {
	text := b.Object
	if b.Node != "" {
		text += " on node " + b.Node
	}
	return text + ": " + b.Why
}

// repeat is the interval at which unchanged blockers are printed again.
const repeat = 30 * time.Second

// until calls look until nothing blocks any more, and prints what does.
func (r *remover) until(ctx context.Context, look func(context.Context) ([]blocker, error)) error {
	var last []blocker
	var said time.Time
	for first := true; ; first = false {
		blockers, err := look(ctx)
		switch {
		case ctx.Err() != nil:
			return r.blocked(ctx, last)
		case err != nil:
			return err
		case len(blockers) == 0, r.DryRun: // nothing will ever be gone
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

// blocked returns why the removal ended: somebody stopped it, or its time was over,
// and then what was left.
func (r *remover) blocked(ctx context.Context, last []blocker) error {
	if ctx.Err() == context.Canceled {
		return context.Canceled
	}
	slices.SortFunc(last, func(a, b blocker) int { return strings.Compare(a.String(), b.String()) })
	text := fmt.Sprintf("not done within %s", r.Timeout)
	for _, b := range last {
		text += "\n  " + b.String()
		if b.Remedy != "" {
			text += "\n    " + b.Remedy
		}
	}
	return errors.New(text + "\nThen run it again: it goes on where it stopped.")
}

// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// drainedEvery is how often to look whether the file with what is drained has changed: one
// system call. Its directory may come later, or be replaced.
const drainedEvery = 250 * time.Millisecond

// byHand is what is drained by hand.
type byHand struct {
	path  string
	stamp fileStamp
	// set is what the file said when it was valid last.
	set lb.DrainedSet
}

// fileStamp differs if a file was written or replaced, or its owner or mode changed.
type fileStamp struct {
	dev, ino uint64
	changed  unix.Timespec
	size     int64
	err      error
}

func stampOf(path string) (f fileStamp) {
	var s unix.Stat_t
	if err := unix.Lstat(path, &s); err != nil {
		return fileStamp{err: err}
	}
	return fileStamp{s.Dev, s.Ino, s.Ctim, s.Size, nil}
}

// look reads the file if it has changed since the last look. It reports whether it has.
func (h *byHand) look() (changed bool, err error) {
	stamp := stampOf(h.path)
	if stamp == h.stamp {
		return false, nil
	}
	h.stamp = stamp // of before the file is read: a change meanwhile is seen next
	set, err := ReadDrained(h.path)
	if err == nil {
		h.set = set
	}
	return true, err
}

// lookAtDrained reads what is drained if that has changed. If the file is invalid, what it
// said when it was valid last stays in force. The caller holds r.reconciling.
func (r *runner) lookAtDrained() (changed bool) {
	changed, err := r.byHand.look()
	if changed {
		if err != nil && len(r.byHand.set) > 0 {
			err = fmt.Errorf("%w; meanwhile %s stays drained", err, phrase.Sample(names(r.byHand.set)))
		}
		r.log.failure("drained file", err)
	}
	return changed
}

// watchDrained follows the file until ctx ends.
func (r *runner) watchDrained(ctx context.Context) {
	for pause(ctx, drainedEvery) {
		r.reconciling.Lock()
		changed := r.lookAtDrained()
		r.reconciling.Unlock()
		if changed {
			r.wake()
		}
	}
}

func names(set lb.DrainedSet) (all []string) {
	for at := range set {
		all = append(all, DrainedName(at))
	}
	slices.Sort(all)
	return all
}

// logDrained says what is drained and what comes of it.
func (r *runner) logDrained(state *lb.State) {
	var unknown []string
	refused := ""
	if len(r.byHand.set) > 0 {
		unknown, refused = judgeDrained(r.byHand.set, state)
	}
	r.log.each("drained address", slog.LevelInfo, unknown)
	r.log.once("drained", slog.LevelWarn, refused)
}

// judgeDrained returns which addresses are no backend's, and where new connections are
// refused because of what is drained.
func judgeDrained(set lb.DrainedSet, state *lb.State) (unknown []string, refused string) {
	seen := map[*lb.Drained]bool{}
	var refusing []string
	for i := range state.Frontends {
		f := &state.Frontends[i]
		serving, drained := false, false
		for j := range f.Backends {
			b := &f.Backends[j]
			serving = serving || b.Weight > 0
			if b.Drained != nil {
				seen[b.Drained], drained = true, true
			}
		}
		if drained && !serving {
			refusing = append(refusing, f.Key().String())
		}
	}
	for at, d := range set {
		if !seen[d] {
			unknown = append(unknown, fmt.Sprintf("%s is drained %s, and no file names it as a backend: blixt undrain %s forgets it", DrainedName(at), d, DrainedName(at)))
		}
	}
	if len(refusing) > 0 {
		refused = fmt.Sprintf("no backend of %s serves, as some are drained by hand: new connections are refused; run: blixt undrain ADDRESS", phrase.Sample(refusing))
	}
	slices.SortFunc(unknown, strings.Compare)
	return unknown, refused
}

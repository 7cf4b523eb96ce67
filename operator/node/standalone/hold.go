// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// longest is how many graces a removal waits at most, while files keep changing.
const longest = 3

// removals keeps what files do not ask for any more for a while: an editor, a copy or a
// move may be about to ask for it again, and the connections would be lost. Additions and
// changes are not held.
type removals struct {
	grace time.Duration
	// state is the last one returned, generation that of the files that it was made of.
	state      lb.State
	generation int
	// since is when what is held went.
	since map[removed]time.Time
}

// removed is a frontend, or a backend of it, or a policy that restricts it.
type removed struct {
	frontend lb.Key
	backend  netip.AddrPort
	policy   string
}

// hold returns the state with what went less than the grace ago, or while files were
// changing, and when to ask again; 0: nothing is held. What is missing because of the
// network, and not of the files, is not held.
func (r *removals) hold(want lb.State, generation int, changed, now time.Time) (lb.State, time.Duration) {
	files := generation != r.generation
	r.generation = generation
	since := map[removed]time.Time{}
	next := time.Duration(0)
	held := func(it removed) bool {
		went, known := r.since[it]
		if !known {
			went = now
		}
		quiet := went
		if changed.After(quiet) {
			quiet = changed
		}
		wait := min(quiet.Add(r.grace).Sub(now), went.Add(longest*r.grace).Sub(now))
		if !known && !files || wait <= 0 {
			return false
		}
		since[it] = went
		if next == 0 || wait < next {
			next = wait
		}
		return true
	}
	state := want
	state.Addresses, state.Frontends, state.Sources = slices.Clone(want.Addresses), slices.Clone(want.Frontends), slices.Clone(want.Sources)
	for _, was := range r.state.Frontends {
		i, is := slices.BinarySearchFunc(want.Frontends, was, func(a, b lb.Frontend) int { return a.Key().Compare(b.Key()) })
		if is {
			f := &state.Frontends[i]
			keepBackends(f, was, func(b netip.AddrPort) bool { return held(removed{frontend: was.Key(), backend: b}) })
			keepRestrictions(f, was, func(policy string) bool { return held(removed{frontend: was.Key(), policy: policy}) })
			state.Sources = withSources(state.Sources, f, r.state.Sources)
			continue
		}
		if !held(removed{frontend: was.Key()}) {
			continue
		}
		state.Frontends = append(state.Frontends, was)
		state.Sources = withSources(state.Sources, &was, r.state.Sources)
		if !slices.ContainsFunc(state.Addresses, func(a lb.Address) bool { return a.IP == was.Addr }) {
			j := slices.IndexFunc(r.state.Addresses, func(a lb.Address) bool { return a.IP == was.Addr })
			state.Addresses = append(state.Addresses, r.state.Addresses[j])
		}
	}
	slices.SortFunc(state.Addresses, func(a, b lb.Address) int { return a.IP.Compare(b.IP) })
	slices.SortFunc(state.Frontends, func(a, b lb.Frontend) int { return a.Key().Compare(b.Key()) })
	slices.SortFunc(state.Sources, func(a, b lb.SourceSet) int { return cmp.Compare(a.Policy, b.Policy) })
	r.state, r.since = state, since
	return state, next
}

// withSources adds the sets of sources that the frontend's restrictions name, as far as they are missing:
// a frontend without the set of its policy refuses everybody.
func withSources(sets []lb.SourceSet, f *lb.Frontend, had []lb.SourceSet) []lb.SourceSet {
	of := func(policy string) func(lb.SourceSet) bool {
		return func(s lb.SourceSet) bool { return s.Policy == policy }
	}
	for _, r := range f.Restrictions {
		if i := slices.IndexFunc(had, of(r.Policy)); r.Sources && i >= 0 && !slices.ContainsFunc(sets, of(r.Policy)) {
			sets = append(sets, had[i])
		}
	}
	return sets
}

// keepBackends adds the backends that the frontend had and that are held. They get no new
// connections, unless nothing else would.
func keepBackends(f *lb.Frontend, was lb.Frontend, held func(netip.AddrPort) bool) {
	var kept []lb.Backend
	for _, b := range was.Backends {
		if _, is := slices.BinarySearchFunc(f.Backends, b, byAddr); !is && held(b.Addr) {
			kept = append(kept, b)
		}
	}
	if len(kept) == 0 {
		return
	}
	if slices.ContainsFunc(f.Backends, func(b lb.Backend) bool { return b.Weight > 0 }) {
		for i := range kept {
			kept[i].Weight = 0
		}
	} else {
		f.Reject = was.Reject
	}
	f.Backends = slices.Concat(f.Backends, kept)
	slices.SortFunc(f.Backends, byAddr)
}

// keepRestrictions adds those that the frontend had of policies that are held: while a file
// is written anew, nobody gets in whom its policy refuses. Who has as many as there may be keeps
// the newer ones.
func keepRestrictions(f *lb.Frontend, was lb.Frontend, held func(policy string) bool) {
	for _, r := range was.Restrictions {
		restricts := slices.ContainsFunc(f.Restrictions, func(now lb.Restriction) bool { return now.Policy == r.Policy })
		if !restricts && held(r.Policy) && len(f.Restrictions) < lb.MaxRestrictions {
			f.Restrictions = append(slices.Clip(f.Restrictions), r)
		}
	}
}

func byAddr(a, b lb.Backend) int { return a.Addr.Compare(b.Addr) }

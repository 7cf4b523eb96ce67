// SPDX-License-Identifier: Apache-2.0

// Package diff tells what another state changes of what is served. In go the status of a
// load balancer and a state; out comes what comes, goes and changes, and how many flows
// that costs. It is pure.
package diff

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// Diff is what differs. Frontends that stay as they are, are left out.
type Diff struct {
	Frontends []Frontend `json:"frontends"`
	// Reset is how many flows end, Kept how many the frontends that differ keep.
	Reset uint64 `json:"flowsReset"`
	Kept  uint64 `json:"flowsKept"`
}

// Change is what becomes of a frontend or a backend.
type Change string

// The changes.
const (
	Added   Change = "added"
	Removed Change = "removed"
	Changed Change = "changed"
	Same    Change = "same"
)

// Frontend is a frontend that differs.
type Frontend struct {
	Frontend string `json:"frontend"` // address:port/protocol
	Change   Change `json:"change"`
	// Was and Will are who serves it, if that is known: nil where it was, or will be, not
	// served.
	Was      *Names    `json:"was,omitempty"`
	Will     *Names    `json:"will,omitempty"`
	Backends []Backend `json:"backends"`
}

// Names are where a frontend comes from.
type Names struct {
	Gateway  string `json:"gateway,omitempty"`
	Listener string `json:"listener,omitempty"`
	Route    string `json:"route,omitempty"`
	// RejectShare is the part of new connections that is refused.
	RejectShare float64 `json:"rejectShare"`
	IdleTimeout string  `json:"idleTimeout,omitempty"`
}

// Backend is a backend of a frontend that differs.
type Backend struct {
	Address string `json:"address"`
	Change  Change `json:"change"`
	Was     *Share `json:"was,omitempty"`
	Will    *Share `json:"will,omitempty"`
	// Flows is how many it has now, and Reset whether they end.
	Flows uint64 `json:"flows"`
	Reset bool   `json:"reset,omitempty"`
}

// Share is what a backend gets: of new connections, its part.
type Share struct {
	State  string  `json:"state"` // serving, draining or not-serving
	Local  bool    `json:"local,omitempty"`
	Weight float64 `json:"weight"`
	// Share is the part of new connections.
	Share float64 `json:"share"`
}

// New returns what the state changes of what is served.
func New(served *writer.Status, will *lb.State) Diff {
	d := Diff{Frontends: []Frontend{}}
	next := map[string]*lb.Frontend{}
	for i := range will.Frontends {
		next[will.Frontends[i].Key().String()] = &will.Frontends[i]
	}
	for i := range served.Frontends {
		f := &served.Frontends[i]
		d.add(frontend(f, next[f.Frontend], served.Known))
		delete(next, f.Frontend)
	}
	for i := range will.Frontends {
		if f := &will.Frontends[i]; next[f.Key().String()] != nil {
			d.add(frontend(nil, f, true))
		}
	}
	slices.SortStableFunc(d.Frontends, func(a, b Frontend) int { return strings.Compare(a.Frontend, b.Frontend) })
	return d
}

func (d *Diff) add(f Frontend) {
	if f.Change == Same {
		return
	}
	for _, b := range f.Backends {
		if b.Reset {
			d.Reset += b.Flows
		} else {
			d.Kept += b.Flows
		}
	}
	d.Frontends = append(d.Frontends, f)
}

// Expect returns the frontends of a state as they will be.
func Expect(will *lb.State) []Frontend {
	all := []Frontend{}
	for i := range will.Frontends {
		all = append(all, frontend(nil, &will.Frontends[i], true))
	}
	return all
}

// Empty reports whether nothing differs.
func (d *Diff) Empty() bool { return len(d.Frontends) == 0 }

// frontend returns what becomes of one; nil: it was not, or will not be. known is true if
// names and weights of what is served are known.
func frontend(was *writer.FrontendStatus, will *lb.Frontend, known bool) Frontend {
	f := Frontend{Backends: []Backend{}}
	var before, after []Backend
	if was != nil {
		f.Frontend, f.Change = was.Frontend, Removed
		f.Was = &Names{was.Gateway, was.Listener, was.Route, was.RejectShare, was.IdleTimeout}
		for _, b := range was.Backends {
			before = append(before, Backend{Address: b.Address, Change: Removed, Flows: b.ActiveFlows, Was: &Share{b.State, b.Local, b.Weight, b.RingShare}})
		}
	}
	if will != nil {
		f.Frontend, f.Change = will.Key().String(), Added
		f.Will, after = expected(will)
	}
	f.Backends = join(before, after, known)
	if was != nil && will != nil {
		f.Change = Changed
		same := f.Was.served() == f.Will.served()
		if known {
			same = *f.Was.named() == *f.Will.named() && same
		}
		if same && !slices.ContainsFunc(f.Backends, func(b Backend) bool { return b.Change != Same }) {
			f.Change = Same
		}
	}
	return f
}

// named returns the names alone.
func (n *Names) named() *Names { return &Names{n.Gateway, n.Listener, n.Route, 0, n.IdleTimeout} }

// served reports whether a frontend serves, refuses a part of its connections, or all.
func (n *Names) served() int {
	switch {
	case n.RejectShare == 0:
		return 0
	case n.RejectShare < 1:
		return 1
	}
	return 2
}

// String returns route and Gateway as they follow a frontend's name in a sentence.
func (n *Names) String() string {
	text := ""
	if n.Route != "" {
		text += " " + n.Route
	}
	if n.Gateway != "" {
		text += " of Gateway " + n.Gateway
	}
	if n.RejectShare > 0 {
		text += fmt.Sprintf(", refuses %.1f%%", 100*n.RejectShare)
	}
	return text
}

// expected returns what a frontend of a state will be.
func expected(f *lb.Frontend) (*Names, []Backend) {
	total := float64(f.Reject)
	for _, b := range f.Backends {
		total += float64(b.Weight)
	}
	share := func(weight uint64) float64 {
		if total == 0 {
			return 0
		}
		return float64(weight) / total
	}
	n := &Names{f.Gateway, f.Listener, f.Route, share(f.Reject), writer.IdleTimeout(f)}
	if total == 0 {
		n.RejectShare = 1
	}
	var all []Backend
	for _, b := range f.Backends {
		s := &Share{b.State(), b.Local, float64(b.Weight) / lb.WeightUnit, share(b.Weight)}
		all = append(all, Backend{Address: b.Addr.String(), Change: Added, Will: s})
	}
	return n, all
}

// join returns the backends of before and after, each once, by address.
func join(before, after []Backend, known bool) []Backend {
	all := slices.Clone(before)
	for i := range all {
		all[i].Reset = true
	}
	for _, b := range after {
		i := slices.IndexFunc(all, func(o Backend) bool { return o.Address == b.Address })
		if i < 0 {
			all = append(all, b)
			continue
		}
		// A backend that is local now, or is not any more, is another one: see
		// datapath.BackendKey.
		all[i].Will, all[i].Change, all[i].Reset = b.Will, Changed, b.Will.Local != all[i].Was.Local
		if all[i].Was.equal(b.Will, known) {
			all[i].Change = Same
		}
	}
	slices.SortStableFunc(all, func(a, b Backend) int { return strings.Compare(a.Address, b.Address) })
	return all
}

// String returns the state, the weight and the share.
func (s *Share) String() string {
	return fmt.Sprintf("%s, weight %.4g, %.1f%%", s.Where(), s.Weight, 100*s.Share)
}

// Where returns the state, and whether the backend is local.
func (s *Share) Where() string {
	if s.Local {
		return s.State + ", local"
	}
	return s.State
}

// equal reports whether nothing has changed. The least weights get no slot of the ring,
// which looks like draining.
func (s *Share) equal(o *Share, known bool) bool {
	sameState := s.State == o.State || known && s.Weight > 0 && o.Weight > 0
	return sameState && s.Local == o.Local && (!known || math.Abs(s.Weight-o.Weight) < 1e-9)
}

// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"math"
	"reflect"
	"slices"
	"strings"
)

// Changes are what differs between two states. They refer to both.
type Changes struct {
	// AddedAddresses and RemovedAddresses are in one state alone.
	AddedAddresses   []Address `json:"addedAddresses,omitempty"`
	RemovedAddresses []Address `json:"removedAddresses,omitempty"`
	// Added and Removed are frontends that are in one state alone, Changed those that
	// are in both and differ. All are in the order of their keys.
	Added   []*Frontend      `json:"added,omitempty"`
	Removed []*Frontend      `json:"removed,omitempty"`
	Changed []FrontendChange `json:"changed,omitempty"`
	// Sources are whom policies admit, in the order of the policies.
	Sources []SourceChange `json:"sources,omitempty"`
}

// FrontendChange is how a frontend differs from what it was.
type FrontendChange struct {
	Was *Frontend `json:"was"`
	Is  *Frontend `json:"is"`
	// Added and Removed are backends, in the order of their addresses.
	Added   []*Backend `json:"added,omitempty"`
	Removed []*Backend `json:"removed,omitempty"`
	// Changed are backends that are in both and differ in anything but their weight:
	// in State, in whether they are drained, in their Service.
	Changed []BackendChange `json:"changed,omitempty"`
	// Weights are the Services whose weight differs: the weight of a backend also depends
	// on how many others its Service has. Reject is that of refused connections.
	Weights []WeightChange `json:"weights,omitempty"`
}

// BackendChange is how a backend differs from what it was.
type BackendChange struct {
	Was *Backend `json:"was"`
	Is  *Backend `json:"is"`
}

// WeightChange is how the weight of a Service differs from what it was, in the unit of
// routes. Service is "" for connections that are refused.
type WeightChange struct {
	Service string  `json:"service"`
	Was     float64 `json:"was"`
	Is      float64 `json:"is"`
}

// State returns StateServing or what else the backend is: StateDraining, StateEjected and so on.
func (b *Backend) State() string {
	switch {
	case b.Weight > 0 && b.Ejected.OnTrial():
		return StateTrial
	case b.Weight > 0:
		return StateServing
	case b.Drained == nil && b.Standby:
		return StateStandby
	case b.Drained == nil && b.Ejected != nil:
		return StateEjected
	case b.NotServing:
		return StateNotServing
	}
	return StateDraining
}

// Empty reports whether the states are the same.
func (c *Changes) Empty() bool {
	return len(c.AddedAddresses)+len(c.RemovedAddresses)+len(c.Added)+len(c.Removed)+len(c.Changed)+len(c.Sources) == 0
}

// Diff returns what differs between two states, which must be normalized. What it returns
// refers to them.
func Diff(was, is *State) Changes {
	var c Changes
	both(was.Addresses, is.Addresses, func(a, b *Address) int { return a.IP.Compare(b.IP) }, func(a, b *Address) {
		if a != nil && b != nil && *a == *b {
			return
		}
		if a != nil {
			c.RemovedAddresses = append(c.RemovedAddresses, *a)
		}
		if b != nil {
			c.AddedAddresses = append(c.AddedAddresses, *b)
		}
	})
	both(was.Frontends, is.Frontends, func(a, b *Frontend) int { return a.Key().Compare(b.Key()) }, func(a, b *Frontend) {
		switch {
		case a == nil:
			c.Added = append(c.Added, b)
		case b == nil:
			c.Removed = append(c.Removed, a)
		case !same(a, b):
			c.Changed = append(c.Changed, diffFrontends(a, b))
		}
	})
	c.Sources = diffSources(was.Sources, is.Sources)
	return c
}

// both calls f with each element of two sorted lists, with nil for the list that lacks it.
func both[T any](was, is []T, compare func(a, b *T) int, f func(was, is *T)) {
	for len(was) > 0 || len(is) > 0 {
		order := 0
		switch {
		case len(was) == 0:
			order = 1
		case len(is) == 0:
			order = -1
		default:
			order = compare(&was[0], &is[0])
		}
		var a, b *T
		if order <= 0 {
			a, was = &was[0], was[1:]
		}
		if order >= 0 {
			b, is = &is[0], is[1:]
		}
		f(a, b)
	}
}

// same reports whether two frontends of the same key are equal. Those of states in a row
// mostly share what they refer to, and then it costs next to nothing.
func same(a, b *Frontend) bool {
	if shared(a.Backends, b.Backends) && shared(a.Refs, b.Refs) {
		return a.Gateway == b.Gateway && a.Listener == b.Listener && a.Route == b.Route && a.IdleTimeout == b.IdleTimeout &&
			a.Reject == b.Reject && a.PreserveClient == b.PreserveClient && a.Records == b.Records && a.Settings.Equal(&b.Settings)
	}
	return reflect.DeepEqual(a, b)
}

// shared reports whether two slices are the same.
func shared[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

func diffFrontends(was, is *Frontend) FrontendChange {
	c := FrontendChange{Was: was, Is: is}
	both(was.Backends, is.Backends, func(a, b *Backend) int { return a.Addr.Compare(b.Addr) }, func(a, b *Backend) {
		switch {
		case a == nil:
			c.Added = append(c.Added, b)
		case b == nil:
			c.Removed = append(c.Removed, a)
		case a.differs(b):
			c.Changed = append(c.Changed, BackendChange{a, b})
		}
	})
	before, now := weights(was), weights(is)
	for service := range now {
		before[service] += 0
	}
	for service, w := range before {
		if n := now[service]; w != n {
			c.Weights = append(c.Weights, WeightChange{service, w, n})
		}
	}
	slices.SortFunc(c.Weights, func(a, b WeightChange) int { return strings.Compare(a.Service, b.Service) })
	return c
}

// differs reports whether backends of the same address differ in anything but weights.
func (b *Backend) differs(o *Backend) bool {
	x, y := *b, *o
	x.Weight, y.Weight = 0, 0
	return b.State() != o.State() || !reflect.DeepEqual(x, y)
}

// weights returns those of a frontend's Services, rounded: the weight of a Service that is
// divided among its backends may be less than the whole by a bit for each of them.
func weights(f *Frontend) map[string]float64 {
	sums := map[string]uint64{}
	for i := range f.Backends {
		sums[f.Backends[i].Service] += f.Backends[i].Weight
	}
	all := map[string]float64{}
	for service, sum := range sums {
		all[service] = roundWeight(sum)
	}
	if f.Reject > 0 {
		all[""] += roundWeight(f.Reject)
	}
	return all
}

func roundWeight(w uint64) float64 {
	const digits = 1e4
	return math.Round(float64(w)/WeightUnit*digits) / digits
}

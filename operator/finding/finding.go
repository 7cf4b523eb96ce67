// SPDX-License-Identifier: Apache-2.0

// Package finding has what commands report about a host or a cluster: what was seen,
// how bad it is, and a remedy.
package finding

import (
	"cmp"
	"slices"
	"strings"
)

// Level is how bad something is.
type Level string

// The levels, the worst first.
const (
	// Failed: Blixt does not work as it should, or will fail to.
	Failed Level = "failed"
	// Warning: Blixt works, with a risk.
	Warning Level = "warning"
	// Unknown: what is examined could not be read.
	Unknown Level = "unknown"
	// OK: nothing is wrong.
	OK Level = "ok"
)

// Levels are all of them, the worst first.
var Levels = []Level{Failed, Warning, Unknown, OK}

// Finding is what one check has found about one object.
type Finding struct {
	Check   string `json:"check"`
	Verdict Level  `json:"verdict"`
	// Object that the finding is about, as kind and name; "": all that is examined.
	Object string `json:"object,omitempty"`
	// Seen is the observation, with the field that it is from.
	Seen string `json:"seen"`
	// Remedy is what to do; "": nothing.
	Remedy string `json:"remedy,omitempty"`
}

// Sort puts the worst first. Findings as bad as each other stay in the order of
// objects and, of one object, as they were.
func Sort(all []Finding) {
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(rank(a.Verdict)-rank(b.Verdict), strings.Compare(a.Object, b.Object))
	})
}

// WorstFirst puts the worst first. Findings as bad as each other stay in their order.
func WorstFirst(all []Finding) {
	slices.SortStableFunc(all, func(a, b Finding) int { return rank(a.Verdict) - rank(b.Verdict) })
}

// Worse reports whether a level is worse than another one.
func Worse(a, b Level) bool { return rank(a) < rank(b) }

func rank(v Level) int { return slices.Index(Levels, v) }

// Count returns the number of findings with a verdict.
func Count(all []Finding, v Level) (n int) {
	for i := range all {
		if all[i].Verdict == v {
			n++
		}
	}
	return n
}

// Verdict returns what all findings come to: Failed if one has, else Unknown if
// something could not be read, else OK. A warning does not mean that something fails.
func Verdict(all []Finding) Level {
	for _, v := range []Level{Failed, Unknown} {
		if Count(all, v) > 0 {
			return v
		}
	}
	return OK
}

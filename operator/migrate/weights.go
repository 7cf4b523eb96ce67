// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"math"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

const (
	maxRefs   = 16        // backendRefs that Gateway API allows in a rule
	maxWeight = 1_000_000 // of a backendRef, by Gateway API
)

// maxTurns is how many groups of backup servers a policy has.
const maxTurns = 3

// divide returns the backends in groups of the same weight: first those that serve, then the
// backup ones by their turns. A server that is there twice gets the weight of both.
func divide(f *Frontend) []group {
	once := merged(f.Backends)
	turns := turnsOf(once)
	switch {
	case len(turns) == 0:
		return nil
	case turns[0] == 0:
	case len(turns) == 1:
		f.Note(f.Place, Changed, "%s has backup servers only: they serve like others", f.title())
	default:
		f.Note(f.Place, Changed, "%s has backup servers only: the first of them serve like others", f.title())
	}
	if len(turns) > maxTurns+1 {
		f.Note(f.Place, Changed, "the backup servers of %s are asked in %d turns, and a policy has %d: the last ones get connections together", f.title(), len(turns)-1, maxTurns)
	}
	by := make([][]Backend, min(len(turns), maxTurns+1))
	for _, s := range once {
		n := min(slices.Index(turns, s.order()), maxTurns)
		by[n] = append(by[n], s)
	}
	room := 4
	if len(by) > 2 {
		room = 2
	}
	groups := byWeight(f, by[0], maxRefs-room*(len(by)-1), 0)
	for i, some := range by[1:] {
		groups = append(groups, byWeight(f, some, room, i+1)...)
	}
	return groups
}

// order returns 0 for a server that is no backup one, and otherwise from 1 on when its turn is.
func (b Backend) order() int {
	if b.Backup {
		return b.Turn + 1
	}
	return 0
}

// turnsOf returns the orders that the servers have. The first one serves.
func turnsOf(all []Backend) (turns []int) {
	for i := range all {
		turns = append(turns, all[i].order())
	}
	slices.Sort(turns)
	return slices.Compact(turns)
}

// merged returns each server once.
func merged(all []Backend) []Backend {
	index := map[server]int{}
	var once []Backend
	for _, s := range all {
		s.Weight = min(max(s.Weight, 0), math.MaxInt32)
		key := server{s.Addr, s.Port, s.Backup, s.Turn}
		if i, again := index[key]; again {
			once[i].Weight = min(once[i].Weight+s.Weight, math.MaxInt32)
			continue
		}
		index[key] = len(once)
		once = append(once, s)
	}
	return once
}

// byWeight returns groups of the same weight, at most so many. Servers of weight 0 join the
// first group: their endpoints are not ready.
func byWeight(f *Frontend, all []Backend, most, priority int) []group {
	weights := map[int]int{} // to those that are written
	for _, s := range all {
		if s.Weight > 0 {
			weights[s.Weight] = s.Weight
		}
	}
	if len(weights) > most {
		f.Note(f.Place, Changed, "the servers of %s have %d different weights, and a route has room for %d: similar ones are made equal", f.title(), len(weights), most)
		weights = similar(weights, most)
	}
	var groups []group
	var idle []Backend
	index := map[int]int{}
	for _, s := range all {
		w := weights[s.Weight]
		if w == 0 {
			idle = append(idle, s)
			continue
		}
		i, have := index[w]
		if !have {
			i = len(groups)
			index[w] = i
			groups = append(groups, group{weight: w, priority: priority})
		}
		groups[i].backends = append(groups[i].backends, s)
	}
	if len(idle) > 0 && len(groups) == 0 {
		groups = []group{{weight: 1, priority: priority}}
	}
	if len(idle) > 0 {
		groups[0].backends = append(groups[0].backends, idle...)
	}
	return groups
}

// similar returns at most so many weights, by those that they stand for.
func similar(weights map[int]int, most int) map[int]int {
	lo, hi := math.MaxInt, 1
	for w := range weights {
		lo, hi = min(lo, w), max(hi, w)
	}
	bucket := func(w int) int {
		return int(math.Log(float64(w)/float64(lo)) / math.Log(float64(hi)/float64(lo)) * (float64(most) - 0.5))
	}
	sum, count := make([]int, most), make([]int, most)
	for w := range weights {
		sum[bucket(w)] += w
		count[bucket(w)]++
	}
	for w := range weights {
		weights[w] = (sum[bucket(w)] + count[bucket(w)]/2) / count[bucket(w)]
	}
	return weights
}

// scaled returns the refs with weights that Gateway API allows.
func scaled(f *Frontend, refs []ref) []ref {
	if len(refs) > maxRefs {
		f.Note(f.Place, Lost, "%s has %d Services, and a route has room for %d: the last ones are left out", f.title(), len(refs), maxRefs)
		refs = refs[:maxRefs]
	}
	divisor, most, sum := 0, 0, 0
	for _, r := range refs {
		divisor, most, sum = gcd(divisor, r.weight), max(most, r.weight), sum+r.weight
	}
	if sum == 0 && len(f.Services) == 0 { // none is ready
		for i := range refs {
			refs[i].weight = 1
		}
		return refs
	}
	if most <= maxWeight {
		return refs
	}
	exact := true
	for i, r := range refs {
		if most/divisor <= maxWeight {
			refs[i].weight = r.weight / divisor
			continue
		}
		exact = false
		refs[i].weight = max(1, int(math.Round(float64(r.weight)/float64(most)*maxWeight)))
		if r.weight == 0 {
			refs[i].weight = 0
		}
	}
	if !exact {
		f.Note(f.Place, Changed, "weights of %s are rounded, as Gateway API allows %s at most: each server gets nearly the same part", f.title(), phrase.Number(maxWeight))
	}
	return refs
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// checkFamilies notes that one route cannot give each family weights of its own.
func checkFamilies(f *Frontend, groups []group) {
	var total [2]int
	for i := range groups {
		total[0] += groups[i].count("IPv4")
		total[1] += groups[i].count("IPv6")
	}
	if total[0] == 0 || total[1] == 0 {
		return
	}
	for i := range groups {
		if groups[i].count("IPv4")*total[1] != groups[i].count("IPv6")*total[0] {
			f.Note(f.Place, Changed, "%s has other weights for its IPv4 servers than for its IPv6 ones, which one route cannot have: parts differ a little. To have them exactly, give each family a Gateway", f.title())
			return
		}
	}
}

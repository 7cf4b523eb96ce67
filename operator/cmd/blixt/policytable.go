// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// policyTable prints what policies restrict and have refused, what needs attention first, in
// at most so many rows; 0: all.
func policyTable(p printer, all []writer.PolicyStatus, most int) {
	if len(all) == 0 {
		return
	}
	order := slices.SortedStableFunc(slices.Values(all), func(a, b writer.PolicyStatus) int {
		if a.InForce != b.InForce {
			return map[bool]int{false: -1, true: 1}[a.InForce]
		}
		return cmp.Compare(refusedSum(&b), refusedSum(&a))
	})
	t, flush := newTable(p)
	t.printf("POLICY\tTARGET\tFRONTENDS\tNETWORKS\tSTATE\tREFUSED\n")
	for n := range order {
		if n == most && most > 0 && len(order) > most+1 {
			t.printf("and %d more\n", len(order)-n)
			break
		}
		s := &order[n]
		t.printf("%s\t%s\t%d\t%s\t%s\t%s\n", phrase.Printable(s.Policy), phrase.Printable(s.Target), s.Frontends, networks(s), policyState(s), refusedText(s))
	}
	flush()
}

func networks(s *writer.PolicyStatus) string {
	if s.Sources == 0 {
		return "-"
	}
	return fmt.Sprint(s.Sources)
}

func policyState(s *writer.PolicyStatus) string {
	switch {
	case !s.InForce:
		return "no room: not in force"
	case s.DryRun:
		return "dry run"
	}
	return "in force"
}

// refusedText counts what was refused by reason.
func refusedText(s *writer.PolicyStatus) string {
	var parts []string
	for _, why := range slices.Sorted(maps.Keys(s.Refused)) {
		if n := s.Refused[why]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d by %s", n, strings.ReplaceAll(why, "_", " ")))
		}
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}

func refusedSum(s *writer.PolicyStatus) (sum uint64) {
	for _, n := range s.Refused {
		sum += n
	}
	return sum
}

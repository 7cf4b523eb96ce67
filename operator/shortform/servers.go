// SPDX-License-Identifier: Apache-2.0

package shortform

import (
	"fmt"
	"slices"
)

// servers are the backends of one weight: a Service. A weight is that of a backendRef, and
// so of all servers of a Service together.
type servers struct {
	name     string
	weight   int // of each
	backends []backend
}

// servers returns those of the group, in the order of its flags. Backends of the same weight
// are one Service with the name of the first listener; of several weights, those of weight 1
// are.
func (g *group) servers() []servers {
	var all []servers
	for _, b := range g.backends {
		i := slices.IndexFunc(all, func(s servers) bool { return s.weight == b.weight })
		if i < 0 {
			i = len(all)
			all = append(all, servers{name: g.listens[0].name, weight: b.weight})
			if b.weight != 1 {
				all[i].name += fmt.Sprintf("-w%d", b.weight)
			}
		}
		all[i].backends = append(all[i].backends, b)
	}
	if len(all) == 1 {
		all[0].name = g.listens[0].name
	}
	return all
}

// count returns how many servers of a family there are.
func (s *servers) count(of string) (n int) {
	for _, b := range s.backends {
		if family(b.addr) == of {
			n++
		}
	}
	return n
}

// ref is a backendRef.
type ref struct {
	to     *servers
	count  int // of the servers that clients of the listener reach
	weight int
}

// refsOf returns the backendRefs of a listener: Services with servers that its clients can
// reach. Each server gets its weight.
func refsOf(l listen, all []servers) []ref {
	var refs []ref
	for i := range all {
		s := &all[i]
		n := max(s.count("IPv4"), s.count("IPv6")) // of both, the parts are alike
		if l.addr.IsValid() {
			n = s.count(family(l.addr))
		}
		if n > 0 {
			refs = append(refs, ref{s, n, s.weight * n})
		}
	}
	divisor := 0
	for _, r := range refs {
		divisor = gcd(divisor, r.weight)
	}
	if slices.ContainsFunc(refs, func(r ref) bool { return r.weight > maxWeight }) && divisor > 1 {
		for i := range refs {
			refs[i].weight /= divisor
		}
	}
	return refs
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

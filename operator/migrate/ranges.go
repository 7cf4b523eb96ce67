// SPDX-License-Identifier: Apache-2.0

package migrate

import corev1 "k8s.io/api/core/v1"

// portRanges tell which ranges have a port, by protocol. However many ranges there are, each
// port is taken once.
type portRanges map[corev1.Protocol]*takenPorts

type takenPorts struct {
	by [1 << 16]*Place
	// free is the next port from each on that nobody has, or one that is nearer to it.
	free [1<<16 + 1]int
}

// take gives the ports of a frontend to it, but those that another one has.
func (r portRanges) take(f *Frontend) {
	t := r[f.Protocol]
	if t == nil {
		t = &takenPorts{}
		for i := range t.free {
			t.free[i] = i
		}
		r[f.Protocol] = t
	}
	for p := t.next(int(f.Port)); p <= int(f.EndPort); p = t.next(p) {
		t.by[p], t.free[p] = &f.Place, p+1
	}
}

// next returns the next free port from p on.
func (t *takenPorts) next(p int) int {
	for t.free[p] != p {
		t.free[p] = t.free[t.free[p]]
		p = t.free[p]
	}
	return p
}

// among returns where a range is that has a port of a frontend.
func (r portRanges) among(f *Frontend) (Place, bool) {
	t := r[f.Protocol]
	if t == nil {
		return Place{}, false
	}
	for p := int(f.Port); p <= int(max(f.Port, f.EndPort)); p++ {
		if t.by[p] != nil {
			return *t.by[p], true
		}
	}
	return Place{}, false
}

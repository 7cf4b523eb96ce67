// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// span is what Blixt counted before and after something.
type span struct{ before, after lab.Status }

// of returns the rise of a counter.
func (s span) of(counter string) uint64 { return rise(s.before, s.after, counter) }

// counting does something and returns what Blixt counted of it.
func (w *world) counting(f func()) span {
	w.Helper()
	before := w.status()
	f()
	return span{before, w.status()}
}

// carried fails the test unless Blixt carried that many new flows of a
// frontend and at least so many bytes to its backends and back, and refused or
// dropped no packet but for reasons that are excepted.
func (w *world) carried(s span, network, addr string, flows, to, back int, except ...string) {
	w.Helper()
	f, g := w.frontend(s.before, network, addr), w.frontend(s.after, network, addr)
	if n := g.NewFlows - f.NewFlows; n != uint64(flows) {
		w.Errorf("Blixt counts %d new flows of %s/%s, want %d", n, addr, network, flows)
	}
	if a, b := g.Bytes-f.Bytes, g.ReplyBytes-f.ReplyBytes; a < uint64(to) || b < uint64(back) {
		w.Errorf("Blixt counts %d bytes to backends of %s/%s and %d from them, less than %d and %d", a, addr, network, b, to, back)
	}
	for name := range s.after.Counters {
		loss := strings.HasPrefix(name, "drop_") || strings.HasPrefix(name, "reject_")
		if n := s.of(name); loss && n > 0 && !slices.Contains(except, name) {
			w.Errorf("%s rose by %d", name, n)
		}
	}
}

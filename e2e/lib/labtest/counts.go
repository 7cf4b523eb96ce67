// SPDX-License-Identifier: Apache-2.0

package labtest

import (
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// Counted is Blixt's status before and after something.
type Counted struct{ Before, After lab.Status }

// Rise returns by how much a counter has risen.
func (s Counted) Rise(counter string) uint64 { return Rise(s.Before, s.After, counter) }

// Count calls f and returns Blixt's status before and after it.
func (w *World) Count(f func()) Counted {
	w.Helper()
	before := w.Status()
	f()
	return Counted{before, w.Status()}
}

// CheckCarried fails the test unless Blixt has counted so many new flows of a frontend,
// at least so many bytes to its backends and back, and no packet that it dropped or
// rejected, except by these counters.
func (w *World) CheckCarried(s Counted, network, addr string, flows, to, back int, except ...string) {
	w.Helper()
	f, g := w.Frontend(s.Before, network, addr), w.Frontend(s.After, network, addr)
	if n := g.NewFlows - f.NewFlows; n != uint64(flows) {
		w.Errorf("Blixt counts %d new flows of %s/%s, want %d", n, addr, network, flows)
	}
	if a, b := g.Bytes-f.Bytes, g.ReplyBytes-f.ReplyBytes; a < uint64(to) || b < uint64(back) {
		w.Errorf("Blixt counts %d bytes to backends of %s/%s and %d from them, less than %d and %d", a, addr, network, b, to, back)
	}
	for name := range s.After.Counters {
		loss := strings.HasPrefix(name, "drop_") || strings.HasPrefix(name, "reject_")
		if n := s.Rise(name); loss && n > 0 && !slices.Contains(except, name) {
			w.Errorf("%s rose by %d", name, n)
		}
	}
}

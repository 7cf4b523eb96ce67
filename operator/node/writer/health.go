// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"maps"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/health"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Health returns how flows of the backends that are judged have begun, in no order. A backend of several frontends
// is one, if the same policy judges it. nil: nobody is judged.
func (w *Writer) Health() []health.Observation {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.contents == nil {
		return nil
	}
	all := map[lb.EjectedKey]health.Observation{}
	for key, f := range w.contents.Frontends {
		if f.Source == nil || f.Source.Health == nil || f.Source.Health.Passive == nil {
			continue
		}
		for b, id := range f.IDs {
			h, ok := w.tables.BackendHealth(id)
			if !ok {
				return nil
			}
			k := lb.EjectedKey{Policy: f.Source.Health.Policy, Protocol: key.Protocol, Backend: b.Addr}
			o := all[k]
			o.Key = k
			o.Consecutive = max(o.Consecutive, h.Consecutive)
			o.Others = o.Others || h.Others != 0
			o.Failures += h.Failures
			o.Answers += h.Answers
			o.Unanswered += h.Unanswered
			o.Trial = max(o.Trial, h.Trial)
			all[k] = o
		}
	}
	return slices.Collect(maps.Values(all))
}

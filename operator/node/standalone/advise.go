// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"log/slog"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/node/advice"
)

// adviseEvery is how often to look for settings of the host that keep packets from
// backends: sysctls and firewall rules change without an event. Rules that are believed to
// hold, and do not, are read each inputEvery-th time. Tests change both.
var (
	adviseEvery = 5 * time.Second
	inputEvery  = 12
)

// advise warns of such settings, and takes each warning back when it is cured. What
// Blixt needs of the firewall, it makes again.
func (r *runner) advise(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-r.ready: // by then the backends are known
	}
	for i := 0; ; i++ {
		began := time.Now()
		r.reconciling.Lock()
		backends, opens := r.forwarded, r.opens
		r.lives()
		r.keepMasquerading()
		r.reconciling.Unlock()
		r.log.each("forwarding", slog.LevelWarn, advice.Forwarding(backends))
		// An error says nothing of the rules: what was said last holds.
		if dropped, err := advice.Firewall(ctx, backends); err == nil {
			r.log.each("firewall", slog.LevelWarn, dropped)
		}
		if i%inputEvery == 0 {
			if restricting, err := advice.Input(ctx, opens); err == nil {
				r.log.each("input", slog.LevelWarn, restricting)
			}
		}
		if !pause(ctx, max(adviseEvery-time.Since(began), adviseEvery/5)) {
			return
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// hostListensEvery is how often to look where the host itself listens.
const hostListensEvery = 10 * time.Second

// watchHostListens logs, once each, the listeners of our program whose port a socket of
// this host has: it gets their new connections.
func (r *runner) watchHostListens(ctx context.Context, w *writer.Writer) {
	for pause(ctx, hostListensEvery) {
		lines, err := hostListens(w)
		r.log.failure("read where the host listens", err)
		if err == nil {
			r.log.each("host listens", slog.LevelWarn, lines)
		}
	}
}

// hostListens returns a message for each frontend at which the host listens.
func hostListens(w *writer.Writer) (lines []string, err error) {
	sum, err := w.Summary()
	if err != nil || len(sum.HostListens) == 0 { // the status reads much more
		return nil, err
	}
	status, err := w.Status()
	for _, f := range status.Frontends {
		if f.HostListens {
			lines = append(lines, fmt.Sprintf("Gateway %s, listener %s: a socket of this host listens at %s, and gets its new connections. Stop it (ss -lntup names the process), or give the listener another port.",
				f.Gateway, f.Listener, f.Frontend))
		}
	}
	return lines, err
}

// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"fmt"
	"log/slog"

	"github.com/kubernetes-sigs/blixt/operator/node/tcpreset"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// openResets returns what tells both ends of a connection that its backend is gone,
// nil if the process may not, and a function that ends it.
func (r *runner) openResets() (send func(writer.Reset), end func()) {
	sender, err := tcpreset.New()
	if err != nil {
		r.log.once("resets", slog.LevelInfo, fmt.Sprintf("idle connections to an endpoint that is removed end when their client or server next sends something: CAP_NET_RAW is needed to tell both at once: %v", err))
		return nil, func() {}
	}
	r.log.once("resets", slog.LevelInfo, "")
	send = func(rst writer.Reset) {
		if err := sender.Send(rst.From, rst.To, rst.Seq); err != nil {
			slog.Debug("send RST", "from", rst.From, "to", rst.To, "error", err)
		}
	}
	return send, func() {
		if err := sender.Close(); err != nil {
			slog.Error("close raw sockets", "error", err)
		}
	}
}

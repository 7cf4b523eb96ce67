// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"github.com/kubernetes-sigs/blixt/operator/node/clock"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// ticks returns the time by the data plane's clock.
func ticks() uint32 { return uint32(clock.Monotonic() >> datapath.TickShift) }

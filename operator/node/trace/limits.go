// SPDX-License-Identifier: Apache-2.0

package trace

import "github.com/kubernetes-sigs/blixt/operator/node/datapath"

// Numbers of bpf/limits.h and its neighbours that are no enums there. A test compares them.
const (
	hostTCPTicks   = 7440 * 1_000_000_000 >> datapath.TickShift
	hostTicks      = 120 * 1_000_000_000 >> datapath.TickShift
	timeWaitTicks  = 60 * 1_000_000_000 >> datapath.TickShift
	handshakeTicks = 10 * 1_000_000_000 >> datapath.TickShift
	quietTicks     = 37 * 1_000_000_000 >> datapath.TickShift

	portTries     = 32
	freePortTries = 4

	privilegedMin    = 600
	privilegedEnd    = 1024
	privilegedSpread = (65535 - privilegedEnd) / (privilegedEnd - privilegedMin)

	scanLimit  = 65536
	ipv6MinMTU = 1280
	tailLen    = 42

	provenTicks = 60 * 1_000_000_000 >> datapath.TickShift
	floodTicks  = 10 * 1_000_000_000 >> datapath.TickShift

	silentTicks           = 3 * 1_000_000_000 >> datapath.TickShift
	silenceForgottenTicks = 10 * 1_000_000_000 >> datapath.TickShift
)

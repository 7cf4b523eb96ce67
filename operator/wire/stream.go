// SPDX-License-Identifier: Apache-2.0

package wire

import "time"

// Keepalives let each side detect within 15 seconds that the other is gone.
const (
	PingEvery   = 10 * time.Second
	PingTimeout = 5 * time.Second
)

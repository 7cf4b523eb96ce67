// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"testing"
)

// TestWithoutPeers: backends see the node, and the node's address reaches all of them.
func TestWithoutPeers(t *testing.T) {
	p := newPair(t, "none")
	p.A = p.prepare(p.a, p.served)
	p.check(p.A.Start())
	p.checkSeen("without --peer", false)
}

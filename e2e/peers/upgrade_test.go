// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// silentRevision is the last one whose program announces nothing.
const silentRevision = "2a647aeb1450a59181d528f1778d9a64060bbb60"

// TestUpgradeToAnnouncing takes over from a program without the maps for it: no connection
// notices.
func TestUpgradeToAnnouncing(t *testing.T) {
	p := newPair(t, "upgrade")
	args := p.A.Args
	_, p.A.Binary = lab.Revision(t, silentRevision)
	p.A.Args = []string{"--keep", "--node-name", p.a.Name, "--flows", "65536"} // it has no other flags of these
	p.check(p.B.Start())
	p.check(p.A.Start())
	load := p.startLoad()
	p.checkSeen("an earlier version serves", false)
	p.check(p.A.Stop())
	p.A.Binary, p.A.Args = labtest.Binary, args
	p.check(p.A.Start())
	p.awaitSeen(true)
	p.checkSeen("this version serves", true)
	load.awaitRound()
	load.stop("an earlier version is replaced")
}

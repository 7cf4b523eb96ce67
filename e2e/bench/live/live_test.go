// SPDX-License-Identifier: Apache-2.0

package live

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// TestPacketsTakeThePathsThatVariantsName measures nothing: it sends a few packets in
// each way, and Run fails unless all of them arrive, translated and counted as the
// variant's name says.
func TestPacketsTakeThePathsThatVariantsName(t *testing.T) {
	binary, err := lab.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	variants, err := Run(Options{Binary: binary, Rounds: 1, Burst: 500, Most: usual, Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	if len(variants) < 40 {
		t.Errorf("there are %d variants", len(variants))
	}
	for _, v := range variants {
		if len(v.Packets) != 1 {
			t.Errorf("%s was measured %d times", v.Name, len(v.Packets))
		}
	}
}

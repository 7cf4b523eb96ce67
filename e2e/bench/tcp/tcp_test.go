// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// TestConnectionsAreServedInAllWays judges no figure, only that there is one.
func TestConnectionsAreServedInAllWays(t *testing.T) {
	binary, err := lab.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	samples, err := Run(Options{Binary: binary, Rounds: 1, For: 50 * time.Millisecond, Log: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	if len(samples) != 7*len(kinds) {
		t.Errorf("there are %d figures", len(samples))
	}
	for _, s := range samples {
		if len(s.Rounds) != 1 || s.Rounds[0] <= 0 {
			t.Errorf("%s is %v", s.Name, s.Rounds)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package lb

import "testing"

// Hosts and clusters of all versions have the same seed of a secret.
func TestParseSeed(t *testing.T) {
	seed, err := ParseSeed(" MDEyMzQ1Njc4OWFiY2RlZg==\n")
	if want := uint64(0x9f9f5111f7b27a78); seed != want || err != nil {
		t.Errorf("%#x, %v, want %#x", seed, err, want)
	}
}

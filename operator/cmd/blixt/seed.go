// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
)

// readSeed returns the seed from a file that nobody but its owner may
// read. Without a path it is 0, so that all hosts agree.
// Errors never name the contents.
func readSeed(path string) (uint64, error) {
	if path == "" {
		return 0, nil
	}
	text, err := standalone.ReadSecret(path)
	if err != nil {
		return 0, fmt.Errorf("seed file: %w", err)
	}
	seed, err := lb.ParseSeed(text)
	if err != nil {
		return 0, fmt.Errorf("seed file %s: %w", path, err)
	}
	return seed, nil
}

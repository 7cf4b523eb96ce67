// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// readSeed returns the seed from a file that nobody but its owner may
// read. Without a path it is 0, so that all hosts agree.
// Errors never name the contents.
func readSeed(path string) (uint64, error) {
	if path == "" {
		return 0, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("open seed file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("stat seed file: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return 0, fmt.Errorf("seed file %s has mode %v: want a regular file of mode 0600", path, info.Mode())
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return 0, fmt.Errorf("read seed file: %w", err)
	}
	seed, err := lb.ParseSeed(string(text))
	if err != nil {
		return 0, fmt.Errorf("seed file %s: %w", path, err)
	}
	return seed, nil
}

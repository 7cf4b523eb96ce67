// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

// Package bpfman tests Blixt where bpfman loads the data plane.
package bpfman

import (
	"fmt"
	"os"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerOf); dir != "" {
		if err := write(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	labtest.Main(m)
}

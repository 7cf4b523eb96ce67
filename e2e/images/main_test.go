// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

// Package images tests the bytecode that bpfman loads: where it comes from, and what
// is refused.
package images

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

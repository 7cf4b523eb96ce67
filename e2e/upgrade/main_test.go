// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

// Package upgrade tests that one version of the data plane hands over to another
// without a loss.
package upgrade

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

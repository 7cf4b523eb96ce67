// SPDX-License-Identifier: Apache-2.0

// Package oracle compares Blixt with what it stands in for. Thousands of kinds of
// packets take the same way twice: through Blixt, and through a host that does the
// same with nftables. What comes out has to be the same, or one of the differences
// that this package lists with their reasons.
package oracle

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

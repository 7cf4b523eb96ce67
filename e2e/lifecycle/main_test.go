// SPDX-License-Identifier: Apache-2.0

// Package lifecycle tests what becomes of connections while backends, files and
// processes come and go.
package lifecycle

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

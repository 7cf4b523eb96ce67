// SPDX-License-Identifier: Apache-2.0

// Package traffic tests from the outside which packets Blixt carries, and how: real
// sockets in network namespaces, the real `blixt run` between them, and Blixt's own
// counters, which have to rise by what was sent.
package traffic

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

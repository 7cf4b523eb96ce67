// SPDX-License-Identifier: Apache-2.0

// Package peers tests two hosts that both run Blixt, without Kubernetes: whether the
// servers behind the second one see the clients that come in by the first.
package peers

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

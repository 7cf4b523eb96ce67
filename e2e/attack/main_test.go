// SPDX-License-Identifier: Apache-2.0

// Package attack tests that no packet of a stranger harms whoever uses Blixt: real
// sockets in network namespaces, the real `blixt run` between them, and an attacker who
// sends what he likes but sees no packet of others. Where it tells something, nftables
// in the same network shows that the attack would fail elsewhere.
package attack

import (
	"flag"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// long has floods last as long as an attacker would.
var long = flag.Bool("long", false, "attack for a minute, at a full rate")

func TestMain(m *testing.M) { labtest.Main(m) }

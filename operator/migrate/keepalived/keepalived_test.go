// SPDX-License-Identifier: Apache-2.0

package keepalived_test

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/migrate/keepalived"
	"github.com/kubernetes-sigs/blixt/operator/migrate/migratetest"
)

func TestCases(t *testing.T) { migratetest.Cases(t, migratetest.Host, keepalived.Read) }

// FuzzRead: whatever files say, reading them ends, and what comes out is valid.
func FuzzRead(f *testing.F) {
	migratetest.Seeds(f)
	f.Fuzz(func(t *testing.T, text []byte) { migratetest.Fuzzed(t, text, keepalived.Read) })
}

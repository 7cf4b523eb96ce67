// SPDX-License-Identifier: Apache-2.0

package services

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/migratetest"
)

// The first lines of testdata say whose documentation shows such Services; the text is our own.
func TestServices(t *testing.T) { migratetest.Cases(t, migrate.Options{}, Read) }

// SPDX-License-Identifier: Apache-2.0

package ipvs_test

import (
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/ipvs"
	"github.com/kubernetes-sigs/blixt/operator/migrate/migratetest"
)

func TestCases(t *testing.T) { migratetest.Cases(t, migratetest.Host, ipvs.Read) }

// A table without end is refused in a moment.
func TestTableWithoutEnd(t *testing.T) {
	files := []migrate.File{{Name: "a", Text: []byte(strings.Repeat("-C\n", 300_000))}, {Name: "b", Text: []byte(strings.Repeat("-a -t\n", 300_000))}}
	text, notes := migratetest.Written(t, migratetest.Host, ipvs.Read(files))
	if !strings.Contains(notes, "b:200001: lost: there are more than 500,000 commands: give fewer files\n") || strings.Contains(text, "kind:") {
		t.Errorf("notes: %.500s", notes)
	}
}

// FuzzRead: whatever files say, reading them ends, and what comes out is valid.
func FuzzRead(f *testing.F) {
	migratetest.Seeds(f)
	f.Fuzz(func(t *testing.T, text []byte) { migratetest.Fuzzed(t, text, ipvs.Read) })
}

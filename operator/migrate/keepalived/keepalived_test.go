// SPDX-License-Identifier: Apache-2.0

package keepalived_test

import (
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/keepalived"
	"github.com/kubernetes-sigs/blixt/operator/migrate/migratetest"
)

func TestCases(t *testing.T) { migratetest.Cases(t, migratetest.Host, keepalived.Read) }

// Files without end are refused in a moment, whatever is in them.
func TestFilesWithoutEnd(t *testing.T) {
	for name, text := range map[string]string{
		"servers":  "virtual_server 192.0.2.10 80 {\n" + strings.Repeat("real_server 10.0.0.1 80 {\n}\n", 200_000) + "}\n",
		"braces":   strings.Repeat("}", 1_100_000),
		"depth":    strings.Repeat("a {\n", 1_100_000),
		"no words": strings.Repeat("\n", 1_100_000),
	} {
		text, notes := migratetest.Written(t, migratetest.Host, keepalived.Read([]migrate.File{{Name: "a", Text: []byte(text)}}))
		if !strings.Contains(notes, "there are more than 1,000,000 words: give fewer files\n") || strings.Contains(text, "kind:") {
			t.Errorf("%s: notes: %.500s", name, notes)
		}
	}
}

// FuzzRead: whatever files say, reading them ends, and what comes out is valid.
func FuzzRead(f *testing.F) {
	migratetest.Seeds(f)
	f.Fuzz(func(t *testing.T, text []byte) { migratetest.Fuzzed(t, text, keepalived.Read) })
}

// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/document"
)

// What the quickstart for clusters says TestReadme runs, README says in the same words.
func TestQuickstartSaysWhatReadmeSays(t *testing.T) {
	const file = "docs/quickstart/cluster.md"
	readme, same := read(t, "README.md"), 0
	for _, b := range document.Parse(file, []byte(read(t, file))) {
		if !b.HasCommands() {
			continue
		}
		m, err := b.Mark()
		if err != nil || m.Tested != "TestReadme" {
			t.Errorf("%s is not run by TestReadme (%v)", b, err)
		} else if !strings.Contains(readme, b.Text) {
			t.Errorf("%s: README.md has no such block:\n%s", b, b.Text)
		}
		same++
	}
	if same < 4 {
		t.Errorf("found only %d blocks of commands", same)
	}
}

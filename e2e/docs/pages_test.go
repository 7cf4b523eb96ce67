// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"regexp"
	"strings"
	"testing"
)

var notName = regexp.MustCompile(`[^a-z0-9]+`)

// TestPages follows each document that has blocks to be run. With -update it writes what
// appears into the consoles where that differs; what stands for anything (…) has to be
// put back by hand.
func TestPages(t *testing.T) {
	all := pages(t)
	if len(all) < 9 {
		t.Fatalf("only %d documents have blocks that are run", len(all))
	}
	for page, blocks := range all {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			if err := follow(t, notName.ReplaceAllString(strings.ToLower(strings.TrimSuffix(page, ".md")), "-"), blocks); err != nil {
				t.Error(err)
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"bytes"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// Files that would take all memory are refused before they are parsed.
func TestFilesThatAreTooLarge(t *testing.T) {
	half := bytes.Repeat([]byte("- a\n"), maxBytes/8+1)
	plan := &migrate.Plan{}
	all := Read([]migrate.File{{Name: "a", Text: half}, {Name: "b", Text: half}}, plan)
	if all != nil || !plan.Broken || len(plan.Notes) != 1 || !strings.HasPrefix(plan.Notes[0].String(), "b: lost: there are more than 32 MiB") {
		t.Errorf("%d objects, notes %v", len(all), plan.Notes)
	}
}

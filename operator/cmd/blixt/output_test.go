// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

// A wrong format is refused before anything is asked, or read.
func TestUnknownFormatIsRefusedFirst(t *testing.T) {
	for _, args := range []string{"status --maps=/nonexistent", "doctor --kubeconfig=/nonexistent", "audit --kubeconfig=/nonexistent", "bytecode inspect /nonexistent"} {
		_, err := blixt(t, append(strings.Fields(args), "-o", "xml")...)
		if err == nil || !strings.Contains(err.Error(), "want table, json or yaml") {
			t.Errorf("blixt %s -o xml: got %v, want an error that says which formats there are", args, err)
		}
	}
}

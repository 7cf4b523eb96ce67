// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

// TestFlagWithoutItsCommand: people forget the command.
func TestFlagWithoutItsCommand(t *testing.T) {
	_, err := blixt(t, "--listen", "192.0.2.10:80", "--backend", "10.0.0.1:8080")
	if err == nil || !strings.Contains(err.Error(), "a command comes first, and these have the flag: ") || !strings.Contains(err.Error(), "blixt run") {
		t.Errorf("got %v, want the commands that have it", err)
	}
	if _, err := blixt(t, "run", "--lisen", "x"); err == nil || strings.Contains(err.Error(), "these have") {
		t.Errorf("a flag that no command has: %v", err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/bpf"
)

func TestVersionIsForPeopleAndPrograms(t *testing.T) {
	var b build
	if err := json.Unmarshal([]byte(mustBlixt(t, "version", "-o", "json")), &b); err != nil {
		t.Fatal(err)
	}
	if b.Layout != bpf.Layout || b.Version == "" || !strings.Contains(b.Platform, "/") {
		t.Errorf("%+v", b)
	}
	if text := mustBlixt(t, "version"); !strings.HasPrefix(text, "blixt "+b.Version+", map layout ") {
		t.Errorf("%q", text)
	}
}

func TestArchitectureOfAnObjectIsAMistake(t *testing.T) {
	if _, err := blixt(t, "bytecode", "inspect", "--arch", "mips"); err == nil || !strings.Contains(err.Error(), "leave it away") {
		t.Errorf("got %v, want what to do", err)
	}
}

// TestStatusNamesThoseThatAre: who mistypes a name wants to know which there are.
func TestStatusNamesThoseThatAre(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "web.state.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := blixt(t, "status", "--name", "wbe", "--run-dir", dir, "--bpffs", t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "there is no load balancer wbe on this host, but web") {
		t.Errorf("got %v, want the names", err)
	}
}

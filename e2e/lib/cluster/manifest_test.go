// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// TestKindsOfBpfman compares the CRDs of the chart with those of bpfman's release.
// They differ in the format of link ids alone.
func TestKindsOfBpfman(t *testing.T) {
	operator, err := module("github.com/bpfman/bpfman-operator")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(operator, "config/crd/bases/*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	read := func(file string) (object any) {
		t.Helper()
		text, err := os.ReadFile(file)
		if err == nil {
			err = yaml.Unmarshal(text, &object)
		}
		if err != nil {
			t.Fatal(err)
		}
		return object
	}
	changed := 0
	for _, file := range files {
		ours := strings.TrimPrefix(filepath.Base(file), "bpfman.io_")
		want := read(file)
		changed += widen(want)
		if diff := cmp.Diff(want, read(filepath.Join("../../../charts/blixt/files/bpfman", ours))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", ours, diff)
		}
	}
	if len(files) != 5 || changed != 15 {
		t.Errorf("%d kinds and %d link ids of 32 bits in the release, want 5 and 15", len(files), changed)
	}
}

// widen gives each linkId of a schema 64 bits, and returns how many it has changed.
func widen(schema any) (changed int) {
	switch v := schema.(type) {
	case []any:
		for _, item := range v {
			changed += widen(item)
		}
	case map[string]any:
		for name, item := range v {
			if id, ok := item.(map[string]any); ok && name == "linkId" && id["format"] == "int32" {
				id["format"] = "int64"
				changed++
			}
			changed += widen(item)
		}
	}
	return changed
}

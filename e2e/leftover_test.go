// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lab"
	"github.com/kubernetes-sigs/blixt/operator/loader"
)

// TestNextLabRemovesWhatAKilledOneLeft, and nothing of a lab whose name only
// begins like its own.
func TestNextLabRemovesWhatAKilledOneLeft(t *testing.T) {
	const name = "blixt-e2e-leftover"
	paths := func(name string) []string {
		return []string{
			filepath.Join(loader.DefaultRunDir, name+".bpfman.json"),
			filepath.Join(os.TempDir(), name+".123"),
			lab.Pins(name),
		}
	}
	if err := os.MkdirAll(loader.DefaultRunDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range append(paths(name), paths(name+"-other")...) {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(path)
	}
	l, err := lab.New(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for _, path := range paths(name) {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	for _, path := range paths(name + "-other") {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("another's is gone: %v", err)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

// Package golden compares what tests make with files that are committed.
package golden

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the files instead of comparing with them")

// Update reports whether files are to be written, for those that write them by
// other means than File.
func Update() bool { return *update }

// File compares a file with what a test has made; with -update it writes that.
func File(t testing.TB, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs; if what is got is right, go test -run='^%s$' -update writes it (-file +got):\n%s", path, t.Name(), diff)
	}
}

// Cases compares the output of each testdata/NAME.in.yaml with NAME.out.yaml. An output
// without an input fails the test, as nothing would check it.
func Cases(t *testing.T, render func(t *testing.T, in string) []byte) {
	t.Helper()
	const in, out = ".in.yaml", ".out.yaml"
	inputs, err := filepath.Glob("testdata/*" + in)
	if err != nil || len(inputs) == 0 {
		t.Fatalf("find testdata: %v, %d files", err, len(inputs))
	}
	outputs, err := filepath.Glob("testdata/*" + out)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range outputs {
		if _, err := os.Stat(strings.TrimSuffix(path, out) + in); err != nil {
			t.Errorf("%s has no input: %v", path, err)
		}
	}
	for _, path := range inputs {
		base := strings.TrimSuffix(path, in)
		t.Run(filepath.Base(base), func(t *testing.T) { File(t, base+out, render(t, path)) })
	}
}

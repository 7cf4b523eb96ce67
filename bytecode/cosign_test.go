// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The tests in the module apart, with its go.mod copied: versions that this
// module has raised since are raised in the copy, and nothing is written
// into the tree.
func TestCosignAgrees(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join("cosign", name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), content)
	}
	test := exec.Command("go", "test", "-C", "cosign", "-mod=mod", "-modfile="+filepath.Join(dir, "go.mod"), "./...")
	if text, err := test.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Layout1 is a revision of Blixt whose maps have layout 1.
const Layout1 = "242c6b004b023efe2bf0a9826f9604d1e5c2adc2"

// Revision returns the folder with the source of a revision of this repository, and
// blixt as built from it, once. It skips the test where git does not have it, as in a shallow
// clone that cannot be deepened.
func Revision(t *testing.T, revision string) (source, binary string) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	source, cache = t.TempDir(), filepath.Join(cache, "blixt")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		cache = t.TempDir() // the tests have no cache of their own
	}
	binary = filepath.Join(cache, "blixt-"+revision[:7])
	const get = `set -euo pipefail
git cat-file -e "$1" || git fetch --quiet --depth=1 origin "$1"
git -C "$(git rev-parse --show-toplevel)" archive "$1" | tar -x -C "$2"`
	if out, err := exec.Command("bash", "-c", get, "bash", revision, source).CombinedOutput(); err != nil {
		t.Skipf("git lacks: revision %s (git fetch --unshallow): %v\n%s", revision, err, out)
	}
	if _, err := os.Stat(binary); err == nil {
		return source, binary
	}
	const build = `set -euo pipefail
cd "$1" && go build -buildvcs=false -o "$2.$$" ./operator/cmd/blixt && mv "$2.$$" "$2"`
	if out, err := exec.Command("bash", "-c", build, "bash", source, binary).CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("build revision %s: %w\n%s", revision, err, out))
	}
	return source, binary
}

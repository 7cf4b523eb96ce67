// SPDX-License-Identifier: Apache-2.0

// Package umask is for tests that have another user than root run the test's
// own program, or read files that the test makes: whoever starts the tests may
// have a umask that forbids it.
package umask

import (
	"os"
	"syscall"
	"testing"
)

// Open lets every user run this program, and read the files that it makes until the
// test ends.
func Open(t testing.TB) {
	t.Helper()
	before := syscall.Umask(0o022)
	t.Cleanup(func() { syscall.Umask(before) })
	if err := os.Chmod("/proc/self/exe", 0o755); err != nil {
		t.Fatal(err)
	}
}

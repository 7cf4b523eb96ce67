// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ReadSecret returns the text of a file that nobody but its owner may access. Errors
// never name the contents.
func ReadSecret(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a named pipe must not block
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s has mode %v: want a regular file of mode 0600", path, info.Mode())
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s has mode %v, and others than its owner can access the secret: chmod 600 %s", path, info.Mode(), path)
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return string(text), nil
}

// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// imageNote is the file that says what a program was read from: a BPF file
// system holds no text.
func imagePath(runDir, name string) string { return filepath.Join(runDir, name+".image") }

// noteImage writes it, or removes it where the program is the one built in.
func writeImage(path, image string) error {
	if image == "" {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove note: %w", err)
		}
		return nil
	}
	if err := os.WriteFile(path, []byte(image+"\n"), 0o644); err != nil {
		return fmt.Errorf("write note: %w", err)
	}
	return nil
}

// Image returns what Load was told that the object of a name was read from,
// "": nothing.
func Image(runDir, name string) string {
	text, _ := os.ReadFile(imagePath(runDir, name)) // none: built in
	return strings.TrimSpace(string(text))
}

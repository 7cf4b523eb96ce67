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

// imagePath returns the file that names the image of a program: a BPF file system
// holds no text.
func imagePath(runDir, name string) string { return filepath.Join(runDir, name+".image") }

// writeImage writes that file, or removes it if the program is the one built in.
func writeImage(path, image string) error {
	if image == "" {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove name of image: %w", err)
		}
		return nil
	}
	if err := os.WriteFile(path, []byte(image+"\n"), 0o644); err != nil {
		return fmt.Errorf("write name of image: %w", err)
	}
	return nil
}

// Image returns Options.Image of the last Load of a name, "": it had none.
func Image(runDir, name string) string {
	text, _ := os.ReadFile(imagePath(runDir, name)) // none: built in
	return strings.TrimSpace(string(text))
}

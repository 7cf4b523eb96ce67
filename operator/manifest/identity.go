// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"io/fs"
	"syscall"
)

// identity distinguishes files of the same name.
func identity(info fs.FileInfo) any {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return [2]uint64{s.Dev, s.Ino}
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

// Package trim gives back memory that a process has needed to start.
package trim

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// AfterStart collects garbage, and takes the pages of the program's file out of the process:
// each of its packages has run to start, and most never run again. The file stays in the page
// cache, from which what is used again comes back, with its neighbours, by a fault of about a
// microsecond.
func AfterStart() error {
	debug.FreeOSMemory()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("find the program's file: %w", err)
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("read what is mapped: %w", err)
	}
	defer func() { _ = smaps.Close() }()
	all, err := unmodified(smaps, program)
	if err != nil {
		return fmt.Errorf("read what is mapped: %w", err)
	}
	for _, m := range all {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.begin, m.end-m.begin, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("give back pages of %s: %w", program, errno)
		}
	}
	return nil
}

// mapping is a range of addresses.
type mapping struct{ begin, end uintptr }

// unmodified returns the mappings of a file, of smaps as proc(5) describes it, that are what the
// file has: they cannot be written to, and never were.
func unmodified(smaps io.Reader, file string) (all []mapping, err error) {
	var m mapping
	candidate := false
	for lines := bufio.NewScanner(smaps); ; {
		if !lines.Scan() {
			return all, lines.Err()
		}
		// 00400000-01b25000 r-xp 00000000 fe:00 1234    /usr/bin/blixt
		line := strings.Fields(lines.Text())
		if len(line) >= 5 && strings.Contains(line[0], "-") {
			if _, err := fmt.Sscanf(line[0], "%x-%x", &m.begin, &m.end); err != nil {
				return nil, err
			}
			candidate = strings.HasPrefix(line[1], "r-") && strings.HasSuffix(line[1], "p") && strings.HasSuffix(lines.Text(), " "+file)
			continue
		}
		if candidate && strings.Join(line, " ") == "Anonymous: 0 kB" {
			all = append(all, m)
		}
	}
}

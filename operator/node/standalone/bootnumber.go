// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

/*
The boot number is in each message that this host sends. It tells peers which messages
are of an earlier boot, and so may be replayed: times in messages begin anew with each
boot. Numbers are in a circle of 2^16. A peer accepts the half ahead of the newest one
that it has heard, and rejects the half behind it. So the number must never go back, and
must go forward with each boot.

A file has the number and which boot it is of. The next boot gets the next number, or the
hour in which it began, in the same circle, if that is ahead. The hour is what keeps peers
listening to a host whose disk was replaced or set back to an earlier state; the file is
what keeps them listening to one whose clock went back. A host may boot once an hour for
years before the hour is behind, and then the next number is taken.

Without a file and with a clock that is clearly wrong the number is random. With that, or
with an hour alone, peers may not listen: see bootNumber.skip.
*/

// bootNumber is the number of a boot of this host.
type bootNumber struct {
	BootID string `json:"bootID"`
	Number uint16 `json:"number"`
	// Unsure reports that no earlier number was known.
	Unsure bool `json:"unsure,omitempty"`

	// paths are files to write to, the one that outlives a boot first.
	paths []string
}

// bootFile is the name of the file. It is one for all load balancers of a host, as peers
// know hosts.
const bootFile = "boot.json"

// earliestClock is a time that has passed. A clock that says less is wrong: a host
// without one of its own begins with 1970, or with the date of its image.
var earliestClock = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// openBootNumber returns the number of this boot. stateDir holds what outlives a boot, ""
// if nothing does, runDir what does not. The error tells why peers may not listen after
// the next boot; the number can be used.
func openBootNumber(stateDir, runDir string) (*bootNumber, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return nil, fmt.Errorf("read CLOCK_BOOTTIME: %w", err)
	}
	return newBootNumber(stateDir, runDir, strings.TrimSpace(string(id)), time.Now().Add(-time.Duration(up.Nano())))
}

// newBootNumber is openBootNumber for a boot that began at a time.
func newBootNumber(stateDir, runDir, id string, began time.Time) (*bootNumber, error) {
	var paths []string
	for _, dir := range []string{stateDir, runDir} {
		if dir != "" {
			paths = append(paths, filepath.Join(dir, bootFile))
		}
	}
	last, damaged := lastBootNumber(paths, id)
	b := &bootNumber{BootID: id, paths: paths}
	hour := uint16(began.Unix() / 3600)
	switch plausible := began.After(earliestClock); {
	case last == nil && plausible:
		b.Number, b.Unsure = hour, true
	case last == nil:
		var random [2]byte
		_, _ = rand.Read(random[:]) // it never fails
		b.Number, b.Unsure = binary.NativeEndian.Uint16(random[:]), true
	case last.BootID == id: // within a boot the clock may be set
		b.Number, b.Unsure = last.Number, last.Unsure
	default:
		b.Number = last.Number + 1
		if plausible && isAhead(hour, b.Number) {
			b.Number = hour
		}
	}
	return b, errors.Join(damaged, b.write())
}

// isAhead reports whether a number is later than another one in the circle.
func isAhead(number, than uint16) bool { return int16(number-than) > 0 }

// lastBootNumber returns what the files say: that of this boot, or else the newest one,
// nil: there is none. The second file is newer where the first cannot be written.
func lastBootNumber(paths []string, id string) (last *bootNumber, err error) {
	for _, path := range paths {
		b := &bootNumber{}
		text, failed := os.ReadFile(path)
		if errors.Is(failed, fs.ErrNotExist) {
			continue
		}
		if failed == nil {
			failed = json.Unmarshal(text, b)
		}
		if failed == nil && b.BootID == "" {
			failed = errors.New("it names no boot")
		}
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("a number of the last boot is not known: read %s: %w", path, failed))
			continue
		}
		if last == nil || last.BootID != id && (b.BootID == id || isAhead(b.Number, last.Number)) {
			last = b
		}
	}
	return last, err
}

// write writes the number to all of the paths: load balancers of this host with other
// directories share the last one.
func (b *bootNumber) write() error {
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	var failed error
	for _, path := range b.paths {
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = renameio.WriteFile(path, text, 0o644, renameio.WithTempDir(filepath.Dir(path)))
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("the number of this boot is not kept for the next one, which follows the clock then: %w: give a directory that can be written with --state-dir", err))
		}
	}
	return failed
}

// skip goes ahead by half of the circle less one: to a number that is heard by peers who
// rejected the number, as they had heard one that is ahead, and by those who knew it. Those
// who know an earlier one hear the next. So whoever goes on skipping, now and then, is heard
// by all in the end. A host that knows the number of its last boot needs none of this.
func (b *bootNumber) skip() error {
	b.Number += 1<<15 - 1
	return b.write()
}

// SPDX-License-Identifier: Apache-2.0

package trim

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestUnmodified(t *testing.T) {
	var smaps strings.Builder
	for _, m := range []struct {
		header    string
		anonymous int
	}{
		{"00400000-01b25000 r-xp 00000000 fe:00 12 /usr/bin/blixt", 0},
		{"01b26000-0337c000 r--p 01726000 fe:00 12 /usr/bin/blixt", 0},
		{"0337c000-03529000 rw-p 02f7c000 fe:00 12 /usr/bin/blixt", 188},
		{"0337d000-03529000 rw-p 02f7c000 fe:00 12 /usr/bin/blixt", 0},     // it may be written to at any time
		{"03600000-03601000 r--p 02f7c000 fe:00 12 /usr/bin/blixt", 4},     // a linker has filled it in, and made it read-only
		{"03700000-03701000 r--s 00000000 fe:00 12 /usr/bin/blixt", 0},     // somebody reads the file
		{"03800000-03801000 r-xp 00000000 fe:00 13 /opt/usr/bin/blixt", 0}, // another file
		{"7fff0000-7fff1000 r-xp 00000000 00:00 0 [vdso]", 0},
		{"c000000000-c002000000 rw-p 00000000 00:00 0 ", 18912},
	} {
		fmt.Fprintf(&smaps, "%s\nSize:              23704 kB\nAnonymous:         %5d kB\nAnonHugePages:         0 kB\nVmFlags: rd ex mr mw me\n", m.header, m.anonymous)
	}
	got, err := unmodified(strings.NewReader(smaps.String()), "/usr/bin/blixt")
	if want := []mapping{{0x400000, 0x1b25000}, {0x1b26000, 0x337c000}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %x, %v, want %x", got, err, want)
	}
}

// The process goes on, with less of its file in memory.
func TestAfterStart(t *testing.T) {
	resident := func() (kB int) {
		t.Helper()
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := bytes.Cut(status, []byte("RssFile:"))
		if _, err := fmt.Fscan(bytes.NewReader(after), &kB); err != nil {
			t.Fatal(err)
		}
		return kB
	}
	before := resident()
	if err := AfterStart(); err != nil {
		t.Fatal(err)
	}
	if after := resident(); after >= before {
		t.Errorf("%d kB of files are in memory, before %d kB", after, before)
	}
}

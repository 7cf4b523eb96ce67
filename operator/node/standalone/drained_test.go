// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

var someTime = time.Date(2026, 11, 29, 19, 0, 0, 0, time.UTC)

func byAlice() *lb.Drained { return &lb.Drained{Since: someTime, By: "alice"} }

func TestDrainedFileIsReadAsItWasWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "web.drained.json")
	all := []string{"10.0.0.2:0", "10.0.0.2:8080", "[2001:db8::2]:0", "[2001:db8::2]:8080"}
	err := ChangeDrained(t.Context(), path, func(set lb.DrainedSet) error {
		for _, at := range all {
			set[netip.MustParseAddrPort(at)] = byAlice()
		}
		return nil
	})
	set, failed := ReadDrained(path)
	if err != nil || failed != nil || len(set) != len(all) {
		t.Fatalf("%v, %v, %v", set, err, failed)
	}
	for _, at := range all {
		if d := set[netip.MustParseAddrPort(at)]; d == nil || *d != *byAlice() {
			t.Errorf("%s: %v", at, d)
		}
	}
	// A change that fails changes nothing, and the last that goes takes the file along.
	mine := errors.New("mine")
	if err := ChangeDrained(t.Context(), path, func(set lb.DrainedSet) error { clear(set); return mine }); !errors.Is(err, mine) {
		t.Error(err)
	}
	if again, err := ReadDrained(path); err != nil || len(again) != len(all) {
		t.Errorf("%v, %v", again, err)
	}
	if err := ChangeDrained(t.Context(), path, func(set lb.DrainedSet) error { clear(set); return nil }); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the file is left: %v", err)
	}
}

func TestDrainedFileThatNobodyMeant(t *testing.T) {
	entry := `{"address": "10.0.0.2", "since": "2026-11-29T19:00:00Z", "by": "x"}`
	many := strings.Repeat(entry+",", mostDrained)
	for name, c := range map[string]struct{ text, want string }{
		"nothing":           {"", "no JSON"},
		"half":              {`{"drained": [`, "no JSON"},
		"another member":    {`{"drain": []}`, `no member "drained"`},
		"null":              {`{"drained": null}`, `no member "drained"`},
		"two objects":       {`{"drained": []}{}`, "something follows"},
		"no address":        {`{"drained": [{"since": "2026-11-29T19:00:00Z", "by": "x"}]}`, `"": want an address`},
		"a name":            {strings.Replace(`{"drained": [`+entry+`]}`, "10.0.0.2", "web", 1), `"web": want an address`},
		"port 0":            {strings.Replace(`{"drained": [`+entry+`]}`, "10.0.0.2", "10.0.0.2:0", 1), "want an address"},
		"a zone":            {strings.Replace(`{"drained": [`+entry+`]}`, "10.0.0.2", "fe80::1%eth0", 1), "can be no backend"},
		"every address":     {strings.Replace(`{"drained": [`+entry+`]}`, "10.0.0.2", "0.0.0.0", 1), "can be no backend"},
		"no time":           {`{"drained": [{"address": "10.0.0.2", "by": "x"}]}`, "want since"},
		"nobody":            {strings.Replace(`{"drained": [`+entry+`]}`, `"x"`, `""`, 1), "want since"},
		"a user of a novel": {strings.Replace(`{"drained": [`+entry+`]}`, `"x"`, fmt.Sprintf("%q", strings.Repeat("x", 200)), 1), "want since"},
		"too many":          {`{"drained": [` + many + entry + `]}`, "at most 4096"},
	} {
		path := filepath.Join(t.TempDir(), "web.drained.json")
		if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := ReadDrained(path)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		// Nobody overwrites what somebody may still want to mend.
		if err := ChangeDrained(t.Context(), path, func(lb.DrainedSet) error { t.Error("changed"); return nil }); err == nil {
			t.Errorf("%s: changed", name)
		}
	}
}

func FuzzDrainedFile(f *testing.F) {
	f.Add([]byte(`{"drained": [{"address": "10.0.0.2", "since": "2026-11-29T19:00:00Z", "by": "x"}]}`))
	f.Add([]byte(`{"drained": [{"address": "[::ffff:10.0.0.2]:80", "since": "2026-11-29T19:00:00+01:00", "by": "x"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := parseDrained(text)
		if err != nil {
			return
		}
		again, err := formatDrained(set)
		if err != nil {
			t.Fatal(err)
		}
		same, err := parseDrained(again)
		if err != nil || len(same) != len(set) {
			t.Fatalf("%v: %v: %v", set, same, err)
		}
		for at, d := range set {
			if o := same[at]; o == nil || !o.Since.Equal(d.Since) || at.Addr().Is4In6() {
				t.Fatalf("%v: %v and %v", at, d, o)
			}
		}
	})
}

// Many who change the file at once lose nothing of each other.
func TestChangesAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.drained.json")
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			err := ChangeDrained(t.Context(), path, func(set lb.DrainedSet) error {
				set[netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 0)] = byAlice()
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if set, err := ReadDrained(path); err != nil || len(set) != 20 {
		t.Errorf("%d of 20: %v", len(set), err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	lockHeld(t, filepath.Dir(path), func() {
		if err := ChangeDrained(ended, path, func(lb.DrainedSet) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("while another one has the lock: %v", err)
		}
	})
}

// What somebody writes is seen, and what is broken leaves what was good in force.
func TestLookAtDrained(t *testing.T) {
	h := byHand{path: filepath.Join(t.TempDir(), "web.drained.json")}
	look := func(when string, changed bool, err bool, drained int) {
		t.Helper()
		is, failed := h.look()
		if is != changed || (failed != nil) != err || len(h.set) != drained {
			t.Errorf("%s: changed %v, %v, drained %v", when, is, failed, h.set)
		}
	}
	write := func(text string) {
		if err := os.WriteFile(h.path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	look("at first", true, false, 0)
	look("again", false, false, 0)
	write(`{"drained": [{"address": "10.0.0.2", "since": "2026-11-29T19:00:00Z", "by": "x"}]}`)
	look("drained", true, false, 1)
	look("again", false, false, 1)
	write(`{"drained`)
	look("broken", true, true, 1)
	look("still", false, false, 1)
	write(`{"drained": []}`)
	look("mended", true, false, 0)
	if err := os.Remove(h.path); err != nil {
		t.Fatal(err)
	}
	look("gone", true, false, 0)
}

func TestWhatIsSaidOfDrains(t *testing.T) {
	one, two := netip.MustParseAddrPort("10.0.0.1:8080"), netip.MustParseAddrPort("10.0.0.2:8080")
	set := lb.DrainedSet{netip.AddrPortFrom(one.Addr(), 0): byAlice(), netip.MustParseAddrPort("10.0.0.9:80"): byAlice()}
	frontend := func(reject uint64, weight uint64) *lb.State {
		return &lb.State{Frontends: []lb.Frontend{{
			Addr: netip.MustParseAddr("192.0.2.1"), Protocol: lb.TCP, Port: 80, Reject: reject,
			Backends: []lb.Backend{{Addr: one, Service: "default/web", Drained: set.Of(one)}, {Addr: two, Service: "default/web", Weight: weight}},
		}}}
	}
	unknown, refused := judgeDrained(set, frontend(0, 1))
	if len(unknown) != 1 || !strings.HasPrefix(unknown[0], "10.0.0.9:80 is drained by alice since ") || refused != "" {
		t.Errorf("%q, %q", unknown, refused)
	}
	if _, refused = judgeDrained(set, frontend(1, 0)); !strings.Contains(refused, "no backend of 192.0.2.1:80/tcp serves") {
		t.Errorf("%q", refused)
	}
}

func TestDrainedFileOutlivesABoot(t *testing.T) {
	for runDir, want := range map[string]string{
		"/run/blixt": "/var/lib/blixt/web.drained.json", "/run/blixt/": "/var/lib/blixt/web.drained.json", "/srv/x": "/srv/x/web.drained.json",
	} {
		if got := DrainedFile(runDir, "web"); got != want {
			t.Errorf("%s: %s", runDir, got)
		}
	}
}

// lockHeld calls f while another one changes a file of a directory.
func lockHeld(t *testing.T, dir string, f func()) {
	t.Helper()
	lock, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	f()
}

// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Keys of the ids 0, 1 and 3.
const (
	key0 = "00112233445566778899aabbccddeeff"
	key1 = "40112233445566778899aabbccddeeff"
	key3 = "ff112233445566778899aabbccddeeff"
)

func TestParsePeerKeys(t *testing.T) {
	want := func(text string, sign int, ids ...int) {
		t.Helper()
		keys, err := ParsePeerKeys(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			return
		}
		var got []int
		for id, k := range keys.Keys {
			if k != (PeerKey{}) {
				got = append(got, id)
			}
		}
		if keys.Sign != sign || !slices.Equal(got, ids) {
			t.Errorf("%q: keys %v, of which %d signs; want %v and %d", text, got, keys.Sign, ids, sign)
		}
	}
	want(key0, 0, 0)
	want(key3+"\n", 3, 3)
	want("# of 2026\n\n  "+key1+" # signs\r\n"+key0+"\n"+key3+"\n", 1, 0, 1, 3)
	want(strings.ToUpper(key3), 3, 3)
	raw := [16]byte{0x80, 1}
	want(base64.StdEncoding.EncodeToString(raw[:]), 2, 2)

	for name, text := range map[string]string{
		"nothing":                "",
		"a comment alone":        "# " + key0,
		"half a key":             key0[:16],
		"a key less a digit":     key0[:31],
		"half a key in base64":   base64.StdEncoding.EncodeToString(raw[:])[:20],
		"a key of 32 bytes":      key0 + key1,
		"two keys in a line":     key0 + " " + key1,
		"zeros":                  strings.Repeat("0", 32),
		"a second line of words": key0 + "\nnot a key",
		"keys of the same id":    key0 + "\n" + "3" + key0[1:],
		"the same key":           key0 + "\n" + key0,
		"the bytes themselves":   "0123456789abcdef",
	} {
		keys, err := ParsePeerKeys(text)
		switch {
		case err == nil:
			t.Errorf("%s is taken for keys %v", name, keys)
		case strings.Contains(err.Error(), key0[8:]):
			t.Errorf("%s: the error tells the key: %v", name, err)
		}
	}
}

func TestNewPeerKeyHasAnIDOfItsOwn(t *testing.T) {
	var keys PeerKeys
	for range maxPeerKeys {
		k, err := NewPeerKey(keys)
		must(t, err)
		if keys.Keys[k.ID()] != (PeerKey{}) {
			t.Fatalf("key %d is there already", k.ID())
		}
		keys.Keys[k.ID()] = k
		again, err := ParsePeerKeys(k.String())
		must(t, err)
		if again.Keys[k.ID()] != k {
			t.Error("the printed key is read as another one")
		}
	}
	if _, err := NewPeerKey(keys); err == nil {
		t.Error("there is a fifth key")
	}
}

// TestKeyFileIsFollowed: each step is one that an editor, a person or a mounted Secret
// may take.
func TestKeyFileIsFollowed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		must(t, os.RemoveAll(path))
		must(t, os.WriteFile(path, []byte(text), mode))
		must(t, os.Chmod(path, mode)) // whatever the umask
	}
	write(key0, 0o600)
	f, err := openKeyFile(path)
	must(t, err)
	if changed, err := f.look(); changed || err != nil {
		t.Fatalf("nothing has happened: %v, %v", changed, err)
	}
	// changes looks twice, and then a third time.
	changes := func(what string, sign int) {
		t.Helper()
		if changed, err := f.look(); changed || err != nil {
			t.Errorf("%s: %v, %v at the first look, when it may be half written", what, changed, err)
		}
		if changed, err := f.look(); !changed || err != nil {
			t.Errorf("%s: %v, %v", what, changed, err)
		}
		if changed, err := f.look(); changed || err != nil || f.keys.Sign != sign {
			t.Errorf("%s: then %v, %v, and key %d signs, want %d", what, changed, err, f.keys.Sign, sign)
		}
	}
	write(key0+"\n"+key1, 0o600)
	changes("a second key", 0)
	write(key1+"\n"+key0, 0o400)
	changes("the second key signs", 1)

	good := f.keys
	for what, do := range map[string]func(){
		"empty":             func() { write("", 0o600) },
		"half written":      func() { write(key1+"\n"+key0[:20], 0o600) },
		"world-readable":    func() { write(key3, 0o644) },
		"group-readable":    func() { write(key3, 0o640) },
		"a directory":       func() { must(t, os.RemoveAll(path)); must(t, os.Mkdir(path, 0o700)) },
		"gone":              func() { must(t, os.RemoveAll(path)) },
		"a link to nowhere": func() { must(t, os.RemoveAll(path)); must(t, os.Symlink("none", path)) },
	} {
		do()
		_, _ = f.look()
		changed, err := f.look()
		if changed || err == nil || f.keys != good {
			t.Errorf("%s: %v, %v, keys %v", what, changed, err, f.keys)
		} else if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "last good keys") {
			t.Errorf("%s: the message is %q", what, err)
		}
	}

	// A Secret that is mounted: the file is a link into ..data, itself a link that is
	// exchanged.
	version := func(name, text string) {
		t.Helper()
		must(t, os.Mkdir(filepath.Join(dir, name), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name, "keys"), []byte(text), 0o600))
		must(t, os.Symlink(name, filepath.Join(dir, "..next")))
		must(t, os.Rename(filepath.Join(dir, "..next"), filepath.Join(dir, "..data")))
	}
	must(t, os.RemoveAll(path))
	must(t, os.Symlink(filepath.Join("..data", "keys"), path))
	version("..1", key3)
	changes("a mounted Secret", 3)
	version("..2", key0)
	changes("a mounted Secret that changes", 0)

	// What changes at each look is being written.
	for i := range 5 {
		write(strings.Repeat(key1+"\n", 1)+strings.Repeat("#", i+1), 0o600)
		if changed, err := f.look(); changed || err != nil {
			t.Errorf("being written: %v, %v", changed, err)
		}
	}
}

func TestOpenKeyFileRefusesWhatOthersMayRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	must(t, os.WriteFile(path, []byte(key0), 0o600))
	must(t, os.Chmod(path, 0o604))
	if _, err := openKeyFile(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("everybody may read it: %v", err)
	}
	if _, err := openKeyFile(filepath.Dir(path)); err == nil || !strings.Contains(err.Error(), "regular file") {
		t.Errorf("a directory: %v", err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/kubernetes-sigs/blixt/bpf"
)

// PeerKey is a key with which hosts sign what they announce to each other.
type PeerKey [16]byte

// maxPeerKeys is how many a host has at once.
const maxPeerKeys = int(bpf.BlixtLimitMAX_ANNOUNCE_KEYS)

// ID returns the number by which a message names its key: the upper two bits. So it does
// not depend on a key's place in a file, which differs between hosts while people rotate
// keys.
func (k PeerKey) ID() int { return int(k[0] >> 6) }

// String returns 32 hexadecimal digits. Of these the first tells the ID.
func (k PeerKey) String() string { return hex.EncodeToString(k[:]) }

// PeerKeys are the keys of a host, by ID; zero: there is none. Sign is the ID of the one
// that it signs with. It accepts all.
type PeerKeys struct {
	Keys [maxPeerKeys]PeerKey
	Sign int
}

// ParsePeerKeys reads a key from each line: 32 hexadecimal digits, or 16 bytes in base64.
// The first one signs. Empty lines do not count, nor what follows a #. Errors never name
// the contents.
func ParsePeerKeys(text string) (keys PeerKeys, err error) {
	lines := [maxPeerKeys]int{} // by ID, of the key
	first := true
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		raw, err := hex.DecodeString(line)
		if err != nil || len(raw) != len(PeerKey{}) {
			raw, err = base64.StdEncoding.DecodeString(line)
		}
		if err != nil || len(raw) != len(PeerKey{}) {
			return PeerKeys{}, fmt.Errorf("line %d is no key: want 32 hexadecimal digits, as blixt peer-key prints them, or 16 bytes in base64", i+1)
		}
		key := PeerKey(raw)
		if key == (PeerKey{}) {
			return PeerKeys{}, fmt.Errorf("line %d: a key of zeros alone is none: make one with blixt peer-key", i+1)
		}
		id := key.ID()
		if lines[id] != 0 {
			return PeerKeys{}, fmt.Errorf("the keys of lines %d and %d have the same id, the upper two bits: make a key for this file with blixt peer-key FILE", lines[id], i+1)
		}
		if first {
			keys.Sign, first = id, false
		}
		keys.Keys[id], lines[id] = key, i+1
	}
	if first {
		return PeerKeys{}, errors.New("it has no key: make one with blixt peer-key")
	}
	return keys, nil
}

// NewPeerKey returns a random key whose ID none of the others has. It returns an error if
// all IDs are taken.
func NewPeerKey(others PeerKeys) (key PeerKey, err error) {
	for id, other := range others.Keys {
		if other != (PeerKey{}) {
			continue
		}
		for key == (PeerKey{}) || key.ID() != id {
			_, _ = rand.Read(key[:]) // it never fails
		}
		return key, nil
	}
	return key, fmt.Errorf("there are %d keys already: remove the ones that no host signs with any more", maxPeerKeys)
}

// keyFile follows a file of keys.
type keyFile struct {
	path string
	// seen is the text of the last look. Half of a file may be a file of fewer keys, so
	// a text counts when two looks in a row have found it.
	seen string
	keys PeerKeys
}

// openKeyFile reads a file of keys for the first time.
func openKeyFile(path string) (*keyFile, error) {
	f := &keyFile{path: path}
	keys, text, err := readPeerKeys(path)
	f.keys, f.seen = keys, text
	return f, err
}

// ReadPeerKeys reads a file of keys.
func ReadPeerKeys(path string) (PeerKeys, error) {
	keys, _, err := readPeerKeys(path)
	return keys, err
}

func readPeerKeys(path string) (keys PeerKeys, text string, err error) {
	text, err = ReadSecret(path)
	if err != nil {
		return PeerKeys{}, "", fmt.Errorf("key file: %w", err)
	}
	if keys, err = ParsePeerKeys(text); err != nil {
		err = fmt.Errorf("key file %s: %w", path, err)
	}
	return keys, text, err
}

// look reads the file again, and reports whether the keys have changed. With an error they
// stay what they were.
func (f *keyFile) look() (changed bool, err error) {
	keys, text, err := readPeerKeys(f.path)
	settled := text == f.seen
	f.seen = text
	if !settled {
		return false, nil // it may be half written
	}
	if err != nil {
		return false, fmt.Errorf("the last good keys stay in force: %w", err)
	}
	changed = keys != f.keys
	f.keys = keys
	return changed, nil
}

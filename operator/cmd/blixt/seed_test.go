// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadSeed(t *testing.T) {
	if seed, err := readSeed(""); seed != 0 || err != nil {
		t.Errorf("no file: %d, %v", seed, err)
	}
	write := func(text string, mode os.FileMode) string {
		path := filepath.Join(t.TempDir(), "seed")
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const good = "MDEyMzQ1Njc4OWFiY2RlZg=="
	a, err := readSeed(write(good+"\n", 0o600))
	if err != nil || a == 0 {
		t.Fatal(a, err)
	}
	if b, err := readSeed(write(good, 0o400)); b != a || err != nil {
		t.Errorf("the same secret gives %d and %d, %v", a, b, err)
	}
	if b, err := readSeed(write("MDEyMzQ1Njc4OWFiY2RlZw==", 0o600)); b == a || err != nil {
		t.Errorf("another secret gives the same seed, %v", err)
	}
	for name, path := range map[string]string{
		"everybody may read it": write(good, 0o644),
		"short":                 write("c2hvcnQ=", 0o600),
		"not base64":            write("0123456789abcdef!", 0o600),
		"empty":                 write("", 0o600),
		"directory":             t.TempDir(),
		"missing":               filepath.Join(t.TempDir(), "none"),
	} {
		if _, err := readSeed(path); err == nil || strings.Contains(err.Error(), "c2hvcnQ") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

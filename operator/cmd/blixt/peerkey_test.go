// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
)

// TestPeerKeyFitsTheFile adds keys to a file as the command's help says.
func TestPeerKeyFitsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	run := func(args ...string) (string, error) {
		c := command()
		var out bytes.Buffer
		c.SetOut(&out)
		c.SetArgs(append([]string{"peer-key"}, args...))
		err := c.Execute()
		return out.String(), err
	}
	text := ""
	for n := range 4 {
		var args []string
		if n > 0 {
			args = []string{path}
		}
		key, err := run(args...)
		if err != nil {
			t.Fatal(err)
		}
		text += key
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := standalone.ReadPeerKeys(path); err != nil {
			t.Fatalf("with %d keys: %v", n+1, err)
		}
	}
	if out, err := run(path); err == nil || out != "" {
		t.Errorf("a fifth key is %q, error %v", out, err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := run(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("everybody may read the file: %v", err)
	}
}

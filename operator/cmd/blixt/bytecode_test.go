// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/bytecode"
)

// blixt runs a command line and returns what it prints.
func blixt(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := command()
	c.SetOut(&out)
	c.SetErr(io.Discard)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func mustBlixt(t *testing.T, args ...string) string {
	t.Helper()
	out, err := blixt(t, args...)
	if err != nil {
		t.Fatalf("blixt %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// keyFiles writes a plain key pair, as openssl does.
func keyFiles(t *testing.T) (private, public string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, public = filepath.Join(t.TempDir(), "a.key"), filepath.Join(t.TempDir(), "a.pub")
	for path, encode := range map[string]func() (string, []byte, error){
		private: func() (string, []byte, error) {
			der, err := x509.MarshalECPrivateKey(key)
			return "EC PRIVATE KEY", der, err
		},
		public: func() (string, []byte, error) {
			der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
			return "PUBLIC KEY", der, err
		},
	} {
		kind, der, err := encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return private, public
}

func TestBytecodeFromBuildToVerify(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	server := httptest.NewTLSServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true)))
	defer server.Close()
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	image := strings.TrimPrefix(server.URL, "https://") + "/blixt/bytecode:v1"
	private, public := keyFiles(t)
	_, otherKey := keyFiles(t)
	out, pulled := filepath.Join(dir, "out"), filepath.Join(dir, "pulled")

	printed := mustBlixt(t, "bytecode", "build", "-d", out, "--flows", "4096", "--version", "v1", "--revision", "abc")
	digest := regexp.MustCompile(`sha256:[0-9a-f]{64}`).FindString(printed)
	if printed != out+"@"+digest+"\n" {
		t.Fatalf("build printed %q", printed)
	}
	for _, source := range []string{out, ""} {
		if _, err := blixt(t, "run", "-f", dir, "--bytecode", source, "--verify-key", public); err == nil || !strings.Contains(err.Error(), "is not signed") {
			t.Errorf("run of %q, which is not signed: %v", source, err)
		}
	}
	if printed = mustBlixt(t, "bytecode", "push", out, image, "--ca-file", ca); !strings.HasSuffix(printed, "/blixt/bytecode@"+digest+"\n") {
		t.Errorf("push printed %q, want the image at %s", printed, digest)
	}
	if _, err := blixt(t, "bytecode", "verify", image, "--key", public, "--ca-file", ca); err == nil || !strings.Contains(err.Error(), "is not signed") {
		t.Errorf("verify before sign: %v", err)
	}
	mustBlixt(t, "bytecode", "sign", image, "--key", private, "--ca-file", ca)
	if printed = mustBlixt(t, "bytecode", "verify", image, "--key", public, "--ca-file", ca); strings.Count(printed, public) != 2 {
		t.Errorf("verify printed %q, want %s for both signatures", printed, public)
	}
	if _, err := blixt(t, "bytecode", "verify", image, "--key", otherKey, "--ca-file", ca); err == nil {
		t.Error("verified by another key")
	}
	mustBlixt(t, "bytecode", "pull", image, "-d", pulled, "--verify-key", public, "--ca-file", ca)
	for _, source := range []string{pulled, image} {
		var im bytecode.Image
		if err := json.Unmarshal([]byte(mustBlixt(t, "bytecode", "inspect", source, "-o", "json", "--ca-file", ca)), &im); err != nil {
			t.Fatal(err)
		}
		sizes := map[string]uint32{}
		for _, m := range im.Object.Maps {
			sizes[m.Name] = m.MaxEntries
		}
		if im.Digest != digest || sizes["flows"] != 8192 || len(im.Signatures) != 2 {
			t.Errorf("%s: digest %s, %d entries in flows, %d signatures", source, im.Digest, sizes["flows"], len(im.Signatures))
		}
		table := mustBlixt(t, "bytecode", "inspect", source, "--ca-file", ca)
		for _, text := range []string{digest, "blixt_layout_2", "TCX", "linux/arm64", "not verified", "Revision"} {
			if !strings.Contains(table, text) {
				t.Errorf("%s: no %q in\n%s", source, text, table)
			}
		}
	}
}

func TestProgressEndsItsLine(t *testing.T) {
	var out strings.Builder
	m := &meter{out: &out, what: "pushing", started: time.Now()}
	m.add(1500)
	m.end(nil)
	m.add(1) // from a goroutine that comes late
	if got := out.String(); !strings.HasPrefix(got, "\r\x1b[Kpushing: 1.5 kB\r\x1b[Kpushing: 1.5 kB in ") || !strings.HasSuffix(got, "\n") {
		t.Errorf("shown %q", got)
	}
	out.Reset()
	m.end(io.EOF)
	(&meter{out: &out}).end(io.EOF)
	if got := out.String(); got != "\r\x1b[K" {
		t.Errorf("after an error %q", got)
	}
}

func TestEveryCommandHasHelpWithExamples(t *testing.T) {
	for _, c := range bytecodeCommand().Commands() {
		for name, text := range map[string]string{"short": c.Short, "long": c.Long, "example": c.Example} {
			if text == "" {
				t.Errorf("%s has no %s help", c.Name(), name)
			}
		}
		for line := range strings.Lines(c.Example) {
			checkExample(t, strings.Fields(line))
		}
	}
}

// checkExample wants the flags of an example to be there.
func checkExample(t *testing.T, words []string) {
	t.Helper()
	found, _, err := command().Find(words[1:])
	if err != nil || found.Runnable() && found.Parent() == nil {
		t.Errorf("example %q: %v", words, err)
		return
	}
	for _, word := range words {
		if strings.HasPrefix(word, "--") && !hasFlag(found, word[2:]) {
			t.Errorf("example %q: no flag %s", words, word)
		}
	}
}

func hasFlag(c *cobra.Command, name string) bool {
	name, _, _ = strings.Cut(name, "=")
	return c.Flags().Lookup(name) != nil
}

// The key signs, is nobody else's to read, and does not replace another.
func TestKeygen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blixt.key")
	public, err := blixt(t, "bytecode", "keygen", path)
	if err != nil {
		t.Fatal(err)
	}
	key, err := bytecode.ReadPrivateKey(path, nil)
	if err != nil || key.Public.PEM != public {
		t.Errorf("printed %q (%v), want the public half", public, err)
	}
	if _, err := bytecode.ParsePublicKey("", []byte(public)); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", info.Mode(), err)
	}
	before, _ := os.ReadFile(path)
	if _, err := blixt(t, "bytecode", "keygen", path); err == nil {
		t.Error("it has replaced a key")
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the key has changed")
	}
}

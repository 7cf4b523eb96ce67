// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// What a tag names is written once, and a tag that moves is found.
func TestDigests(t *testing.T) {
	server := httptest.NewServer(registry.New())
	t.Cleanup(server.Close)
	repository := strings.TrimPrefix(server.URL, "http://") + "/bpfman/bpfman"
	push := func() string {
		image, err := random.Index(100, 1, 2)
		if err != nil {
			t.Fatal(err)
		}
		ref, err := name.ParseReference(repository + ":v0.6.0")
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.WriteIndex(ref, image); err != nil {
			t.Fatal(err)
		}
		digest, err := image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return digest.String()
	}
	file := filepath.Join(t.TempDir(), "values.yaml")
	before := "bpfman:\n  images:\n    daemon:\n      repository: " + repository + "\n      tag: v0.6.0\n      digest: \"\"\n"
	if err := os.WriteFile(file, []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) error { return runDigests(t.Context(), append(args, "-values", file)) }
	expect := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("%v: got\n%s\nwant\n%s", err, got, want)
		}
	}

	if err := run(); err == nil || !strings.Contains(err.Error(), "bpfman.images.daemon: "+repository+":v0.6.0") {
		t.Errorf("no such image: %v", err)
	}
	expect(before)
	first := push()
	if err := run("-check"); err == nil || !strings.Contains(err.Error(), "run make bpfman-digests") {
		t.Errorf("no digest: %v", err)
	}
	expect(before)
	if err := run(); err != nil {
		t.Fatal(err)
	}
	expect(strings.Replace(before, `""`, first, 1))
	if err := run("-check"); err != nil {
		t.Errorf("the tag's digest: %v", err)
	}
	push()
	if err := run("-check"); err == nil {
		t.Error("nobody has seen that the tag has moved")
	}
}

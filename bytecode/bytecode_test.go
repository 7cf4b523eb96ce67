// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/bpf"
)

var meta = Meta{Source: "https://example.com/blixt", Revision: "0123456789abcdef", Version: "v1.2.3"}

func builtin(t *testing.T) *Object {
	t.Helper()
	o, err := ParseObject(bpf.Object())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func built(t *testing.T) *Stored {
	t.Helper()
	s, err := New(builtin(t), meta)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantError wants an error that says each of the texts.
func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %q", err, text)
		}
	}
}

func TestObjectSaysWhatItIs(t *testing.T) {
	o := builtin(t)
	spec, err := bpf.LoadBlixt()
	if err != nil {
		t.Fatal(err)
	}
	if o.Layout != bpf.Layout {
		t.Errorf("layout %d, want %d", o.Layout, bpf.Layout)
	}
	if diff := cmp.Diff([]Program{{Name: "blixt", Type: "tcx", Section: "classifier"}}, o.Programs); diff != "" {
		t.Error(diff)
	}
	var names []string
	for _, m := range o.Maps {
		names = append(names, m.Name)
		if m.MaxEntries != spec.Maps[m.Name].MaxEntries {
			t.Errorf("map %s has %d entries, want %d", m.Name, m.MaxEntries, spec.Maps[m.Name].MaxEntries)
		}
	}
	for _, name := range []string{"flows", "rings", "blixt_layout_2"} {
		if !slices.Contains(names, name) {
			t.Errorf("no map %s in %v", name, names)
		}
	}
	var optional []string
	for _, n := range o.Needs {
		if n.Optional {
			optional = append(optional, n.Feature+" "+n.Kernel)
		}
	}
	want := []string{"maps written without capabilities 5.19", "TCX 6.6", "SNAT source chosen by the kernel 6.7"}
	if diff := cmp.Diff(want, optional); diff != "" {
		t.Error(diff)
	}
	if labels := o.Labels(); labels[ProgramsLabel] != `{"blixt":"tcx"}` || !strings.Contains(labels[MapsLabel], `"counters":"per_cpu_array"`) {
		t.Errorf("labels %v", labels)
	}
}

func TestSameObjectSameDigest(t *testing.T) {
	tree := func(dir string) map[string]string {
		files := map[string]string{}
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			sum := sha256.Sum256(content)
			files[strings.TrimPrefix(path, dir)] = hex.EncodeToString(sum[:])
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	// Another process builds the first, in its own directory.
	if dir := os.Getenv("BYTECODE_BUILD"); dir != "" {
		if err := built(t).Write(dir); err != nil {
			t.Fatal(err)
		}
		return
	}
	first, second := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	other := exec.Command(os.Args[0], "-test.run=^TestSameObjectSameDigest$")
	other.Env = append(os.Environ(), "BYTECODE_BUILD="+first, "TZ=Pacific/Auckland", "HOME=/nonexistent")
	other.Dir = t.TempDir()
	if text, err := other.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if err := built(t).Write(second); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tree(first), tree(second)); diff != "" {
		t.Error(diff)
	}
	s, err := Open(t.Context(), first, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Digest() != built(t).Digest() {
		t.Errorf("digest %s, want %s", s.Digest(), built(t).Digest())
	}
}

func TestLayoutHoldsWhatWasBuilt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	for range 2 { // the second replaces the first
		if err := built(t).Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	im, err := Load(t.Context(), dir, Options{Architecture: "arm64"})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(im.Object.Bytes, bpf.Object()) {
		t.Error("another object came back")
	}
	if diff := cmp.Diff(meta.Annotations(), im.Annotations); diff != "" {
		t.Error(diff)
	}
	want := []string{"linux/amd64", "linux/arm64", "linux/loong64", "linux/ppc64le", "linux/riscv64"}
	if diff := cmp.Diff(want, im.Platforms); diff != "" {
		t.Error(diff)
	}
	_, err = Load(t.Context(), dir, Options{Architecture: "s390x"})
	wantError(t, err, "nothing for linux/s390x", "linux/amd64")
}

func TestLayoutReplacesNothingOfTheUser(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "precious"), []byte("x"))
	wantError(t, built(t).Write(dir), "no OCI layout", "choose another")
	if _, err := os.Stat(filepath.Join(dir, "precious")); err != nil {
		t.Error(err)
	}
}

func TestDamagedLayoutIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	if err := built(t).Write(dir); err != nil {
		t.Fatal(err)
	}
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range blobs {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		damaged := bytes.Clone(content)
		damaged[len(damaged)/2] ^= 1
		write(t, path, damaged)
		// Other machines' manifests are not read: any one must do.
		var errs []error
		for _, arch := range littleEndian {
			if _, err := Load(t.Context(), dir, Options{Architecture: arch}); err != nil {
				errs = append(errs, err)
			}
		}
		if len(errs) == 0 {
			t.Errorf("a bit of %s (%d bytes) flipped, and nothing noticed", path, len(content))
		}
		write(t, path, content)
	}
}

func TestRefNamesWhatItCannotFind(t *testing.T) {
	dir := t.TempDir()
	for ref, texts := range map[string][]string{
		filepath.Join(dir, "no.o"): {"no.o", "no such file"},
		"./nothing":                {"./nothing", "no such file"},
		dir:                        {"no OCI layout", "blixt bytecode build"},
		"blixt":                    {"names no registry", "REGISTRY/REPOSITORY:TAG"},
		"blixt/bytecode:v1":        {"names no registry"},
		"a.example/B:v1":           {"a.example/B:v1", "want REGISTRY"},
	} {
		_, err := Load(t.Context(), ref, Options{})
		wantError(t, err, texts...)
	}
}

func TestFileIsLoadedAndChecked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "blixt.o")
	write(t, path, bpf.Object())
	im, err := Load(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if im.Name != path || im.Digest != "" || im.Object.Layout != bpf.Layout {
		t.Errorf("got %s, digest %q, layout %d", im.Name, im.Digest, im.Object.Layout)
	}
	write(t, path, []byte("no ELF"))
	_, err = Load(t.Context(), path, Options{})
	wantError(t, err, path, "eBPF object")
}

// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"testing"
)

// largestSecret is what the API server takes; Helm keeps all of a release in one Secret.
const largestSecret = 1_048_576

// stored returns how many bytes a value takes in the Secret, as Helm encodes it.
func stored(t *testing.T, value []byte) int {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(value); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodedLen(b.Len())
}

// Templates count twice: as they are, and as what they render.
func TestReleaseFitsIntoItsSecret(t *testing.T) {
	foreign(t) // Helm asks for the kinds of all objects
	dir := unpackInto(t, t.TempDir(), packed(t))
	out, err := helmIn(t, namespace, "install", append([]string{dir, "--dry-run=client", "--take-ownership", "--output=json"}, everything...)...)
	if err != nil {
		t.Fatal(err)
	}
	var release struct {
		Manifest, Hooks, Config json.RawMessage
		Chart                   map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(out), &release); err != nil {
		t.Fatal(err)
	}
	size := stored(t, []byte(out))
	t.Logf("a release with everything takes %d of %d bytes", size, largestSecret)
	t.Logf("alone, its parts take: manifest %d", stored(t, release.Manifest))
	for _, part := range slices.Sorted(maps.Keys(release.Chart)) {
		t.Logf("  chart: %s %d", part, stored(t, release.Chart[part]))
	}
	if limit := largestSecret * 2 / 3; size > limit {
		t.Errorf("a release takes %d bytes, want at most %d: what users set has to fit in, too, and what is added next", size, limit)
	}
}

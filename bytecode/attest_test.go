// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// sbom states in SPDX what is in the image.
func sbom(t *testing.T, digest v1.Hash, comment string) []byte {
	t.Helper()
	text, err := json.Marshal(NewStatement(PredicateSPDX, json.RawMessage(fmt.Sprintf(`{"spdxVersion":"SPDX-2.3","comment":%q}`, comment)), subjectOf(digest)))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func mustAttest(t *testing.T, where string, text []byte, key *PrivateKey, o Options) {
	t.Helper()
	s, err := Open(t.Context(), where, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Attest(t.Context(), text, key, o); err != nil {
		t.Fatal(err)
	}
}

func attestations(t *testing.T, where string, o Options, keys ...*PublicKey) []Attestation {
	t.Helper()
	s, err := Open(t.Context(), where, o)
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.Attestations(keys)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAttestationsAreFoundAndAreNoSignatures(t *testing.T) {
	signer, key := keyPair(t, "ours")
	_, other := keyPair(t, "other")
	for name, referrers := range map[string]bool{"referrers": true, "tags instead of referrers": false} {
		t.Run(name, func(t *testing.T) {
			r := startRegistry(t, referrers)
			where, err := built(t).Push(t.Context(), r.ref(":v1"), r.options())
			if err != nil {
				t.Fatal(err)
			}
			digest := digestOf(t, where).Digest
			large := sbom(t, digest, strings.Repeat("large ", 1<<19)) // more than a signature may have
			for range 2 {                                             // the second finds that it is done
				mustAttest(t, where, large, signer, r.options())
			}
			o := r.options()
			o.Keys = []*PublicKey{key}
			_, err = Load(t.Context(), where, o)
			if wantError(t, err, "is not signed"); strings.Contains(err.Error(), "no signature that counts") {
				t.Errorf("the attestation counts as a bad signature: %v", err)
			}
			if _, err := Sign(t.Context(), where, signer, r.options()); err != nil {
				t.Fatal(err)
			}
			im, err := Load(t.Context(), where, o)
			if err != nil || len(im.Signatures) != 2 {
				t.Fatalf("signatures %+v, %v", im, err)
			}
			all := attestations(t, where, r.options(), key)
			if len(all) != 1 || all[0].VerifiedBy != key.Name || all[0].PredicateType != PredicateSPDX || all[0].Subjects[0] != digest.String() {
				t.Errorf("attestations %.500v", all)
			}
			if all = attestations(t, where, r.options(), other); len(all) != 1 || all[0].VerifiedBy != "" || !strings.Contains(all[0].Problem, "is not by "+other.Name) || all[0].Predicate != nil {
				t.Errorf("by another key: %.500v", all)
			}

			// It goes with the image, into a directory and to another registry.
			dir := filepath.Join(t.TempDir(), "pulled")
			found, err := Open(t.Context(), where, r.options())
			if err != nil {
				t.Fatal(err)
			}
			if err := found.Write(dir); err != nil {
				t.Fatal(err)
			}
			pulled, err := Open(t.Context(), dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			wantError(t, pulled.Attest(t.Context(), large, signer, Options{}), "in no registry")
			second := startRegistry(t, !referrers)
			if where, err = pulled.Push(t.Context(), second.ref(":v1"), second.options()); err != nil {
				t.Fatal(err)
			}
			if all = attestations(t, where, second.options(), key); len(all) != 1 || all[0].VerifiedBy != key.Name {
				t.Errorf("attestations in the second registry %.500v", all)
			}
		})
	}
}

// Verifiers look at the digest that they are given, which may be one machine's.
func TestPlatformsManifestIsAttested(t *testing.T) {
	signer, key := keyPair(t, "ours")
	r := startRegistry(t, true)
	where, err := built(t).Push(t.Context(), r.ref(":v1"), r.options())
	if err != nil {
		t.Fatal(err)
	}
	list, err := built(t).index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	one := list.Manifests[0].Digest
	index, _, _ := strings.Cut(where, "@")
	mustAttest(t, index+"@"+one.String(), sbom(t, one, ""), signer, r.options())
	if all := attestations(t, index+"@"+one.String(), r.options(), key); len(all) != 1 || all[0].VerifiedBy == "" {
		t.Errorf("of the platform: %+v", all)
	}
	if all := attestations(t, where, r.options(), key); len(all) != 0 {
		t.Errorf("of the index: %+v", all)
	}
	// It goes with the image into a mirror.
	mirror := startRegistry(t, false)
	source, err := Open(t.Context(), where, r.options())
	if err != nil {
		t.Fatal(err)
	}
	o := mirror.options()
	both, err := os.ReadFile(r.ca)
	if err != nil {
		t.Fatal(err)
	}
	more, err := os.ReadFile(mirror.ca)
	if err != nil {
		t.Fatal(err)
	}
	o.CAFile = filepath.Join(t.TempDir(), "cas.crt")
	write(t, o.CAFile, append(both, more...))
	if _, err := source.Push(t.Context(), mirror.ref(":v1"), o); err != nil {
		t.Fatal(err)
	}
	if all := attestations(t, mirror.ref("@"+one.String()), o, key); len(all) != 1 || all[0].VerifiedBy == "" {
		t.Errorf("in the mirror: %+v", all)
	}
}

func TestOnlyStatementsAboutTheImageAreAttested(t *testing.T) {
	signer, _ := keyPair(t, "ours")
	r := startRegistry(t, true)
	where, err := built(t).Push(t.Context(), r.ref(":v1"), r.options())
	if err != nil {
		t.Fatal(err)
	}
	digest := digestOf(t, where).Digest
	another := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("ab", 32)}
	signature, err := json.Marshal(NewStatement(PredicateSignature, json.RawMessage("{}"), subjectOf(digest)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), where, r.options())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text      string
		statement []byte
	}{
		{"is about " + another.String(), sbom(t, another, "")},
		{"is a signature", signature},
		{"no subject", []byte(`{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://spdx.dev/Document"}`)},
		{"_type", []byte(`{"predicateType":"https://spdx.dev/Document"}`)},
		{"read statement", []byte("rubbish")},
		{"want at most", make([]byte, maxStatement/2+1)},
	} {
		wantError(t, s.Attest(t.Context(), c.statement, signer, r.options()), where, c.text)
	}
	if all := attestations(t, where, r.options()); len(all) != 0 {
		t.Errorf("attached was %+v", all)
	}
}

// forged returns a manifest that refers to an image, with a document, and annotated as what
// it claims to hold.
func forged(t *testing.T, to v1.Descriptor, claimed string, document []byte) v1.Image {
	t.Helper()
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: bundleVersion, Subject: &to}
	if claimed != "" {
		m.Annotations = map[string]string{predicateAnnotation: claimed}
	}
	image, err := newArtifact(m, document)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// signedPayload returns a bundle as its JSON, in which the key has signed a payload.
func signedPayload(t *testing.T, of v1.Descriptor, text string, key *PrivateKey) []byte {
	t.Helper()
	image, err := newBundle(of, PredicateSignature, []byte(text), key)
	if err != nil {
		t.Fatal(err)
	}
	return alter(t, image, func(map[string]any) {})
}

// What the right key has signed for another purpose is no signature, whatever the
// manifest around it says.
func TestAttestationsDisguisedAsSignatures(t *testing.T) {
	signer, key := keyPair(t, "ours")
	base := startRegistry(t, true)
	where, err := built(t).Push(t.Context(), base.ref(":v1"), base.options())
	if err != nil {
		t.Fatal(err)
	}
	digest := digestOf(t, where)
	statement := func(predicateType string, digests ...string) string {
		var subjects []string
		for _, d := range digests {
			subjects = append(subjects, fmt.Sprintf(`{"digest":{"sha256":%q}}`, d))
		}
		return fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[%s],"predicateType":%q,"predicate":{}}`, strings.Join(subjects, ","), predicateType)
	}
	this, other := digest.Digest.Hex, strings.Repeat("ab", 32)
	sign := func(text string) []byte { return signedPayload(t, digest, text, signer) }
	for _, c := range []struct {
		name     string
		claimed  string // annotation of the manifest
		document []byte
		signed   bool
		problem  string // of the only signature listed; "": none is listed
		attested int
	}{
		{"provenance that says to sign", PredicateSignature, sign(statement(PredicateProvenance, this)), false, "", 1},
		{"provenance without annotation", "", sign(statement(PredicateProvenance, this)), false, "", 1},
		{"signature in the predicate", PredicateSignature, sign(strings.Replace(statement(PredicateProvenance, this), "{}}", `{"predicateType":"`+PredicateSignature+`"}}`, 1)), false, "", 1},
		{"two types", PredicateSignature, sign(strings.Replace(statement(PredicateProvenance, this), `"predicate":`, `"predicateType":"`+PredicateSignature+`","predicate":`, 1)), false, "twice", 0},
		{"two types, in capitals", PredicateSignature, sign(strings.Replace(statement(PredicateProvenance, this), `"predicate":`, `"PREDICATETYPE":"`+PredicateSignature+`","predicate":`, 1)), false, "twice", 0},
		{"types as a list", PredicateSignature, sign(strings.Replace(statement("X", this), `"X"`, `["`+PredicateSignature+`"]`, 1)), false, "read statement", 0},
		{"another subject", PredicateSignature, sign(statement(PredicateSignature, other)), false, "of another image", 0},
		{"several subjects", PredicateSignature, sign(statement(PredicateSignature, other, this)), true, "", 0},
		{"signature that says to be provenance", PredicateProvenance, sign(statement(PredicateSignature, this)), false, "", 1},
		{"rubbish that says to be provenance", PredicateProvenance, []byte("rubbish"), false, "", 1},
		{"other payload type", PredicateSignature, alterType(t, sign(statement(PredicateSignature, this))), false, "want application/vnd.in-toto+json", 0},
		{"deep JSON", PredicateSignature, []byte(strings.Repeat(`{"a":`, 200_000)), false, "bundle", 0},
		{"deep statement", PredicateSignature, sign(strings.Repeat("[", 100_000)), false, "read statement", 0},
		{"null", PredicateSignature, sign("null"), false, "_type", 0},
		{"oversized", PredicateSignature, make([]byte, maxSignature+1), false, "want at most 1048576", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := startRegistry(t, true)
			if _, err := built(t).Push(t.Context(), r.ref(":v1"), r.options()); err != nil {
				t.Fatal(err)
			}
			pushForged(t, r, digest.Digest, forged(t, digest, c.claimed, c.document))
			o := r.options()
			s, err := Open(t.Context(), r.ref(":v1"), o)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Verify([]*PublicKey{key})
			if c.signed != (err == nil) {
				t.Errorf("verify: %v", err)
			}
			switch {
			case c.problem != "":
				wantError(t, err, "no signature that counts", c.problem)
			case !c.signed:
				wantError(t, err, "is not signed")
			}
			all := attestations(t, r.ref(":v1"), o, key)
			if len(all) != c.attested {
				t.Errorf("attestations %+v, want %d", all, c.attested)
			}
			for _, a := range all {
				if (a.VerifiedBy != "") == (a.Problem != "") {
					t.Errorf("neither verified nor a problem, or both: %+v", a)
				}
			}
		})
	}
}

func alterType(t *testing.T, bundle []byte) []byte {
	t.Helper()
	return []byte(strings.Replace(string(bundle), payloadType, "text/plain", 1))
}

// Of two layers, verifiers might each read another.
func TestBundleOfTwoLayersIsRefused(t *testing.T) {
	signer, key := keyPair(t, "ours")
	s := built(t)
	s.attached = func() ([]v1.Image, error) { return []v1.Image{doubled{bundleOf(t, s.descriptor, signer)}}, nil }
	_, err := s.Verify([]*PublicKey{key})
	wantError(t, err, "no signature that counts", "2 layers")
}

// doubled is an image with its one layer twice.
type doubled struct {
	v1.Image
}

func (d doubled) Layers() ([]v1.Layer, error) {
	layers, err := d.Image.Layers()
	return append(layers, layers...), err
}

func (d doubled) Manifest() (*v1.Manifest, error) {
	m, err := d.Image.Manifest()
	m = m.DeepCopy()
	m.Layers = append(m.Layers, m.Layers...)
	return m, err
}

// losing is a registry without referrers whose tags forget, some times, what is added:
// another writer has read the tag before, and writes it after.
func losing(times int32) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		var lost atomic.Int32
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			_, tag, _ := strings.Cut(q.URL.Path, "/manifests/")
			if q.Method == http.MethodPut && strings.HasPrefix(tag, "sha256-") && !strings.HasSuffix(tag, ".sig") && lost.Add(1) <= times {
				_, _ = io.Copy(io.Discard, q.Body)
				w.WriteHeader(http.StatusCreated)
				return
			}
			next.ServeHTTP(w, q)
		})
	}
}

func TestEntryThatAnotherWriterLostIsAddedAgain(t *testing.T) {
	signer, key := keyPair(t, "ours")
	r := startRegistry(t, false, losing(2))
	where, err := built(t).Push(t.Context(), r.ref(":v1"), r.options())
	if err != nil {
		t.Fatal(err)
	}
	mustAttest(t, where, sbom(t, digestOf(t, where).Digest, ""), signer, r.options())
	if all := attestations(t, where, r.options(), key); len(all) != 1 || all[0].VerifiedBy == "" {
		t.Errorf("attestations %+v", all)
	}
}

func TestEntryThatIsAlwaysLostIsAnError(t *testing.T) {
	signer, _ := keyPair(t, "ours")
	r := startRegistry(t, false, losing(1000))
	where, err := built(t).Push(t.Context(), r.ref(":v1"), r.options())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), where, r.options())
	if err != nil {
		t.Fatal(err)
	}
	err = s.Attest(t.Context(), sbom(t, digestOf(t, where).Digest, ""), signer, r.options())
	wantError(t, err, "does not list what was attached", "do it again")
}

// A run was killed after the manifest, and before the tag that lists it.
func TestUnlistedManifestIsListed(t *testing.T) {
	signer, key := keyPair(t, "ours")
	dir := filepath.Join(t.TempDir(), "out")
	if err := built(t).Write(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(t.Context(), dir, signer, Options{}); err != nil {
		t.Fatal(err)
	}
	var killed atomic.Bool
	killed.Store(true)
	r := startRegistry(t, false, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			_, tag, _ := strings.Cut(q.URL.Path, "/manifests/sha256-")
			if killed.Load() && q.Method == http.MethodPut && tag != "" {
				refuse(w, http.StatusForbidden, "DENIED", "killed")
				return
			}
			next.ServeHTTP(w, q)
		})
	})
	s, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Push(t.Context(), r.ref(":v1"), r.options()); err == nil {
		t.Fatal("the first run has not failed")
	}
	killed.Store(false)
	where, err := s.Push(t.Context(), r.ref(":v1"), r.options())
	if err != nil {
		t.Fatal(err)
	}
	found, err := Open(t.Context(), where, r.options())
	if err != nil {
		t.Fatal(err)
	}
	if all, err := found.Verify([]*PublicKey{key}); err != nil || len(all) != 2 {
		t.Errorf("signatures %+v, %v", all, err)
	}
}

func TestNamesOfPredicateTypes(t *testing.T) {
	for name, want := range map[string]string{
		"spdxjson": PredicateSPDX, "slsaprovenance1": PredicateProvenance, "https://example.com/x": "https://example.com/x",
	} {
		if got, err := PredicateType(name); err != nil || got != want {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	_, err := PredicateType("spdx")
	wantError(t, err, "spdxjson")
}

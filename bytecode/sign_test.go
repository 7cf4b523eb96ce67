// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
)

// keyPair writes a key pair as cosign generate-key-pair does, and reads it.
func keyPair(t *testing.T, name string) (*PrivateKey, *PublicKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := encrypted.Encrypt(der, []byte("password"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	private, public := filepath.Join(dir, name+".key"), filepath.Join(dir, name+".pub")
	write(t, private, pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED SIGSTORE PRIVATE KEY", Bytes: sealed}))
	if der, err = x509.MarshalPKIXPublicKey(&key.PublicKey); err != nil {
		t.Fatal(err)
	}
	write(t, public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	s, err := ReadPrivateKey(private, password("password"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := ReadPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

func password(p string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(p), nil }
}

func TestSignedIsVerified(t *testing.T) {
	signer, key := keyPair(t, "ours")
	_, other := keyPair(t, "other")
	for name, referrers := range map[string]bool{"referrers": true, "tags instead of referrers": false} {
		t.Run(name, func(t *testing.T) {
			r := startRegistry(t, referrers)
			where, err := built(t).Push(t.Context(), r.ref(":v1"), r.options())
			if err != nil {
				t.Fatal(err)
			}
			o := r.options()
			o.Keys = []*PublicKey{key}
			_, err = Load(t.Context(), where, o)
			if !errors.Is(err, errUnsigned) {
				t.Errorf("got %v, want %v", err, errUnsigned)
			}
			for range 2 { // the second finds that it is done
				signed, err := Sign(t.Context(), r.ref(":v1"), signer, r.options())
				if err != nil {
					t.Fatal(err)
				}
				if signed != where {
					t.Errorf("signed %s, want %s", signed, where)
				}
			}
			im, err := Load(t.Context(), r.ref(":v1"), o)
			if err != nil {
				t.Fatal(err)
			}
			forms := map[string]string{}
			for _, s := range im.Signatures {
				forms[s.Kind] = s.VerifiedBy
			}
			if len(im.Signatures) != 2 || forms[KindBundle] != key.Name || forms[KindSimple] != key.Name {
				t.Errorf("signatures %+v", im.Signatures)
			}
			o.Keys = []*PublicKey{other}
			_, err = Load(t.Context(), where, o)
			wantError(t, err, "no signature that counts", "is not by "+other.Name, "but by key "+key.ID, "or was altered")
			o.Keys = []*PublicKey{other, key} // one of them is enough
			if _, err = Load(t.Context(), where, o); err != nil {
				t.Error(err)
			}

			// Its signatures go with it, into a directory and to another registry.
			dir := filepath.Join(t.TempDir(), "pulled")
			found, err := Open(t.Context(), where, r.options())
			if err != nil {
				t.Fatal(err)
			}
			if err := found.Write(dir); err != nil {
				t.Fatal(err)
			}
			if im, err = Load(t.Context(), dir, Options{Keys: []*PublicKey{key}}); err != nil {
				t.Fatal(err)
			}
			if len(im.Signatures) != 2 {
				t.Errorf("signatures in the layout %+v", im.Signatures)
			}
			second := startRegistry(t, !referrers)
			pulled, err := Open(t.Context(), dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if where, err = pulled.Push(t.Context(), second.ref(":v1"), second.options()); err != nil {
				t.Fatal(err)
			}
			o = second.options()
			o.Keys = []*PublicKey{key}
			if im, err = Load(t.Context(), where, o); err != nil {
				t.Fatal(err)
			}
			if len(im.Signatures) != 2 {
				t.Errorf("signatures in the second registry %+v", im.Signatures)
			}
		})
	}
}

func TestLayoutIsSigned(t *testing.T) {
	first, a := keyPair(t, "first")
	second, b := keyPair(t, "second")
	dir := filepath.Join(t.TempDir(), "out")
	if err := built(t).Write(dir); err != nil {
		t.Fatal(err)
	}
	for _, key := range []*PrivateKey{first, second} {
		if _, err := Sign(t.Context(), dir, key, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []*PublicKey{a, b} {
		im, err := Load(t.Context(), dir, Options{Keys: []*PublicKey{key}})
		if err != nil {
			t.Fatal(err)
		}
		verified := 0
		for _, s := range im.Signatures {
			if s.VerifiedBy == key.Name {
				verified++
			}
		}
		if len(im.Signatures) != 4 || verified != 2 {
			t.Errorf("%d of %d signatures verified by %s", verified, len(im.Signatures), key.Name)
		}
	}
}

// Whoever can write to the registry puts signatures of other images, altered
// ones and rubbish beside an image.
func TestForgedSignaturesAreRefused(t *testing.T) {
	signer, key := keyPair(t, "ours")
	r := startRegistry(t, true)
	where, err := built(t).Push(t.Context(), r.ref(":v1"), r.options())
	if err != nil {
		t.Fatal(err)
	}
	digest := digestOf(t, where)
	another := v1.Descriptor{MediaType: digest.MediaType, Size: digest.Size, Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("ab", 32)}}

	moved := alter(t, bundleOf(t, another, signer), func(map[string]any) {})
	altered := alter(t, bundleOf(t, another, signer), func(b map[string]any) {
		envelope := b["dsseEnvelope"].(map[string]any)
		text, err := base64.StdEncoding.DecodeString(envelope["payload"].(string))
		if err != nil {
			t.Fatal(err)
		}
		text = []byte(strings.ReplaceAll(string(text), another.Digest.Hex, digest.Digest.Hex))
		envelope["payload"] = base64.StdEncoding.EncodeToString(text)
	})
	unsigned := alter(t, bundleOf(t, digest, signer), func(b map[string]any) {
		b["dsseEnvelope"].(map[string]any)["signatures"] = []any{}
	})
	provenance := alter(t, bundleOf(t, digest, signer), func(b map[string]any) {
		envelope := b["dsseEnvelope"].(map[string]any)
		envelope["payload"] = base64.StdEncoding.EncodeToString([]byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{}],"predicateType":"https://slsa.dev/provenance/v1"}`))
	})
	for _, c := range []struct {
		name, text string
		document   []byte
	}{
		{"of another image", "of another image, " + another.Digest.String(), moved},
		{"altered", "what it signs was altered", altered},
		{"without a signature", "what it signs was altered", unsigned},
		{"rubbish", "bundle", []byte("rubbish")},
		{"another statement", "is not signed", provenance},
	} {
		t.Run("bundle "+c.name, func(t *testing.T) {
			r := startRegistry(t, true)
			if _, err := built(t).Push(t.Context(), r.ref(":v1"), r.options()); err != nil {
				t.Fatal(err)
			}
			artifact, err := newArtifact(v1.Manifest{SchemaVersion: 2, MediaType: "application/vnd.oci.image.manifest.v1+json", ArtifactType: bundleVersion, Subject: &digest}, c.document)
			if err != nil {
				t.Fatal(err)
			}
			pushForged(t, r, digest.Digest, artifact)
			o := r.options()
			o.Keys = []*PublicKey{key}
			_, err = Load(t.Context(), r.ref(":v1"), o)
			wantError(t, err, c.text)
		})
	}
	simple, err := signSimple(nil, r.ref(""), another.Digest, signer)
	if err != nil {
		t.Fatal(err)
	}
	pushForged(t, r, digest.Digest, simple)
	o := r.options()
	o.Keys = []*PublicKey{key}
	_, err = Load(t.Context(), r.ref(":v1"), o)
	wantError(t, err, "simple signing", "of another image, "+another.Digest.String())

	// A good one among them counts.
	if _, err := Sign(t.Context(), where, signer, r.options()); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(t.Context(), where, o); err != nil {
		t.Error(err)
	}
}

func digestOf(t *testing.T, where string) v1.Descriptor {
	t.Helper()
	s := built(t)
	if !strings.HasSuffix(where, s.Digest()) {
		t.Fatalf("%s is not %s", where, s.Digest())
	}
	return s.descriptor
}

func bundleOf(t *testing.T, d v1.Descriptor, key *PrivateKey) v1.Image {
	t.Helper()
	image, err := signBundle(d, key)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// alter returns a bundle's JSON, changed.
func alter(t *testing.T, image v1.Image, change func(map[string]any)) []byte {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	text, err := readSmall(layers[0], manifest.Layers[0], maxSignature)
	if err != nil {
		t.Fatal(err)
	}
	var bundle map[string]any
	if err := json.Unmarshal(text, &bundle); err != nil {
		t.Fatal(err)
	}
	change(bundle)
	if text, err = json.Marshal(bundle); err != nil {
		t.Fatal(err)
	}
	return text
}

func pushForged(t *testing.T, r *testRegistry, digest v1.Hash, image v1.Image) {
	t.Helper()
	repository, err := name.NewRepository(r.ref(""))
	if err != nil {
		t.Fatal(err)
	}
	if err := attach(t.Context(), repository, digest, []v1.Image{image}, r.options()); err != nil {
		t.Fatal(err)
	}
}

func TestTagThatMovedIsNotVerified(t *testing.T) {
	signer, key := keyPair(t, "ours")
	r := startRegistry(t, true)
	if _, err := built(t).Push(t.Context(), r.ref(":v1"), r.options()); err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(t.Context(), r.ref(":v1"), signer, r.options()); err != nil {
		t.Fatal(err)
	}
	other, err := New(builtin(t), Meta{Version: "v9"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Push(t.Context(), r.ref(":v1"), r.options()); err != nil {
		t.Fatal(err)
	}
	o := r.options()
	o.Keys = []*PublicKey{key}
	_, err = Load(t.Context(), r.ref(":v1"), o)
	wantError(t, err, other.Digest(), "is not signed")
}

func TestKeysOfEveryForm(t *testing.T) {
	dir := t.TempDir()
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := encrypted.Encrypt(pkcs8(ec), []byte("right"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(ec.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, kind string
		der        []byte
		text       string // of the error, empty: none
	}{
		{"PKCS #8", "PRIVATE KEY", pkcs8(ec), ""},
		{"EC", "EC PRIVATE KEY", sec1, ""},
		{"RSA", "PRIVATE KEY", pkcs8(rsaKey), ""},
		{"Ed25519", "PRIVATE KEY", pkcs8(ed), "want ECDSA"},
		{"wrong password", "ENCRYPTED SIGSTORE PRIVATE KEY", sealed, "COSIGN_PASSWORD"},
		{"older cosign, wrong password", "ENCRYPTED COSIGN PRIVATE KEY", sealed, "COSIGN_PASSWORD"},
		{"public", "PUBLIC KEY", public, "this is the public one"},
		{"a certificate", "CERTIFICATE", public, "CERTIFICATE"},
	} {
		path := filepath.Join(dir, c.name)
		write(t, path, pem.EncodeToMemory(&pem.Block{Type: c.kind, Bytes: c.der}))
		_, err := ReadPrivateKey(path, password("wrong"))
		if c.text != "" {
			wantError(t, err, c.name, c.text)
		} else if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	_, err = ReadPublicKey(filepath.Join(dir, "EC"))
	wantError(t, err, "this is the private one")
	if _, err = ReadPublicKey(filepath.Join(dir, "public")); err != nil {
		t.Error(err)
	}
}

func TestObjectAloneCannotBeVerified(t *testing.T) {
	_, key := keyPair(t, "ours")
	_, err := Load(t.Context(), "", Options{Keys: []*PublicKey{key}})
	wantError(t, err, "built-in object is not signed")
	path := filepath.Join(t.TempDir(), "blixt.o")
	write(t, path, builtin(t).Bytes)
	_, err = Load(t.Context(), path, Options{Keys: []*PublicKey{key}})
	wantError(t, err, path+" is not signed", "build an image")
}

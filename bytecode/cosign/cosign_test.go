// SPDX-License-Identifier: Apache-2.0

// Package cosign lets cosign's own library verify what Blixt signs, and Blixt
// what cosign signs. It is a module apart: its dependencies are many, and
// must not choose the versions of what ships.
package cosign

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sigstore/cosign/v3/pkg/cosign"
	"github.com/sigstore/cosign/v3/pkg/oci/mutate"
	ociremote "github.com/sigstore/cosign/v3/pkg/oci/remote"
	"github.com/sigstore/cosign/v3/pkg/oci/static"
	"github.com/sigstore/cosign/v3/pkg/types"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/payload"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/bytecode"
)

// pushed is an image in a registry, and how to ask for it.
type pushed struct {
	digest  name.Digest
	options bytecode.Options
	cosign  []ociremote.Option
}

func push(t *testing.T, referrers bool) pushed {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	server := httptest.NewTLSServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(referrers)))
	t.Cleanup(server.Close)
	p := pushed{cosign: []ociremote.Option{ociremote.WithRemoteOptions(remote.WithTransport(server.Client().Transport))}}
	p.options.CAFile = file(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	object, err := bytecode.ParseObject(bpf.Object())
	check(t, err)
	image, err := bytecode.New(object, bytecode.Meta{})
	check(t, err)
	where, err := image.Push(t.Context(), strings.TrimPrefix(server.URL, "https://")+"/blixt/bytecode:v1", p.options)
	check(t, err)
	p.digest, err = name.NewDigest(where)
	check(t, err)
	return p
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func file(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(path, content, 0o600))
	return path
}

// keyPair is what cosign generate-key-pair writes.
func keyPair(t *testing.T) (private string, verifier signature.Verifier) {
	t.Helper()
	keys, err := cosign.GenerateKeyPair(func(bool) ([]byte, error) { return []byte("password"), nil })
	check(t, err)
	key, err := cryptoutils.UnmarshalPEMToPublicKey(keys.PublicBytes)
	check(t, err)
	verifier, err = signature.LoadDefaultVerifier(key)
	check(t, err)
	return file(t, keys.PrivateBytes), verifier
}

func TestCosignVerifiesWhatBlixtSigns(t *testing.T) {
	for name, referrers := range map[string]bool{"referrers": true, "tags instead of referrers": false} {
		t.Run(name, func(t *testing.T) {
			p := push(t, referrers)
			private, verifier := keyPair(t)
			_, other := keyPair(t)
			key, err := bytecode.ReadPrivateKey(private, func() ([]byte, error) { return []byte("password"), nil })
			check(t, err)
			_, err = bytecode.Sign(t.Context(), p.digest.String(), key, p.options)
			check(t, err)

			simple := cosign.CheckOpts{RegistryClientOpts: p.cosign, SigVerifier: verifier, IgnoreTlog: true, ClaimVerifier: cosign.SimpleClaimVerifier}
			found, _, err := cosign.VerifyImageSignatures(t.Context(), p.digest, &simple)
			check(t, err)
			if len(found) != 1 {
				t.Errorf("%d simple signatures, want 1", len(found))
			}
			bundles := simple
			bundles.NewBundleFormat, bundles.ClaimVerifier = true, cosign.IntotoSubjectClaimVerifier
			found, _, err = cosign.VerifyImageAttestations(t.Context(), p.digest, &bundles)
			check(t, err)
			if len(found) != 1 {
				t.Errorf("%d bundles, want 1", len(found))
			}
			simple.SigVerifier, bundles.SigVerifier = other, other
			if _, _, err := cosign.VerifyImageSignatures(t.Context(), p.digest, &simple); err == nil {
				t.Error("another key verifies the simple signature")
			}
			if _, _, err := cosign.VerifyImageAttestations(t.Context(), p.digest, &bundles); err == nil {
				t.Error("another key verifies the bundle")
			}
		})
	}
}

func TestBlixtVerifiesWhatCosignSigns(t *testing.T) {
	t.Run(bytecode.KindBundle, func(t *testing.T) {
		p := push(t, true)
		key, err := sign.NewEphemeralKeypair(nil)
		check(t, err)
		_, hex, _ := strings.Cut(p.digest.DigestStr(), ":")
		statement := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":%q,"predicate":{}}`, hex, types.CosignSignPredicateType)
		bundle, err := sign.Bundle(&sign.DSSEData{Data: []byte(statement), PayloadType: "application/vnd.in-toto+json"}, key, sign.BundleOptions{Context: t.Context()})
		check(t, err)
		text, err := protojson.Marshal(bundle)
		check(t, err)
		check(t, ociremote.WriteAttestationNewBundleFormat(p.digest, text, types.CosignSignPredicateType, p.cosign...))
		wantVerified(t, p, key.GetPublicKey(), bytecode.KindBundle)
	})
	t.Run(bytecode.KindSimple, func(t *testing.T) {
		p := push(t, true)
		private, err := cosign.GeneratePrivateKey()
		check(t, err)
		text, err := payload.Cosign{Image: p.digest}.MarshalJSON()
		check(t, err)
		signer, err := signature.LoadDefaultSigner(private)
		check(t, err)
		sig, err := signer.SignMessage(bytes.NewReader(text))
		check(t, err)
		signed, err := static.NewSignature(text, base64.StdEncoding.EncodeToString(sig))
		check(t, err)
		entity, err := ociremote.SignedEntity(p.digest, p.cosign...)
		check(t, err)
		entity, err = mutate.AttachSignatureToEntity(entity, signed)
		check(t, err)
		check(t, ociremote.WriteSignatures(p.digest.Repository, entity, p.cosign...))
		wantVerified(t, p, private.Public(), bytecode.KindSimple)
	})
}

func wantVerified(t *testing.T, p pushed, key crypto.PublicKey, kind string) {
	t.Helper()
	text, err := cryptoutils.MarshalPublicKeyToPEM(key)
	check(t, err)
	public, err := bytecode.ReadPublicKey(file(t, text))
	check(t, err)
	p.options.Keys = []*bytecode.PublicKey{public}
	im, err := bytecode.Load(t.Context(), p.digest.String(), p.options)
	check(t, err)
	if len(im.Signatures) != 1 || im.Signatures[0].Kind != kind || im.Signatures[0].VerifiedBy == "" {
		t.Errorf("signatures %+v, want one, %s, verified", im.Signatures, kind)
	}
}

// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// PublicKey verifies signatures.
type PublicKey struct {
	// Name for messages: the file that it is from.
	Name string
	// ID is the key's hash, which a bundle names it by.
	ID string
	// PEM is the key itself, as verificationKeys of a BlixtConfig want it.
	PEM      string
	verifier signature.Verifier
}

// PrivateKey signs.
type PrivateKey struct {
	Public *PublicKey
	signer signature.Signer
}

// errKeyKind rejects other kinds of keys: for Ed25519 the tools disagree about whether to
// hash first.
var errKeyKind = errors.New("want ECDSA (P-256, P-384, P-521), or RSA of 2048 bits or more: make one with cosign generate-key-pair")

// ReadPublicKey reads a key in PEM, as cosign.pub is.
func ReadPublicKey(path string) (*PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	return ParsePublicKey(path, text)
}

// ParsePublicKey parses a key in PEM. Messages use the name.
func ParsePublicKey(name string, text []byte) (*PublicKey, error) {
	if block, _ := pem.Decode(text); block != nil && strings.HasSuffix(block.Type, "PRIVATE KEY") {
		return nil, fmt.Errorf("public key %s: this is the private one: give the other half, such as cosign.pub", name)
	}
	key, err := cryptoutils.UnmarshalPEMToPublicKey(text)
	if err != nil {
		return nil, fmt.Errorf("public key %s: %w: want PEM, such as cosign.pub", name, err)
	}
	return newPublicKey(name, key)
}

func newPublicKey(name string, key crypto.PublicKey) (*PublicKey, error) {
	switch k := key.(type) {
	case *ecdsa.PublicKey: // the library knows no other curves
	case *rsa.PublicKey:
		if k.Size() < 2048/8 {
			return nil, fmt.Errorf("key %s: RSA of %d bits: %w", name, 8*k.Size(), errKeyKind)
		}
	default:
		return nil, fmt.Errorf("key %s: %T: %w", name, key, errKeyKind)
	}
	der, err := cryptoutils.MarshalPublicKeyToDER(key)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	verifier, err := signature.LoadDefaultVerifier(key)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w: %w", name, err, errKeyKind)
	}
	id := sha256.Sum256(der)
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return &PublicKey{Name: name, ID: base64.StdEncoding.EncodeToString(id[:]), PEM: string(text), verifier: verifier}, nil
}

// ReadPrivateKey reads a key in PEM: an encrypted cosign.key, or a plain PKCS #8 or EC key.
// It calls password only if one is needed.
func ReadPrivateKey(path string, password func() ([]byte, error)) (*PrivateKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read private key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("private key %s: no PEM: want a key such as cosign.key", path)
	}
	if block.Type == "PUBLIC KEY" {
		return nil, fmt.Errorf("private key %s: this is the public one: give the other half, such as cosign.key", path)
	}
	encrypted := strings.HasPrefix(block.Type, "ENCRYPTED ")
	asked := func(bool) ([]byte, error) {
		p, err := password()
		if p == nil { // an empty password is one, too
			p = []byte{}
		}
		return p, err
	}
	key, err := cryptoutils.UnmarshalPEMToPrivateKey(text, asked)
	if err != nil && encrypted {
		return nil, fmt.Errorf("private key %s: %w: is the password right? It is read from COSIGN_PASSWORD", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("private key %s: %w", path, err)
	}
	half, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private key %s: %T: %w", path, key, errKeyKind)
	}
	public, err := newPublicKey(path, half.Public())
	if err != nil {
		return nil, err
	}
	signer, err := signature.LoadDefaultSigner(key)
	if err != nil {
		return nil, fmt.Errorf("private key %s: %w: %w", path, err, errKeyKind)
	}
	return &PrivateKey{Public: public, signer: signer}, nil
}

// GenerateKey makes a key to sign with, without a password, and writes it to a file that
// must not exist: who loses a key cannot sign what follows.
func GenerateKey(path string) (*PublicKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write private key: %w", err)
	}
	_, err = f.Write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("write private key: %w", err)
	}
	return newPublicKey(path, key.Public())
}

// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kubernetes-sigs/blixt/bytecode"
)

// Key signs with a private key, in both of cosign's forms.
type Key struct{ *bytecode.PrivateKey }

// Sign signs an image.
func (k Key) Sign(ctx context.Context, image *bytecode.Stored, o bytecode.Options) error {
	_, err := image.Sign(ctx, k.PrivateKey, o)
	return err
}

// Attest signs a statement about an image.
func (k Key) Attest(ctx context.Context, image *bytecode.Stored, statement []byte, o bytecode.Options) error {
	return image.Attest(ctx, statement, k.PrivateKey, o)
}

// SignFile signs a file.
func (k Key) SignFile(_ context.Context, path, signature string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, err := os.ReadFile(signature)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && bytecode.VerifyBlob(before, content, k.Public) == nil {
		return nil
	}
	bundle, err := bytecode.SignBlob(content, k.PrivateKey)
	if err != nil {
		return err
	}
	return replace(signature, bundle)
}

// Cosign returns cosign's options. The key's signatures are in no public log.
func (k Key) Cosign() string { return "--key cosign.pub --insecure-ignore-tlog" }

// replace writes a file completely, or not at all.
func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

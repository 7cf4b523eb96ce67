// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kubernetes-sigs/blixt/bytecode"
)

// Keyless signs with certificates for an identity, such as that of a workflow. Cosign gets
// these, for a token of the identity; it never speaks with the registry.
type Keyless struct {
	// Program is the path of cosign.
	Program string
	// Identity is who signs, and Issuer who vouches for that: cosign must come to the same.
	Identity, Issuer string
	// SigningConfig and TrustedRoot are files of a Sigstore of one's own; "": the public one.
	SigningConfig, TrustedRoot string
	// Token is a file with a token of the identity; "": cosign finds one, as in workflows.
	Token string
	// NoLog: that Sigstore has no logs but signs the time (RFC 3161).
	NoLog bool
}

// githubIssuer vouches for GitHub's workflows.
const githubIssuer = "https://token.actions.githubusercontent.com"

// Complete fills in the identity of the workflow of GitHub that this runs in, and returns
// an error if cosign is missing, or the identity is not known.
func (k *Keyless) Complete(getenv func(string) string) error {
	if _, err := exec.LookPath(k.Program); err != nil {
		return fmt.Errorf("-keyless needs cosign: %w: build it with make cosign", err)
	}
	if workflow := getenv("GITHUB_WORKFLOW_REF"); k.Identity == "" && workflow != "" {
		k.Identity = cmp.Or(getenv("GITHUB_SERVER_URL"), "https://github.com") + "/" + workflow
		k.Issuer = cmp.Or(k.Issuer, githubIssuer)
	}
	if k.Identity == "" || k.Issuer == "" {
		return errors.New("-keyless: who signs? Outside of a workflow of GitHub name -identity and -issuer, as the certificate will have them")
	}
	return nil
}

// Sign signs an image, in the form of cosign 3.
func (k *Keyless) Sign(ctx context.Context, image *bytecode.Stored, o bytecode.Options) error {
	statement, err := json.Marshal(image.SignatureOf())
	if err != nil {
		return err
	}
	return k.Attest(ctx, image, statement, o)
}

// Attest signs a statement about an image.
func (k *Keyless) Attest(ctx context.Context, image *bytecode.Stored, statement []byte, o bytecode.Options) error {
	dir, err := os.MkdirTemp("", "publish")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	statementPath, bundlePath := filepath.Join(dir, "statement"), filepath.Join(dir, "bundle")
	if err := os.WriteFile(statementPath, statement, 0o600); err != nil {
		return err
	}
	before, err := image.Bundles()
	if err != nil {
		return err
	}
	for _, b := range before {
		if bytes.Equal(b.Payload, statement) && b.Identity == k.Identity && k.verify(ctx, bundlePath, b.JSON, image.Digest()) == nil {
			return nil
		}
	}
	if err := k.sign(ctx, "attest-blob", "--statement="+statementPath, "--bundle="+bundlePath); err != nil {
		return err
	}
	bundle, err := os.ReadFile(bundlePath)
	if err != nil {
		return err
	}
	// Before it is attached: the identity may be another one than users are told of.
	if err := k.verify(ctx, bundlePath, bundle, image.Digest()); err != nil {
		return err
	}
	return image.Carry(ctx, bundle, o)
}

// verify has cosign verify a bundle with a statement about an image.
func (k *Keyless) verify(ctx context.Context, path string, bundle []byte, digest string) error {
	if err := os.WriteFile(path, bundle, 0o600); err != nil {
		return err
	}
	b, err := bytecode.ParseBundle(bundle)
	if err != nil {
		return err
	}
	s, err := bytecode.ParseStatement(b.Payload)
	if err != nil {
		return err
	}
	algorithm, hex, _ := strings.Cut(digest, ":")
	args := append([]string{"verify-blob-attestation", "--bundle=" + path, "--type=" + s.PredicateType, "--digest=" + hex, "--digestAlg=" + algorithm}, k.options()...)
	return k.run(ctx, args...)
}

// SignFile signs a file.
func (k *Keyless) SignFile(ctx context.Context, path, signature string) error {
	verify := func(bundle string) error {
		return k.run(ctx, append([]string{"verify-blob", "--bundle=" + bundle, path}, k.options()...)...)
	}
	if _, err := os.Stat(signature); err == nil && verify(signature) == nil {
		return nil
	}
	tmp := signature + ".tmp"
	defer os.Remove(tmp)
	if err := k.sign(ctx, "sign-blob", "--bundle="+tmp, path); err != nil {
		return err
	}
	if err := verify(tmp); err != nil {
		return err
	}
	content, err := os.ReadFile(tmp)
	if err != nil {
		return err
	}
	return replace(signature, content)
}

func (k *Keyless) sign(ctx context.Context, command string, args ...string) error {
	args = append([]string{command, "--yes"}, args...)
	for flag, value := range map[string]string{"signing-config": k.SigningConfig, "trusted-root": k.TrustedRoot, "identity-token": k.Token} {
		if value != "" {
			args = append(args, "--"+flag+"="+value)
		}
	}
	return k.run(ctx, args...)
}

// run runs cosign, and returns what it said if it fails.
func (k *Keyless) run(ctx context.Context, args ...string) error {
	said, err := exec.CommandContext(ctx, k.Program, args...).CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("cosign %s: %w: %s", args[0], err, strings.TrimSpace(string(said)))
	}
	return nil
}

func (k *Keyless) options() []string {
	all := []string{"--certificate-identity=" + k.Identity, "--certificate-oidc-issuer=" + k.Issuer}
	if k.TrustedRoot != "" {
		all = append(all, "--trusted-root="+k.TrustedRoot)
	}
	if k.NoLog {
		all = append(all, "--insecure-ignore-tlog", "--insecure-ignore-sct", "--use-signed-timestamps")
	}
	return all
}

// Cosign returns cosign's options.
func (k *Keyless) Cosign() string { return strings.Join(k.options(), " ") }

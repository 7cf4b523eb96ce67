// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kubernetes-sigs/blixt/bytecode"
)

func bytecodeSignCommand() *cobra.Command {
	var o bytecode.Options
	var path string
	c := &cobra.Command{
		Use:   "sign IMAGE|DIR --key KEY",
		Short: "Sign an image as cosign does, in a registry or in a directory",
		Long: `Signs an image with a private key, in both of cosign's forms: as a Sigstore
bundle that refers to the image (written and read by cosign 3), and under the tag
sha256-DIGEST.sig (read by previous versions of cosign and by bpfman v0.6.0). The
command connects to the registry only, and makes no entry in a public log.

The key is one that cosign generate-key-pair has made, with its password in
COSIGN_PASSWORD or typed; or a plain EC or PKCS #8 key, such as made by
  openssl ecparam -genkey -name prime256v1 -noout -out blixt.key
  openssl ec -in blixt.key -pubout -out blixt.pub`,
		Example: `  blixt bytecode sign registry.example.com/blixt/bytecode:v1 --key cosign.key
  blixt bytecode sign out --key blixt.key`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			key, err := bytecode.ReadPrivateKey(path, askPassword)
			if err != nil {
				return err
			}
			name, err := bytecode.Sign(c.Context(), args[0], key, o)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "signed %s\n", name)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&path, "key", "", "private key in PEM, such as cosign.key")
	registryFlags(f, &o)
	_ = c.MarkFlagRequired("key")
	return c
}

// askPassword returns COSIGN_PASSWORD or asks on the terminal, like cosign.
func askPassword() ([]byte, error) {
	if p, ok := os.LookupEnv("COSIGN_PASSWORD"); ok {
		return []byte(p), nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return nil, errors.New("the key has a password: set COSIGN_PASSWORD, or type it on a terminal")
	}
	fmt.Fprint(os.Stderr, "Password of the private key: ")
	p, err := term.ReadPassword(int(os.Stdin.Fd()))
	fmt.Fprintln(os.Stderr)
	if err != nil {
		return nil, fmt.Errorf("read password: %w", err)
	}
	return p, nil
}

func bytecodeVerifyCommand() *cobra.Command {
	o := bytecode.Options{AnyArchitecture: true}
	var keys []string
	var kind string
	var predicate bool
	c := &cobra.Command{
		Use:   "verify IMAGE|DIR --key KEY",
		Short: "Check that an image is signed by a key, and that its labels are true",
		Long: `Verifies signatures, in either of cosign's forms, with public keys, and checks
digests and labels. Fails unless one of the keys has signed this very image.
Prints the image's name by digest.

With --type it verifies attestations of that type instead: fails unless one of the
keys has signed such a statement about this very image. --predicate prints what is
stated, such as the SBOM. An attestation never counts as a signature.`,
		Example: `  blixt bytecode verify registry.example.com/blixt/bytecode:v1 --key cosign.pub
  blixt bytecode verify out --key old.pub --key new.pub
  blixt bytecode verify out --key cosign.pub --type slsaprovenance1
  blixt bytecode verify out --key cosign.pub --type spdxjson --predicate > sbom.spdx.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if o.Keys, err = readKeys(keys); err != nil {
				return err
			}
			if kind != "" {
				return verifyAttestation(c, args[0], kind, predicate, o)
			}
			if predicate {
				return errors.New("--predicate: of which attestation? Name its --type, such as spdxjson")
			}
			im, err := bytecode.Load(c.Context(), args[0], o)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "verified %s\n", im.Name)
			t, flush := newTable(c.OutOrStdout())
			signatureTable(t, im.Signatures)
			flush()
			return nil
		},
	}
	f := c.Flags()
	f.StringArrayVar(&keys, "key", nil, "public key in PEM, such as cosign.pub; of several, one must have signed")
	f.StringVar(&kind, "type", "", "verify attestations: spdxjson, slsaprovenance1, or the URI of another predicate")
	f.BoolVar(&predicate, "predicate", false, "print what the attestation states, in JSON, one line for each attestation")
	registryFlags(f, &o)
	_ = c.MarkFlagRequired("key")
	return c
}

func verifyAttestation(c *cobra.Command, image, kind string, predicate bool, o bytecode.Options) error {
	predicateType, err := bytecode.PredicateType(kind)
	if err != nil {
		return fmt.Errorf("--%w", err)
	}
	stored, err := bytecode.Open(c.Context(), image, o)
	if err != nil {
		return err
	}
	verified, err := stored.VerifyAttestation(predicateType, o.Keys)
	if err != nil {
		return err
	}
	if predicate {
		for _, a := range verified {
			fmt.Fprintf(c.OutOrStdout(), "%s\n", a.Predicate)
		}
		return nil
	}
	fmt.Fprintf(c.OutOrStdout(), "verified %s of %s\n", predicateType, stored.Name())
	t, flush := newTable(c.OutOrStdout())
	attestationTable(t, stored.Digest(), verified)
	flush()
	return nil
}

func bytecodeKeygenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen FILE",
		Short: "Make a key to sign images with",
		Long: `Writes a private key in PEM (ECDSA, P-256), without a password, to a file that only its
owner may read. The file must not exist. Prints the public key, as the BlixtConfig's
verificationKeys and files for --key and --verify-key have it.

Keep the private key: images that are signed by another one are refused by clusters
that know this one alone. cosign generate-key-pair makes keys with a password.`,
		Example: `  blixt bytecode keygen blixt.key > blixt.pub`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			key, err := bytecode.GenerateKey(args[0])
			if err != nil {
				return err
			}
			_, err = io.WriteString(c.OutOrStdout(), key.PEM)
			return err
		},
	}
}

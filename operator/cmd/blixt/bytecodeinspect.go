// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/bytecode"
)

func bytecodeInspectCommand() *cobra.Command {
	var o bytecode.Options
	var keys []string
	var output format
	c := &cobra.Command{
		Use:   "inspect [SOURCE]",
		Short: "Show what an image or object contains, and which kernel it needs",
		Long: `Shows programs, maps and their sizes, the layout of maps, the oldest kernel,
digests, annotations, signatures and attestations of a file, a directory, an image
in a registry, or the object built in. With --key it tells which signatures and
attestations are by the key; it fails for none of them: see blixt bytecode verify.

An attestation states something of the image, such as what it is made of (SPDX) or
how it was built (SLSA provenance). It is no signature. What a certificate says of
who signed is shown as it is: only cosign verifies that.`,
		Example: `  blixt bytecode inspect
  blixt bytecode inspect blixt.o -o json
  blixt bytecode inspect registry.example.com/blixt/bytecode:v1 --key cosign.pub`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			known, err := readKeys(keys)
			if err != nil {
				return err
			}
			source := ""
			if len(args) == 1 {
				source = args[0]
			}
			o.AnyArchitecture = o.Architecture == ""
			im, err := inspectImage(c.Context(), source, known, o)
			if err != nil {
				return err
			}
			if im.Digest == "" && o.Architecture != "" {
				return fmt.Errorf("--arch %s: an object that is in no image is the same for all: leave it away", o.Architecture)
			}
			return output.print(c.OutOrStdout(), im, func(w io.Writer) { imageTable(w, im) })
		},
	}
	f := c.Flags()
	output.add(f)
	f.StringVar(&o.Architecture, "arch", "", "architecture whose image to show, such as arm64 (default: this machine's)")
	f.StringArrayVar(&keys, "key", nil, "public key in PEM, such as cosign.pub, to verify signatures and attestations with")
	registryFlags(f, &o)
	return c
}

// inspected is an image with all that is attached to it.
type inspected struct {
	*bytecode.Image
	Signatures   []bytecode.Signature   `json:"signatures,omitempty"`
	Attestations []bytecode.Attestation `json:"attestations,omitempty"`
}

func inspectImage(ctx context.Context, source string, keys []*bytecode.PublicKey, o bytecode.Options) (*inspected, error) {
	if source == "" {
		im, err := bytecode.Load(ctx, source, o)
		return &inspected{Image: im}, err
	}
	stored, err := bytecode.Open(ctx, source, o)
	if err != nil {
		return nil, err
	}
	all := &inspected{}
	if all.Image, err = stored.Load(o); err != nil {
		return nil, err
	}
	if all.Signatures, err = stored.Signatures(keys); err != nil {
		return nil, err
	}
	all.Attestations, err = stored.Attestations(keys)
	return all, err
}

// imageTable prints an image for people.
func imageTable(w io.Writer, im *inspected) {
	t, flush := newTable(w)
	line := func(key, value string) {
		if value != "" {
			t.printf("%s\t%s\n", key, value)
		}
	}
	line("Name", im.Name)
	line("Digest", im.Digest)
	line("Object", fmt.Sprintf("sha256:%s, %s", im.Object.SHA256, size(int64(len(im.Object.Bytes)))))
	if im.Digest != "" {
		line("Layer", size(im.Size))
	}
	line("Platforms", strings.Join(im.Platforms, ", "))
	line("Map layout", fmt.Sprint(im.Object.Layout))
	line("Kernel", im.Kernel+" or newer")
	for _, key := range slices.Sorted(maps.Keys(im.Annotations)) {
		short := strings.TrimPrefix(key, "org.opencontainers.image.")
		line(strings.ToUpper(short[:1])+short[1:], im.Annotations[key])
	}

	t.printf("\nPROGRAM\tTYPE\tSECTION\n")
	for _, p := range im.Object.Programs {
		t.printf("%s\t%s\t%s\n", p.Name, p.Type, p.Section)
	}
	t.printf("\nMAP\tTYPE\tENTRIES\tKEY\tVALUE\n")
	for _, m := range im.Object.Maps {
		t.printf("%s\t%s\t%d\t%d B\t%d B\n", m.Name, m.Type, m.MaxEntries, m.KeySize, m.ValueSize)
	}
	t.printf("\nNEEDS\tLINUX\tWITHOUT\n")
	for _, n := range im.Object.Needs {
		t.printf("%s\t%s\t%s\n", n.Feature, n.Kernel, cmp.Or(n.Without, "does not load"))
	}
	if im.Digest != "" {
		signatureTable(t, im.Signatures)
		attestationTable(t, im.Digest, im.Attestations)
	}
	flush()
}

func signatureTable(t printer, all []bytecode.Signature) {
	if len(all) == 0 {
		t.printf("\nNot signed.\n")
		return
	}
	t.printf("\nSIGNATURE\tBY\tVERIFIED BY\n")
	for _, s := range all {
		t.printf("%s\t%s\t%s\n", s.Kind, signer(s.Key, s.Identity, s.Issuer), cmp.Or(s.VerifiedBy, s.Problem, "not verified"))
	}
}

func attestationTable(t printer, digest string, all []bytecode.Attestation) {
	if len(all) == 0 {
		return
	}
	t.printf("\nATTESTATION\tABOUT\tBY\tVERIFIED BY\n")
	for _, a := range all {
		t.printf("%s\t%s\t%s\t%s\n", cmp.Or(a.PredicateType, "-"), about(a.Subjects, digest),
			signer(a.Key, a.Identity, a.Issuer), cmp.Or(a.VerifiedBy, a.Problem, "not verified"))
	}
}

// about names the subjects of a statement that is attached to an image.
func about(subjects []string, digest string) string {
	first := "this image"
	switch {
	case len(subjects) == 0:
		return "-"
	case !slices.Contains(subjects, digest):
		first = subjects[0]
	}
	if others := len(subjects) - 1; others > 0 {
		return fmt.Sprintf("%s and %d more", first, others)
	}
	return first
}

// signer names who claims to have signed: a key, or an identity for which an issuer vouches.
func signer(key, identity, issuer string) string {
	if identity == "" {
		return cmp.Or(key, "-")
	}
	return identity + ", says " + cmp.Or(issuer, "nobody")
}

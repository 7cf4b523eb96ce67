// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/bytecode"
)

func bytecodeInspectCommand() *cobra.Command {
	o := bytecode.Options{Signatures: true}
	var output format
	c := &cobra.Command{
		Use:   "inspect [SOURCE]",
		Short: "Show what an image or object contains, and which kernel it needs",
		Long: `Shows programs, maps and their sizes, the layout of maps, the oldest kernel,
digests, annotations and signatures of a file, a directory, an image in a
registry, or the object built in. The signatures are listed, not verified: see
blixt bytecode verify.`,
		Example: `  blixt bytecode inspect
  blixt bytecode inspect blixt.o -o json
  blixt bytecode inspect registry.example.com/blixt/bytecode:v1`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			source := ""
			if len(args) == 1 {
				source = args[0]
			}
			o.AnyArchitecture = o.Architecture == ""
			im, err := bytecode.Load(c.Context(), source, o)
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
	registryFlags(f, &o)
	return c
}

// imageTable prints an image for people.
func imageTable(w io.Writer, im *bytecode.Image) {
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
	}
	flush()
}

func signatureTable(t printer, all []bytecode.Signature) {
	if len(all) == 0 {
		t.printf("\nNot signed.\n")
		return
	}
	t.printf("\nSIGNATURE\tKEY\tVERIFIED BY\n")
	for _, s := range all {
		t.printf("%s\t%s\t%s\n", s.Kind, cmp.Or(s.Key, "-"), cmp.Or(s.VerifiedBy, s.Problem, "not verified"))
	}
}

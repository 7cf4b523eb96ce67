// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/bytecode"
)

func bytecodePushCommand() *cobra.Command {
	var o bytecode.Options
	c := &cobra.Command{
		Use:   "push [SOURCE] IMAGE",
		Short: "Upload an image, with its signatures, to a registry",
		Long: `Uploads an image that build or pull has written, or one of another registry. A file
that ends in .o, or the object built in if there is no SOURCE, is first made an
image. Prints the image's name by digest. Give bpfman this name rather than a tag:
bpfman keeps the image that it once pulled for a tag.`,
		Example: `  blixt bytecode push out registry.example.com/blixt/bytecode:v1
  blixt bytecode push registry.example.com/blixt/bytecode:v1   # the object built in
  blixt bytecode push out localhost:5000/blixt/bytecode:v1 --ca-file ca.crt`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) (err error) {
			to, source := args[len(args)-1], ""
			if len(args) == 2 {
				source = args[0]
			}
			shown := progress("pushing "+to, &o)
			defer func() { shown.end(err) }()
			image, err := openImage(c, source, o)
			if err != nil {
				return err
			}
			name, err := image.Push(c.Context(), to, o)
			if err != nil {
				return err
			}
			shown.end(nil) // before the name is printed
			fmt.Fprintln(c.OutOrStdout(), name)
			return nil
		},
	}
	registryFlags(c.Flags(), &o)
	return c
}

// openImage opens an image, or makes one of an object.
func openImage(c *cobra.Command, source string, o bytecode.Options) (*bytecode.Stored, error) {
	b := buildFlags{file: source, meta: bytecode.Meta{Source: "https://github.com/kubernetes-sigs/blixt"}}
	if source == "" {
		return b.build(c.Context())
	}
	image, err := bytecode.Open(c.Context(), source, o)
	if err != nil {
		return nil, err
	}
	if image.Digest() == "" {
		return b.build(c.Context())
	}
	return image, nil
}

func bytecodePullCommand() *cobra.Command {
	var o bytecode.Options
	var dir string
	var keys []string
	c := &cobra.Command{
		Use:   "pull IMAGE -d DIR",
		Short: "Download an image, with its signatures, as an OCI layout in a directory",
		Long: `Downloads an image for all architectures, with its signatures. It can then be
verified, inspected, and pushed elsewhere without the registry.`,
		Example: `  blixt bytecode pull registry.example.com/blixt/bytecode:v1 -d out
  blixt bytecode pull registry.example.com/blixt/bytecode:v1 -d out --verify-key cosign.pub`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if o.Keys, err = readKeys(keys); err != nil {
				return err
			}
			shown := progress("pulling "+args[0], &o)
			defer func() { shown.end(err) }()
			image, err := bytecode.Open(c.Context(), args[0], o)
			if err != nil {
				return err
			}
			o.AnyArchitecture = true
			if _, err := image.Load(o); err != nil {
				return err
			}
			if err := image.Write(dir); err != nil {
				return err
			}
			shown.end(nil) // before the name is printed
			fmt.Fprintf(c.OutOrStdout(), "%s@%s\n", dir, image.Digest())
			return nil
		},
	}
	f := c.Flags()
	f.StringVarP(&dir, "dir", "d", "", "directory to write; an OCI layout there is replaced")
	f.StringArrayVar(&keys, "verify-key", nil, "public key in PEM; the image must be signed by one of those given")
	registryFlags(f, &o)
	_ = c.MarkFlagRequired("dir")
	return c
}

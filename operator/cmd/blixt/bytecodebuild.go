// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/bytecode"
)

// buildFlags select what an image is built from.
type buildFlags struct {
	file  string
	sizes bytecode.Sizes
	meta  bytecode.Meta
}

func bytecodeBuildCommand() *cobra.Command {
	var b buildFlags
	var dir string
	c := &cobra.Command{
		Use:   "build -d DIR",
		Short: "Build an image of the data plane, as an OCI layout in a directory",
		Long: `Builds an OCI image index of the data plane that is built into this program, or of
a compiled object. The index has one image for each architecture that the object
fits. Equal objects with equal annotations give equal digests, on any machine.

bpfman takes the sizes of tables from the object, so they are chosen here. No
compiler is needed.`,
		Example: `  blixt bytecode build -d out
  blixt bytecode build -d out --flows 1048576 --ring-slots 8388608
  blixt bytecode build -d out -f blixt.o --version v1.2.3 --revision "$(git rev-parse HEAD)"`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			image, err := b.build(c.Context())
			if err != nil {
				return err
			}
			if err := image.Write(dir); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s@%s\n", dir, image.Digest())
			return nil
		},
	}
	f := c.Flags()
	f.StringVarP(&dir, "dir", "d", "", "directory to write; an OCI layout there is replaced")
	f.StringVarP(&b.file, "file", "f", "", "compiled object (default: the one built in)")
	f.Uint32Var(&b.sizes.Flows, "flows", 0, "established flows, 0: as compiled")
	f.Uint32Var(&b.sizes.RingSlots, "ring-slots", 0, "slots of all rings, 0: as compiled")
	f.Uint32Var(&b.sizes.Addresses, "addresses", 0, "addresses, 0: as compiled")
	f.Uint32Var(&b.sizes.Frontends, "frontends", 0, "frontends, 0: as compiled")
	f.Uint32Var(&b.sizes.Backends, "backends", 0, "backends of all frontends, 0: as compiled")
	f.StringVar(&b.meta.Version, "version", "", "version to write into the image (default for the object built in: this program's)")
	f.StringVar(&b.meta.Revision, "revision", "", "revision of the source to write into the image (default for the object built in: this program's)")
	f.StringVar(&b.meta.Source, "source", "https://github.com/kubernetes-sigs/blixt", "address of the source to write into the image")
	_ = c.MarkFlagRequired("dir")
	return c
}

func (b buildFlags) build(ctx context.Context) (*bytecode.Stored, error) {
	im, err := bytecode.Load(ctx, b.file, bytecode.Options{AnyArchitecture: true})
	if err != nil {
		return nil, err
	}
	object, err := im.Object.Resize(b.sizes)
	if err != nil {
		return nil, err
	}
	meta := b.meta
	if b.file == "" {
		if meta.Version == "" {
			meta.Version = strings.Trim(version(), "()")
		}
		if meta.Revision == "" {
			meta.Revision = revision()
		}
	}
	return bytecode.New(object, meta)
}

// revision returns the commit that the build was stamped with; "": none.
func revision() (commit string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			commit = s.Value
		}
	}
	return commit
}

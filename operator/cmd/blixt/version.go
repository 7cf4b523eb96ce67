// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/bpf"
)

// build is what blixt version prints.
type build struct {
	Version string `json:"version"`
	// Layout is that of the maps that it writes.
	Layout   int    `json:"layout"`
	Go       string `json:"go"`
	Platform string `json:"platform"` // as linux/amd64
}

func versionCommand() *cobra.Command {
	var output format
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version, and the layout of the maps that it writes",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b := build{version(), bpf.Layout, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return output.print(c.OutOrStdout(), b, func(w io.Writer) {
				printer{w}.printf("blixt %s, map layout %d, %s %s\n", b.Version, b.Layout, b.Go, b.Platform)
			})
		},
	}
	output.add(c.Flags())
	return c
}

// version returns the version that the build was stamped with.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

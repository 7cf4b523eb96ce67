// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/kubernetes-sigs/blixt/operator/release"
)

// summarize prints what was made, and what users install of it.
func (s *stages) summarize(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MADE\tSIZE\tDIGEST")
	for _, b := range s.binaries {
		info, err := os.Stat(b.Path)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "blixt for linux/%s\t%s\tsha256:%s\n", b.Arch, megabytes(info.Size()), b.SHA256)
	}
	for _, f := range s.made.Files {
		if f.Kind == release.KindSBOM || f.Kind == release.KindProvenance {
			continue
		}
		fmt.Fprintf(w, "%s\t%s\tsha256:%s\n", f.Name, megabytes(f.Size), f.SHA256)
	}
	for _, i := range s.made.Images {
		fmt.Fprintf(w, "%s:%s\t\t%s\n", i.Repository, i.Tag, i.Digest)
	}
	return w.Flush()
}

func megabytes(size int64) string { return fmt.Sprintf("%.2f MB", float64(size)/1e6) }

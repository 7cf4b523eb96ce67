// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/operator/shortform"
)

func initCommand() *cobra.Command {
	var short shortFlags
	var path string
	var force bool
	c := &cobra.Command{
		Use:   "init --listen ADDRESS:PORT --backend ADDRESS:PORT [-o FILE]",
		Short: "Write files for blixt run -f, from a few addresses",
		Long: `Writes what the same flags of blixt run mean as objects of Gateway API, with comments:
a file to edit, to keep under version control, or to take to Kubernetes. blixt run -f
serves it exactly as blixt run serves the flags, and follows its changes while it runs.

There is no file of examples to fill in: give your own addresses, so that what is
written can be served as it is. Nothing is read from this host, and no privilege is
needed.`,
		Example: `  blixt init --listen 192.0.2.10:80 --backend 10.0.0.1:8080 --backend 10.0.0.2:8080
  blixt init --listen 192.0.2.10:80,name=web --backend 10.0.0.1:8080 -o /etc/blixt/web.yaml
  blixt init --listen 192.0.2.10:53/udp --listen 192.0.2.10:53/tcp --backend 10.0.0.1 --backend 10.0.0.2`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if len(short) == 0 {
				return errors.New("say what clients connect to, and which servers answer, such as: " +
					"blixt init --listen 192.0.2.10:80 --backend 10.0.0.1:8080 --backend 10.0.0.2:8080")
			}
			text, err := short.yaml()
			if err != nil {
				return err
			}
			if path == "" || path == "-" {
				_, err := io.WriteString(c.OutOrStdout(), text)
				return err
			}
			return writeNew(path, text, force)
		},
	}
	f := c.Flags()
	short.add(f)
	f.StringVarP(&path, "output-file", "o", "", "file to write; standard output if none is said")
	f.BoolVar(&force, "force", false, "write over the file if there is one")
	return c
}

// yaml returns a file with all objects.
func (s shortFlags) yaml() (string, error) {
	const class = "blixt"
	documents, err := shortform.Objects(s, class)
	texts := []string{shortform.Class(class)}
	for _, d := range documents {
		texts = append(texts, d.Text)
	}
	var header strings.Builder
	header.WriteString("# Written by blixt init, from\n")
	for _, f := range s {
		fmt.Fprintf(&header, "#   %s\n", f)
	}
	header.WriteString("# To serve it, as root: blixt run -f FILE\n\n")
	return header.String() + strings.Join(texts, "---\n"), err
}

// writeNew writes a file that is there as a whole, or not at all. It returns an error if
// there is one already, unless it is to be written over. A device or a pipe is written to.
func writeNew(path, text string, over bool) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	dir := filepath.Dir(path)
	switch info, err := os.Stat(path); {
	case err != nil: // said below
	case info.IsDir():
		return fmt.Errorf("it is a directory: name a file in it, such as %s", filepath.Join(path, "blixt.yaml"))
	case !info.Mode().IsRegular():
		return os.WriteFile(path, []byte(text), 0o644)
	}
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithPermissions(0o644))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no directory %s: make it with mkdir -p", dir)
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }()
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	if over {
		return f.CloseAtomicallyReplace()
	}
	if err := f.Sync(); err != nil {
		return err
	}
	// A link replaces nothing, whoever makes a file of that name meanwhile.
	if err := os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
		return errors.New("it exists already: choose another name, or give --force to write over it")
	} else if err != nil {
		return err
	}
	return nil
}

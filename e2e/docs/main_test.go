// SPDX-License-Identifier: Apache-2.0

// Package docs follows the documents: it types what their readers type, on a host of its
// own, and what appears must be what they show.
package docs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/document"
	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/e2e/lib/machine"
	"github.com/kubernetes-sigs/blixt/e2e/lib/reader"
)

const root = "../.."

func TestMain(m *testing.M) { labtest.Main(m) }

// world is a network with machines that blocks are run on.
type world struct {
	*reader.Network
	machines map[string]*machine.Machine
}

// follow has a reader follow blocks, on a network of that name.
func follow(t *testing.T, name string, blocks []document.Block) error {
	t.Helper()
	var machines []string
	for _, name := range []string{"host", "client", "web-1", "web-2"} {
		if reader.Names(blocks, name) {
			machines = append(machines, name)
		}
	}
	r := network(t, name, machines).reader(t)
	r.Correct = golden.Update()
	return errors.Join(r.Follow(blocks), r.Close(), r.Write(filepath.Join(root, blocks[0].File)))
}

// network makes a network of that name. Its servers answer HTTP.
func network(t *testing.T, name string, machines []string) world {
	t.Helper()
	blixt, err := os.ReadFile(labtest.Binary)
	if err != nil {
		t.Fatal(err)
	}
	n, err := reader.NewNetwork("blixt-e2e-docs-" + name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	n.Host.Forward()
	w := world{n, map[string]*machine.Machine{}}
	for _, name := range machines {
		m, err := machine.Start(n.Nodes()[name], machine.Options{Root: "/", Dir: t.TempDir(), Name: name})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = m.Close() })
		if err := errors.Join(reader.Equip(m), os.WriteFile(m.Path("/usr/local/bin/blixt"), blixt, 0o755)); err != nil {
			t.Fatal(err)
		}
		w.machines[name] = m
	}
	stop, err := reader.ServeSSH(n.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	for _, s := range n.Servers {
		stop, err := reader.Serve(s)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
	}
	return w
}

// reader returns one with terminals on all machines, whom the test closes.
func (w world) reader(t *testing.T) *reader.Reader {
	t.Helper()
	r, err := reader.New(w.machines, reader.Home)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// pages returns the documents that have blocks to be run, as paths from the root.
func pages(t *testing.T) map[string][]document.Block {
	t.Helper()
	all := map[string][]document.Block{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch name, _ := filepath.Rel(root, path); {
		case err != nil:
			return err
		case d.IsDir() && (name == ".git" || name == "bin"):
			return filepath.SkipDir
		case strings.HasSuffix(name, ".md") && !slices.Contains(reader.WithSystemd, name):
			blocks, err := document.Read(path)
			for i := range blocks {
				blocks[i].File = name
			}
			for _, b := range blocks {
				if m, e := b.Mark(); e == nil && b.HasCommands() && m.Run != "" {
					all[name] = blocks
				}
			}
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

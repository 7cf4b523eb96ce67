// SPDX-License-Identifier: Apache-2.0

package bpfman

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/google/renameio/v2"

	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// note is what a data plane has to know of itself after a restart, and
// without bpfman.
type note struct {
	Socket string `json:"socket"`
	held
	// Older drain, or are to.
	Older []*Older `json:"older,omitempty"`
	Ended *Ended   `json:"ended,omitempty"`
}

// held is a program that bpfman holds for us.
type held struct {
	Program uint32 `json:"program"`
	Tag     string `json:"tag"`
	Digest  string `json:"digest"`
	// Image is what bpfman has pulled, "": it was handed a file.
	Image string `json:"image,omitempty"`
	Dir   string `json:"dir"`
	// Links have the ids of bpfman.
	Links []loader.LinkInfo `json:"links"`
}

// linksOf returns the links of a program, of whichever version.
func (n *note) linksOf(program uint32) []loader.LinkInfo {
	if n.Program == program {
		return n.Links
	}
	for _, o := range n.Older {
		if o.Program == program {
			return o.Links
		}
	}
	return nil
}

func notePath(runDir, name string) string { return filepath.Join(runDir, name+".bpfman.json") }

// readNote returns fs.ErrNotExist if there is none.
func readNote(runDir, name string) (n note, err error) {
	path := notePath(runDir, name)
	text, err := os.ReadFile(path)
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(text, &n); err != nil {
		return n, fmt.Errorf("read %s: %w", path, err)
	}
	return n, nil
}

func (n note) write(runDir, name string) error {
	text, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("write note: %w", err)
	}
	path := notePath(runDir, name)
	if err := renameio.WriteFile(path, text, 0o644, renameio.WithTempDir(runDir), renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("write note: %w", err)
	}
	return nil
}

func removeNote(runDir, name string) error {
	if err := os.Remove(notePath(runDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Loaded tells whether bpfman serves under a name, as far as notes tell.
func Loaded(runDir, name string) bool {
	_, err := os.Stat(notePath(runDir, name))
	return err == nil
}

// Replaced returns the programs of other versions that still serve, and what
// became of the last one that does not, nil: there was none.
func Replaced(runDir, name string) ([]*Older, *Ended, error) {
	n, err := readNote(runDir, name)
	return n.Older, n.Ended, err
}

// Inspect returns what bpfman has loaded for a name, and asks the kernel, not
// bpfman. It needs the right to read the pins of the maps. Without
// CAP_NET_ADMIN, links are those of the note.
func Inspect(runDir, name string) (info loader.Info, err error) {
	n, err := readNote(runDir, name)
	if err != nil {
		return info, err
	}
	info = loader.Info{Loader: "bpfman", Dir: n.Dir, ProgramID: n.Program, ProgramTag: n.Tag, Digest: n.Digest, Image: n.Image, Maps: map[string]uint32{}}
	entries, err := os.ReadDir(n.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return info, fmt.Errorf("bpfman has unloaded program %d (%w): blixt run loads it again, start it if it does not run", n.Program, err)
	}
	if err != nil {
		return info, fmt.Errorf("read pin directory: %w", err)
	}
	for _, e := range entries {
		if info.Maps[e.Name()], err = mapID(filepath.Join(n.Dir, e.Name())); err != nil {
			return info, fmt.Errorf("map %s: %w", e.Name(), err)
		}
	}
	for _, l := range n.Links {
		if there, err := attached(l.Index, l.Direction, n.Program); err != nil || there {
			if ifc, err := net.InterfaceByIndex(l.Index); err == nil { // it may have another name by now
				l.Interface = ifc.Name
			}
			info.Links = append(info.Links, l)
		}
	}
	slices.SortFunc(info.Links, func(a, b loader.LinkInfo) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.Direction, b.Direction))
	})
	return info, nil
}

func mapID(path string) (uint32, error) {
	m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return 0, err
	}
	defer m.Close()
	i, err := m.Info()
	if err != nil {
		return 0, err
	}
	id, _ := i.ID()
	return uint32(id), nil
}

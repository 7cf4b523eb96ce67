// SPDX-License-Identifier: Apache-2.0

package bpfman

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/google/renameio/v2"

	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// record is what a Loader needs to know after a restart and cannot ask bpfman or
// the kernel for.
type record struct {
	Socket string `json:"socket"`
	held
	// Previous are the programs that drain, or are to.
	Previous []*Previous `json:"older,omitempty"`
	Ended    *Ended      `json:"ended,omitempty"`
}

// held is a program that bpfman holds for us.
type held struct {
	Program uint32 `json:"program"`
	Tag     string `json:"tag"`
	Digest  string `json:"digest"`
	// Image is the one that bpfman has pulled, "": it was given a file.
	Image string `json:"image,omitempty"`
	Dir   string `json:"dir"`
	// Links have bpfman's ids, not the kernel's.
	Links []loader.LinkInfo `json:"links"`
}

// linksOf returns the links of a program, be it the one that serves or a previous
// one; nil: it is unknown.
func (r *record) linksOf(program uint32) []loader.LinkInfo {
	if r.Program == program {
		return r.Links
	}
	for _, p := range r.Previous {
		if p.Program == program {
			return p.Links
		}
	}
	return nil
}

func recordPath(runDir, name string) string { return filepath.Join(runDir, name+".bpfman.json") }

// readRecord reads the record of a name. Returns an error wrapping fs.ErrNotExist
// if there is none.
func readRecord(runDir, name string) (r record, err error) {
	path := recordPath(runDir, name)
	text, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("read %s: %w", path, err)
	}
	return r, nil
}

func (r record) write(runDir, name string) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	path := recordPath(runDir, name)
	if err := renameio.WriteFile(path, text, 0o644, renameio.WithTempDir(runDir), renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return nil
}

func removeRecord(runDir, name string) error {
	if err := os.Remove(recordPath(runDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Loaded reports whether there is a record of a program of a name: bpfman has
// loaded it, and it was not unloaded by Close.
func Loaded(runDir, name string) bool {
	_, err := os.Stat(recordPath(runDir, name))
	return err == nil
}

// Dirs returns where the maps of all programs of a name are pinned.
func Dirs(runDir, name string) (dirs []string) {
	r, err := readRecord(runDir, name)
	if err != nil {
		return nil
	}
	dirs = append(dirs, r.Dir)
	for _, p := range r.Previous {
		dirs = append(dirs, p.Dir())
	}
	return dirs
}

// ReadPrevious returns the previous programs of a name that still serve flows, and
// what became of the last one that was unloaded, nil: there was none. Only the
// exported fields, String and Dir of a Previous can be used.
func ReadPrevious(runDir, name string) ([]*Previous, *Ended, error) {
	r, err := readRecord(runDir, name)
	return r.Previous, r.Ended, err
}

// Inspect returns what bpfman has loaded for a name. It asks the kernel, not
// bpfman, and needs the right to read the pins of the maps. Without CAP_NET_ADMIN
// it returns the links as recorded. The error wraps fs.ErrNotExist if there is no
// record, or if bpfman has unloaded the program.
func Inspect(runDir, name string) (info loader.Info, err error) {
	r, err := readRecord(runDir, name)
	if err != nil {
		return info, err
	}
	info = loader.Info{Loader: "bpfman", Dir: r.Dir, ProgramID: r.Program, ProgramTag: r.Tag, Digest: r.Digest, Image: r.Image, Maps: map[string]uint32{}}
	entries, err := os.ReadDir(r.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return info, fmt.Errorf("bpfman has unloaded program %d (%w): blixt run loads it again, start it if it does not run", r.Program, err)
	}
	if err != nil {
		return info, fmt.Errorf("read pin directory: %w", err)
	}
	for _, e := range entries {
		if info.Maps[e.Name()], err = mapID(filepath.Join(r.Dir, e.Name())); err != nil {
			return info, fmt.Errorf("map %s: %w", e.Name(), err)
		}
	}
	network, err := hostnet.Read()
	if err != nil {
		return info, err
	}
	for _, l := range r.Links {
		if there, err := attached(l.Index, l.Direction, r.Program); err != nil || there {
			if i, ok := network.ByIndex(l.Index); ok { // it may have another name by now
				l.Interface, l.Before = i.Name, loader.Before(i, l.Direction, r.Program)
			}
			info.Links = append(info.Links, l)
		}
	}
	slices.SortFunc(info.Links, func(a, b loader.LinkInfo) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.Direction, b.Direction))
	})
	return info, nil
}

// mapID returns the kernel's id of a pinned map.
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

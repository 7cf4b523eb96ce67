// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf/link"
)

// Leftover is something that a data plane has left on this host, and how to remove it.
type Leftover struct {
	What   string
	Remove func() error
}

// Leftovers returns what the built-in loader has pinned under a name, in the order in
// which it must be removed: what no packet reaches any more comes last. The caller holds
// the lock of the name. It needs no file of the run directory to be there.
func Leftovers(o Options) (left []Leftover, err error) {
	dir := Pins(defaultTo(o.BPFFS, DefaultBPFFS), defaultTo(o.Name, DefaultName))
	entries, err := os.ReadDir(filepath.Join(dir, "links"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read pin directory: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, "links", e.Name())
		what := "the link " + path
		if k, ok := parseLinkKey(e.Name()); ok {
			what = fmt.Sprintf("the program at %s of interface %d", k.direction, k.ifindex)
			if ifc, err := net.InterfaceByIndex(k.ifindex); err == nil {
				what = fmt.Sprintf("the program at %s of %s", k.direction, ifc.Name)
			}
		}
		left = append(left, Leftover{what, func() error { return dropPinned(path) }})
	}
	if _, err := os.Stat(dir); err == nil {
		left = append(left, Leftover{"the program and the maps pinned at " + dir, func() error { return removePins(dir) }})
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read pin directory: %w", err)
	}
	image := imagePath(defaultTo(o.RunDir, DefaultRunDir), defaultTo(o.Name, DefaultName))
	if _, err := os.Stat(image); err == nil {
		left = append(left, Leftover{"the file " + image, func() error { return writeImage(image, "") }})
	}
	return left, nil
}

// LeftoversOf returns the links of a program in the current network namespace, wherever
// they are pinned: its BPF file system may be hidden by another one, or be another
// container's.
func LeftoversOf(program uint32) (left []Leftover, err error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, ifc := range interfaces {
		for _, d := range slices.Backward(directions) { // no new flow begins while replies are translated
			at, err := link.QueryPrograms(link.QueryOptions{Target: ifc.Index, Attach: d.attach})
			if err != nil {
				continue // it is gone
			}
			for _, p := range at.Programs {
				id, ok := p.LinkID()
				if uint32(p.ID) != program || !ok {
					continue
				}
				left = append(left, Leftover{
					What:   fmt.Sprintf("program %d at %s of %s", program, d.name, ifc.Name),
					Remove: func() error { return detachID(id) },
				})
			}
		}
	}
	return left, nil
}

func detachID(id link.ID) error {
	ln, err := link.NewFromID(id)
	if err != nil {
		return fmt.Errorf("open link %d: %w", id, err)
	}
	return errors.Join(ln.Detach(), ln.Close())
}

// Names returns the names under which the built-in loader has pinned something.
func Names(bpffs string) (names []string) {
	entries, _ := os.ReadDir(Pins(defaultTo(bpffs, DefaultBPFFS), "")) // none: nothing was loaded
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}

// dropPinned detaches a pinned link and unpins it.
func dropPinned(path string) error {
	ln, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return fmt.Errorf("open link %s: %w", path, err)
	}
	return (&attached{link: ln, path: path}).drop()
}

// removePins removes a directory of pins, those of links first, so that no packet
// reaches a program some of whose pins are gone.
func removePins(dir string) error {
	for _, d := range []string{filepath.Join(dir, "links"), dir} {
		if err := os.RemoveAll(d); err != nil {
			return fmt.Errorf("remove pins: %w", err)
		}
	}
	// This fails if other names are pinned beside this one, and should.
	_ = os.Remove(filepath.Dir(dir))
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"unsafe"

	"github.com/cilium/ebpf"
)

// PortRange is a range of ports, both ends included.
type PortRange struct {
	Min uint16 `json:"min"`
	Max uint16 `json:"max"`
}

func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.Min, r.Max) }

// Overlaps tells whether the ranges share a port. The zero range has none.
func (r PortRange) Overlaps(o PortRange) bool {
	return r != PortRange{} && o != PortRange{} && r.Min <= o.Max && o.Min <= r.Max
}

// Halves divides the ports between the two programs that there may be on a
// node. Of a single port the second half is the zero range.
func (r PortRange) Halves() [2]PortRange {
	middle := r.Min + (r.Max-r.Min)/2
	halves := [2]PortRange{{Min: r.Min, Max: middle}}
	if middle < r.Max {
		halves[1] = PortRange{Min: middle + 1, Max: r.Max}
	}
	return halves
}

// FreeHalf returns the first half that shares no port with those that are taken.
func (r PortRange) FreeHalf(taken ...PortRange) (PortRange, bool) {
	for _, half := range r.Halves() {
		if half != (PortRange{}) && !slices.ContainsFunc(taken, half.Overlaps) {
			return half, true
		}
	}
	return PortRange{}, false
}

// Handover is what one version of Blixt may know and change of the data plane
// of any other, as the contract promises for all layouts.
type Handover struct {
	// Draining tells whether new flows are left to the next program.
	Draining bool
	// SNAT are the source ports of translated flows; zero: nothing was ever served.
	SNAT PortRange
}

// Where the promise has its place in the config.
const (
	flagsOffset   = unsafe.Offsetof(Config{}.Flags)
	snatMinOffset = unsafe.Offsetof(Config{}.SnatMin)
	snatMaxOffset = unsafe.Offsetof(Config{}.SnatMax)
)

// ReadHandover reads that of the data plane that is pinned at dir. Returns
// fs.ErrNotExist if nothing is, and LayoutError if it is something else.
func ReadHandover(dir string) (h Handover, err error) {
	err = withConfig(dir, func(value []byte) bool {
		h.Draining = binary.NativeEndian.Uint32(value[flagsOffset:])&ConfigDrain != 0
		h.SNAT.Min = binary.NativeEndian.Uint16(value[snatMinOffset:])
		h.SNAT.Max = binary.NativeEndian.Uint16(value[snatMaxOffset:])
		return false
	})
	return h, err
}

// Drain makes the data plane that is pinned at dir serve the flows that it
// knows, and leave all others to the next program; or makes it serve
// everything again. Nobody else may write the config meanwhile. Returns the
// errors of ReadHandover.
func Drain(dir string, on bool) error {
	return withConfig(dir, func(value []byte) bool {
		flags := binary.NativeEndian.Uint32(value[flagsOffset:]) &^ ConfigDrain
		if on {
			flags |= ConfigDrain
		}
		binary.NativeEndian.PutUint32(value[flagsOffset:], flags)
		return true
	})
}

// withConfig calls change with the config, and writes it if change says so.
// Returns fs.ErrNotExist if there is no such directory.
func withConfig(dir string, change func(value []byte) (write bool)) error {
	paths, err := filepath.Glob(filepath.Join(dir, layoutPrefix+"*"))
	if err != nil {
		return fmt.Errorf("find config in %s: %w", dir, err)
	}
	if len(paths) == 0 { // a directory that may not be read may have it
		paths = []string{filepath.Join(dir, LayoutMap)}
	}
	m, err := ebpf.LoadPinnedMap(paths[0], nil)
	if _, e := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && e == nil {
		err = &LayoutError{}
	}
	if err != nil {
		return fmt.Errorf("open config: %w", err)
	}
	defer m.Close()
	value, err := m.LookupBytes(uint32(0))
	if err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	if len(value) < int(unsafe.Sizeof(Config{}.SnatMax)+snatMaxOffset) {
		return fmt.Errorf("config has %d bytes: %w", len(value), &LayoutError{Found: []string{filepath.Base(paths[0])}})
	}
	if !change(value) {
		return nil
	}
	if err := m.Put(uint32(0), value); err != nil {
		return fmt.Errorf("write config: %w", err)
	}
	return nil
}

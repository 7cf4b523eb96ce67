// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Handover is what any version of Blixt may read and change in the data plane
// of any other version: the contract keeps it the same in all layouts.
type Handover struct {
	// Draining is true if new flows are left to the next program.
	Draining bool
	// SNAT are the source ports of translated flows; zero if nothing was ever
	// served.
	SNAT lb.PortRange
}

// Offsets in the config that are the same in all layouts.
const (
	flagsOffset   = unsafe.Offsetof(Config{}.Flags)
	snatMinOffset = unsafe.Offsetof(Config{}.SnatMin)
	snatMaxOffset = unsafe.Offsetof(Config{}.SnatMax)
	handoverSize  = int(snatMaxOffset + unsafe.Sizeof(Config{}.SnatMax))
)

// ReadHandover reads the handover of the data plane whose maps are pinned in
// dir. It returns an error wrapping fs.ErrNotExist if there is no such directory,
// and another error if what is pinned there is no data plane.
func ReadHandover(dir string) (h Handover, err error) {
	err = withConfig(dir, func(value []byte) bool {
		h = decodeHandover(value)
		return false
	})
	return h, err
}

// HandoverOf reads the handover from a config map, be it of another layout.
func HandoverOf(config *ebpf.Map) (Handover, error) {
	value, err := config.LookupBytes(uint32(0))
	if err != nil {
		return Handover{}, fmt.Errorf("read config: %w", err)
	}
	if len(value) < handoverSize {
		return Handover{}, fmt.Errorf("config has %d bytes: %w", len(value), wrongLayout())
	}
	return decodeHandover(value), nil
}

func decodeHandover(value []byte) Handover {
	return Handover{
		Draining: binary.NativeEndian.Uint32(value[flagsOffset:])&ConfigDrain != 0,
		SNAT:     lb.PortRange{First: binary.NativeEndian.Uint16(value[snatMinOffset:]), Last: binary.NativeEndian.Uint16(value[snatMaxOffset:])},
	}
}

// Drain makes the data plane whose maps are pinned in dir serve only the flows
// that it knows, and leave all others to the next program; or, if on is false,
// serve all flows again. Nobody else may write the config meanwhile. It returns
// the errors of ReadHandover.
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

// SetSNAT records the source ports of a data plane that serves nothing yet. Nobody else may
// write the config meanwhile.
func SetSNAT(dir string, ports lb.PortRange) error {
	return withConfig(dir, func(value []byte) bool {
		binary.NativeEndian.PutUint16(value[snatMinOffset:], ports.First)
		binary.NativeEndian.PutUint16(value[snatMaxOffset:], ports.Last)
		return true
	})
}

// withConfig calls change with the config, and writes the config if change
// returns true. It returns the errors of ReadHandover.
func withConfig(dir string, change func(value []byte) (write bool)) error {
	paths, err := filepath.Glob(filepath.Join(dir, bpf.LayoutPrefix+"*"))
	if err != nil {
		return fmt.Errorf("find config in %s: %w", dir, err)
	}
	if len(paths) == 0 { // the directory may have it, but not be readable
		paths = []string{filepath.Join(dir, bpf.LayoutMap)}
	}
	m, err := ebpf.LoadPinnedMap(paths[0], nil)
	if _, e := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && e == nil {
		err = wrongLayout()
	}
	if err != nil {
		return fmt.Errorf("open config: %w", err)
	}
	defer m.Close()
	value, err := m.LookupBytes(uint32(0))
	if err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	if len(value) < handoverSize {
		return fmt.Errorf("config has %d bytes: %w", len(value), wrongLayout(filepath.Base(paths[0])))
	}
	if !change(value) {
		return nil
	}
	if err := m.Put(uint32(0), value); err != nil {
		return fmt.Errorf("write config: %w", err)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

// Package others finds the data planes of other load balancers on this host. Who
// serves what, and from which ports, is read from the kernel: other load balancers
// may have another run directory, or run in a container.
package others

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// bpfmanMaps is where bpfman pins the maps of a program, by its id.
const bpfmanMaps = "/run/bpfman/fs/maps"

// DataPlane is one whose program is attached in this network namespace.
type DataPlane struct {
	Program ebpf.ProgramID
	// Name is that of its load balancer, "": it is not known.
	Name string

	layout                       string
	config, frontends, addresses *ebpf.Map
}

// String names the data plane.
func (d *DataPlane) String() string {
	if d.Name == "" {
		return fmt.Sprintf("program %d", d.Program)
	}
	return fmt.Sprintf("%q, program %d", d.Name, d.Program)
}

// Ports returns its source ports; zero: it has served nothing yet.
func (d *DataPlane) Ports() (lb.PortRange, error) {
	h, err := datapath.HandoverOf(d.config)
	return h.SNAT, err
}

// Serves returns its frontends, and the addresses that it serves alone. It returns
// none of a data plane of another layout.
func (d *DataPlane) Serves() (frontends map[lb.Key]bool, exclusive map[netip.Addr]bool, err error) {
	frontends, exclusive = map[lb.Key]bool{}, map[netip.Addr]bool{}
	if d.layout != bpf.LayoutMap || d.frontends == nil || d.addresses == nil {
		return frontends, exclusive, nil
	}
	var key bpf.BlixtFrontendKey
	var frontend bpf.BlixtFrontend
	all := d.frontends.Iterate()
	for all.Next(&key, &frontend) {
		frontends[lb.Key{Addr: datapath.FromAddr(key.Addr), Port: datapath.FromPort(key.Port), Protocol: lb.Protocol(key.Protocol)}] = true
	}
	var ip bpf.BlixtAddr
	var address bpf.BlixtAddress
	each := d.addresses.Iterate()
	for each.Next(&ip, &address) {
		if address.Flags&datapath.AddressExclusive != 0 {
			exclusive[datapath.FromAddr(ip)] = true
		}
	}
	return frontends, exclusive, errors.Join(all.Err(), each.Err())
}

// Close releases the maps of a data plane that Open has returned.
func (d *DataPlane) Close() {
	for _, m := range []*ebpf.Map{d.config, d.frontends, d.addresses} {
		if m != nil {
			_ = m.Close()
		}
	}
}

// ID returns the id of the config map: the later one is loaded, the greater it is. It
// stays while programs are exchanged over the same maps.
func (d *DataPlane) ID() ebpf.MapID {
	info, err := d.config.Info()
	if err != nil {
		return 0
	}
	id, _ := info.ID()
	return id
}

// Finder finds them. It remembers what each program is.
type Finder struct {
	bpffs string
	own   func() []string

	mu    sync.Mutex
	known map[ebpf.ProgramID]*DataPlane // nil: the program is none, or cannot be read
}

// NewFinder returns a finder that knows the pins at bpffs. own returns where the maps
// of one's own programs are pinned.
func NewFinder(bpffs string, own func() []string) *Finder {
	return &Finder{bpffs: bpffs, own: own, known: map[ebpf.ProgramID]*DataPlane{}}
}

// Find returns all in the current network namespace, those whose packets come first
// first. What is returned may be used until the next call.
func (f *Finder) Find() ([]*DataPlane, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	attached, err := programs()
	if err != nil {
		return nil, err
	}
	for id, d := range f.known {
		if !slices.Contains(attached, id) {
			if d != nil {
				d.Close()
			}
			delete(f.known, id)
		}
	}
	own := map[ebpf.MapID]bool{}
	for _, dir := range f.own() {
		if d := Open(dir); d != nil {
			own[d.ID()] = true
			d.Close()
		}
	}
	var found []*DataPlane
	var pins map[ebpf.ProgramID]string
	for _, id := range attached {
		d, ok := f.known[id]
		if !ok {
			if pins == nil {
				pins = f.pins()
			}
			d = open(id, pins)
			f.known[id] = d
		}
		if d != nil && !own[d.ID()] {
			found = append(found, d)
		}
	}
	return found, nil
}

// programs returns the ids of all programs at TCX ingress of this network namespace.
func programs() (ids []ebpf.ProgramID, err error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, i := range interfaces {
		at, err := link.QueryPrograms(link.QueryOptions{Target: i.Index, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			continue // it is gone
		}
		for _, p := range at.Programs {
			if !slices.Contains(ids, p.ID) {
				ids = append(ids, p.ID)
			}
		}
	}
	return ids, nil
}

// pins returns the directories of the programs that the built-in loader has pinned.
func (f *Finder) pins() map[ebpf.ProgramID]string {
	all := map[ebpf.ProgramID]string{}
	paths, _ := filepath.Glob(filepath.Join(f.bpffs, "blixt", "*", "program-*"))
	for _, path := range paths {
		p, err := ebpf.LoadPinnedProgram(path, nil)
		if err != nil {
			continue
		}
		if info, err := p.Info(); err == nil {
			if id, ok := info.ID(); ok {
				all[id] = filepath.Dir(path)
			}
		}
		_ = p.Close()
	}
	return all
}

// open returns the data plane of a program, nil: it is none, or cannot be read.
func open(id ebpf.ProgramID, pins map[ebpf.ProgramID]string) (d *DataPlane) {
	dir, ok := pins[id]
	switch {
	case ok:
		if d = Open(filepath.Join(dir, "maps")); d != nil {
			d.Name = filepath.Base(dir)
		}
	default:
		if d = Open(filepath.Join(bpfmanMaps, fmt.Sprint(id))); d == nil {
			d = fromID(id)
		}
	}
	if d != nil {
		d.Program = id
	}
	return d
}

// Open opens the data plane whose maps are pinned in a directory. It returns nil if none
// is there, or it cannot be read.
func Open(dir string) *DataPlane {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	d := &DataPlane{}
	for _, e := range entries {
		if place := d.place(e.Name()); place != nil {
			*place, _ = ebpf.LoadPinnedMap(filepath.Join(dir, e.Name()), nil)
		}
	}
	return d.complete()
}

// fromID opens the maps of a program, which needs CAP_SYS_ADMIN.
func fromID(id ebpf.ProgramID) *DataPlane {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil
	}
	ids, _ := info.MapIDs()
	d := &DataPlane{}
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			continue
		}
		info, err := m.Info()
		if err == nil {
			if place := d.place(info.Name); place != nil && *place == nil {
				*place = m
				continue
			}
		}
		_ = m.Close()
	}
	return d.complete()
}

// place returns where a map of this name belongs, nil: nowhere.
func (d *DataPlane) place(name string) **ebpf.Map {
	switch {
	case strings.HasPrefix(name, bpf.LayoutPrefix):
		d.layout = name
		return &d.config
	case name == bpf.BlixtMapFrontends:
		return &d.frontends
	case name == bpf.BlixtMapAddresses:
		return &d.addresses
	}
	return nil
}

// complete returns d, or nil if it is no data plane.
func (d *DataPlane) complete() *DataPlane {
	if d.config == nil {
		d.Close()
		return nil
	}
	return d
}

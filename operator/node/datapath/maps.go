// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/ring"
)

// Maps are the kernel's maps. All that it does works without any capability,
// given the permission to read and write the pins: nothing is created, loaded,
// looked up by id or probed.
type Maps struct {
	sizes Sizes

	config, addresses, frontends, backends, backendFlows                         *ebpf.Map
	flows, newFlows, udpFlows, counters, frontendStats, linkPackets, hostListens *ebpf.Map
	flowCache                                                                    *ebpf.Map // nil: see bpf.IsOptional
	announcing, announceKeys, peers, probes, egressLinks                         *ebpf.Map // the same, all of them
	portRanges, affinityBackends                                                 *ebpf.Map // the same
	policies                                                                     policyMaps
	records                                                                      recordMaps

	// These are mapped into memory: the program sees a store at once and as a
	// whole, and it takes no system call. Array elements are rounded up to 8
	// bytes.
	published, established      []uint64
	interest                    []uint32 // four bytes each; empty: see bpf.IsOptional
	rings                       *words
	refStats, clientRTT, health *words // nil: the same
	givingRef                   sync.Mutex
	memory                      [][]byte

	opened []*ebpf.Map // by Open, and closed by Close
}

// wrongLayout returns the error for maps of which these tell a layout.
func wrongLayout(found ...string) error {
	if len(found) == 0 {
		return fmt.Errorf("no map %s: this is no data plane of Blixt", bpf.LayoutMap)
	}
	return fmt.Errorf("maps are of layout %s, this program knows %s: use the version of Blixt that belongs to the data plane",
		strings.Join(found, ", "), bpf.LayoutMap)
}

// Open opens the maps that are pinned in dir, by name. It returns an error
// if they are of another layout, or if a map differs from the contract; it names
// what differs.
func Open(dir string) (*Maps, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read pin directory: %w", err)
	}
	var layouts []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), bpf.LayoutPrefix) {
			layouts = append(layouts, e.Name())
		}
	}
	// The directory may contain a layout map that its listing does not show.
	// Then the attempt to open it says why.
	if len(layouts) > 0 {
		if err := checkLayout(layouts); err != nil {
			return nil, err
		}
	}
	opened := map[string]*ebpf.Map{}
	closeAll := func() {
		for _, m := range opened {
			m.Close()
		}
	}
	for _, name := range bpf.MapNames() {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
		if errors.Is(err, fs.ErrNotExist) && bpf.IsOptional(name) {
			continue
		}
		if errors.Is(err, fs.ErrNotExist) && name == bpf.LayoutMap {
			err = wrongLayout()
		}
		if err != nil {
			closeAll()
			return nil, fmt.Errorf("open map %s: %w", name, err)
		}
		opened[name] = m
	}
	maps, err := New(opened)
	if err != nil {
		closeAll()
		return nil, err
	}
	for _, m := range opened {
		maps.opened = append(maps.opened, m)
	}
	return maps, nil
}

func checkLayout(names []string) error {
	for _, name := range names {
		if name != bpf.LayoutMap {
			return wrongLayout(names...)
		}
	}
	return nil
}

// New returns Maps of maps that are already open, by name. The caller closes
// them. It returns the errors of Open.
func New(maps map[string]*ebpf.Map) (*Maps, error) {
	var layouts []string
	for name := range maps {
		if strings.HasPrefix(name, bpf.LayoutPrefix) {
			layouts = append(layouts, name)
		}
	}
	if err := checkLayout(layouts); err != nil || len(layouts) == 0 {
		return nil, wrongLayout(layouts...)
	}
	spec, err := bpf.LoadBlixt()
	if err != nil {
		return nil, fmt.Errorf("read embedded object: %w", err)
	}
	for _, name := range bpf.MapNames() {
		if maps[name] == nil && bpf.IsOptional(name) {
			continue
		}
		if maps[name] == nil {
			return nil, fmt.Errorf("map %s is missing", name)
		}
		if err := checkMap(spec.Maps[name], maps[name]); err != nil {
			return nil, fmt.Errorf("map %s: %w", name, err)
		}
	}
	m := &Maps{
		config: maps[bpf.LayoutMap], addresses: maps[bpf.BlixtMapAddresses], frontends: maps[bpf.BlixtMapFrontends],
		backends: maps[bpf.BlixtMapBackends], backendFlows: maps[bpf.BlixtMapBackendFlows],
		flows: maps[bpf.BlixtMapFlows], newFlows: maps[bpf.BlixtMapNewFlows], udpFlows: maps[bpf.BlixtMapUdpFlows],
		counters: maps[bpf.BlixtMapCounters], frontendStats: maps[bpf.BlixtMapFrontendStats], linkPackets: maps[bpf.BlixtMapLinkPackets],
		hostListens: maps[bpf.BlixtMapHostListens], flowCache: maps[bpf.BlixtMapFlowCache],
		announcing: maps[bpf.BlixtMapAnnouncing], announceKeys: maps[bpf.BlixtMapAnnounceKeys], peers: maps[bpf.BlixtMapPeers],
		probes: maps[bpf.BlixtMapProbes], egressLinks: maps[bpf.BlixtMapEgressLinks],
		portRanges: maps[bpf.BlixtMapPortRanges], affinityBackends: maps[bpf.BlixtMapAffinityBackends],
	}
	for name, memory := range map[string]*[]uint64{
		bpf.BlixtMapPublished: &m.published, bpf.BlixtMapEstablished: &m.established,
	} {
		if *memory, err = mmap[uint64](m, maps[name]); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	if interest := maps[bpf.BlixtMapInterest]; interest != nil {
		if m.interest, err = mmap[uint32](m, interest); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	for name, array := range map[string]**words{bpf.BlixtMapRings: &m.rings, bpf.BlixtMapRefStats: &m.refStats, bpf.BlixtMapClientRtt: &m.clientRTT, bpf.BlixtMapBackendHealth: &m.health} {
		if maps[name] == nil {
			continue
		}
		if *array, err = m.reserve(maps[name]); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	if m.policies, err = m.newPolicyMaps(maps); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	if m.records, err = m.newRecordMaps(maps); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	m.sizes = Sizes{
		Addresses: int(m.addresses.MaxEntries()),
		// Counters and rings are by index, too: the smallest table counts.
		Frontends: int(min(m.frontends.MaxEntries(), m.frontendStats.MaxEntries(), uint32(len(m.established)-1), uint32(len(m.published)))),
		Backends:  int(min(m.backends.MaxEntries(), m.backendFlows.MaxEntries())),
		RingSlots: min(2*m.rings.len(), 1<<offsetBits),
		Refs:      m.refStats.len() / refWords,
		Flows:     int(m.flows.MaxEntries()) / 2,
		NewFlows:  int(m.newFlows.MaxEntries()) / 2,
		UDPFlows:  int(m.udpFlows.MaxEntries()) * 4 / 9, // as bpf.FlowTables has made it
	}
	m.sizes.Policies, m.sizes.Sources = m.policies.sizes()
	return m, nil
}

// checkMap compares everything but the size, which may be chosen when the
// object is loaded, but must not be below what its options allow.
func checkMap(spec *ebpf.MapSpec, m *ebpf.Map) error {
	var differs []string
	compare := func(what string, got, want any) {
		if got != want {
			differs = append(differs, fmt.Sprintf("%s %v, want %v", what, got, want))
		}
	}
	compare("type", m.Type(), spec.Type)
	compare("key size", m.KeySize(), spec.KeySize)
	compare("value size", m.ValueSize(), spec.ValueSize)
	compare("flags", m.Flags(), spec.Flags)
	if least := leastEntries(spec); m.MaxEntries() < least {
		differs = append(differs, fmt.Sprintf("max_entries %d, want at least %d", m.MaxEntries(), least))
	}
	if differs != nil {
		return fmt.Errorf("does not fit: %s", strings.Join(differs, ", "))
	}
	return nil
}

// leastEntries returns the size that a map must have at least. Flows and rings
// may be chosen to be small; for other maps it is the size in the contract.
func leastEntries(spec *ebpf.MapSpec) uint32 {
	switch spec.Name {
	case bpf.BlixtMapFlows, bpf.BlixtMapNewFlows, bpf.BlixtMapUdpFlows:
		return 1
	case bpf.BlixtMapCounters: // an earlier program of this layout has fewer
		return 1
	case bpf.BlixtMapRings:
		return ring.MaxSize // in 64-bit elements: room for one of the largest, twice
	}
	return spec.MaxEntries
}

// Close unmaps the memory and closes the maps that Open has opened. No other
// method may run meanwhile, or be called afterwards.
func (m *Maps) Close() error {
	var errs []error
	for _, b := range m.memory {
		errs = append(errs, unix.Munmap(b))
	}
	m.memory, m.published, m.established, m.interest, m.records.number, m.policies = nil, nil, nil, nil, nil, policyMaps{}
	m.rings, m.refStats, m.clientRTT, m.health = nil, nil, nil, nil
	for _, o := range m.opened {
		errs = append(errs, o.Close())
	}
	m.opened = nil
	return errors.Join(errs...)
}

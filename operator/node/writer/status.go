// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Status is what the maps hold and count. Names, weights and Applied come from
// the state file; Known reports whether the file describes the state in the
// maps.
type Status struct {
	Layout    int          `json:"layout"`
	Version   lb.Version   `json:"version"`
	StateHash string       `json:"stateHash"`
	Known     bool         `json:"known"`
	Applied   *time.Time   `json:"applied,omitempty"`
	Draining  bool         `json:"draining,omitempty"`
	SNAT      lb.PortRange `json:"snat"`
	FlowQuota FlowQuota    `json:"flowQuota"`
	// UndoneFlows are those whose clients another node has announced, PlainFlows
	// those of other nodes that keep these nodes' addresses.
	UndoneFlows uint64            `json:"undoneFlows,omitempty"`
	PlainFlows  uint64            `json:"plainFlows,omitempty"`
	Tables      map[string]lb.Use `json:"tables"`
	Addresses   []AddressStatus   `json:"addresses"`
	Frontends   []FrontendStatus  `json:"frontends"`
	// Policies are the restrictions of all frontends.
	Policies []PolicyStatus    `json:"policies,omitempty"`
	Counters map[string]uint64 `json:"counters"`
	Links    []HookCount       `json:"links"`
}

// AddressStatus is one address.
type AddressStatus struct {
	IP        string `json:"ip"`
	Exclusive bool   `json:"exclusive"`
}

// FrontendStatus is one frontend. Packets and Bytes are those to backends,
// ReplyPackets and ReplyBytes those from backends.
type FrontendStatus struct {
	Frontend string `json:"frontend"` // address:port/protocol
	Gateway  string `json:"gateway,omitempty"`
	Listener string `json:"listener,omitempty"`
	Route    string `json:"route,omitempty"`
	// HostListens is true if a socket of the host itself gets new connections.
	HostListens bool   `json:"hostListens,omitempty"`
	Index       uint32 `json:"index"`
	RingSize    int    `json:"ringSize"`
	Generation  uint32 `json:"generation"`
	IdleTimeout string `json:"idleTimeout"`
	// RejectShare is the part of the ring that refuses connections.
	RejectShare float64 `json:"rejectShare"`
	// Refuses is why all new flows are refused, established ones go on; "": they are not.
	Refuses     string `json:"refuses,omitempty"`
	NewFlows    uint64 `json:"newFlows"`
	ActiveFlows uint64 `json:"activeFlows"`
	// EstablishedFlows is the number that FlowQuota limits, 0 for UDP.
	EstablishedFlows uint64          `json:"establishedFlows"`
	Rejected         uint64          `json:"rejected"`
	Packets          uint64          `json:"packets"`
	Bytes            uint64          `json:"bytes"`
	ReplyPackets     uint64          `json:"replyPackets"`
	ReplyBytes       uint64          `json:"replyBytes"`
	Backends         []BackendStatus `json:"backends"`
	// Services sum up all backends, and MoreBackends is how many of these are left out: in a
	// Look alone.
	Services     []ServiceStatus `json:"services,omitempty"`
	MoreBackends int             `json:"moreBackends,omitempty"`
}

// BackendStatus is one backend.
type BackendStatus struct {
	Address string `json:"address"`
	ID      uint32 `json:"id"`
	Service string `json:"service,omitempty"`
	// ServicePort is the Service's port that the route names; 0: not known.
	ServicePort uint16 `json:"servicePort,omitempty"`
	Local       bool   `json:"local,omitempty"`
	// HearsWithin and HearsAlone are which messages that announce clients get to the
	// backend's node: if any do, it sees its clients.
	HearsWithin bool `json:"hearsWithin,omitempty"`
	HearsAlone  bool `json:"hearsAlone,omitempty"`
	// State is serving; draining: the backend keeps its flows and gets no new
	// ones; not-serving: nor does it keep its UDP flows; ejected: it is not healthy; trial: it
	// gets one flow at a time; or standby: another group of backends gets the flows.
	State string `json:"state"`
	// Drained is set if somebody has drained it by hand.
	Drained *lb.Drained `json:"drained,omitempty"`
	// Ejected is set if it is not healthy: why, since when and until when.
	Ejected *lb.Ejected `json:"ejected,omitempty"`
	// Weight is the weight of the reference, divided among its endpoints.
	Weight float64 `json:"weight"`
	// RingShare is the backend's part of the ring, which is its expected part
	// of new flows. FlowShare is its part of the flows so far.
	RingShare   float64 `json:"ringShare"`
	FlowShare   float64 `json:"flowShare"`
	NewFlows    uint64  `json:"newFlows"`
	ActiveFlows uint64  `json:"activeFlows"`
}

// Status reads the maps. Active flows are those of the last sweep.
func (w *Writer) Status() (Status, error) {
	w.counts.Lock()
	flows := w.counts.flows
	w.counts.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	record := w.record
	if record.State = w.target.State(); w.target.Hash() != w.wanted {
		record.Hash = "" // the maps do not hold it yet
	}
	return readStatus(w.tables, record, flows, w.o.Ticks(), w.contents)
}

// ReadStatus is Status for another process than the writer's: names are those
// of the writer's state file, if it exists, and active flows are counted now.
func ReadStatus(t Tables, stateFile string) (Status, error) {
	record, err := LoadRecord(stateFile)
	if err != nil {
		return Status{}, err
	}
	flows, err := countFlows(t)
	if err != nil {
		return Status{}, err
	}
	return readStatus(t, record, flows, ticks(), nil)
}

// countFlows counts the active flows, in total, by backend and by frontend.
func countFlows(t Tables) (FlowCounts, error) {
	backends, err := t.Backends()
	if err != nil {
		return FlowCounts{}, fmt.Errorf("read backends: %w", err)
	}
	s := sweeper{backends: backends}
	s.result.Flows = newFlowCounts()
	err = t.EachFlow(func(entries []datapath.FlowEntry) bool {
		for _, e := range entries {
			s.count(e)
		}
		return true
	})
	return s.result.Flows, err
}

// readStatus takes the sets of sources from what is known of the tables; nil: it reads them,
// which may be hundreds of thousands of entries.
func readStatus(t Tables, record Record, flows FlowCounts, now uint32, known *datapath.Contents) (Status, error) {
	read := datapath.Read
	if known != nil {
		read = datapath.ReadWithoutSources
	}
	contents, err := read(t, time.Time{})
	if err != nil {
		return Status{}, err
	}
	if known == nil {
		known = contents
	}
	used := contents.Use()
	used.Sources = known.Use().Sources
	c, err := t.Config()
	if err != nil {
		return Status{}, fmt.Errorf("read config: %w", err)
	}
	s := Status{
		Layout: bpf.Layout, Version: versionOf(c), StateHash: hashText(c.StateHash),
		Draining: c.Flags&datapath.ConfigDrain != 0, SNAT: lb.PortRange{First: c.SnatMin, Last: c.SnatMax},
		FlowQuota: FlowQuota{NearlyFull: c.FlowsNearlyFull, Share: c.FlowsShare},
		Tables:    tableUse(used, contents.Sizes, flows), UndoneFlows: flows.Undone, PlainFlows: flows.Plain,
	}
	names := map[lb.Key]*lb.Frontend{}
	if s.Known = record.Hash == s.StateHash; s.Known {
		s.Applied = &record.Time
		for i := range record.State.Frontends {
			f := &record.State.Frontends[i]
			names[f.Key()] = f
		}
	}
	for ip, a := range contents.Addresses {
		s.Addresses = append(s.Addresses, AddressStatus{ip.String(), a.Flags&datapath.AddressExclusive != 0})
	}
	slices.SortFunc(s.Addresses, func(a, b AddressStatus) int { return cmp.Compare(a.IP, b.IP) })
	established := t.Established()
	listens, err := hostListens(t, contents, now)
	if err != nil {
		return Status{}, err
	}
	from := reading{
		counters: t.FrontendCounters, newFlows: t.BackendFlows, slots: countSlots, flows: flows,
		flags: func(id uint32, _ lb.Backend) uint16 { return contents.Backend(id).Flags },
	}
	for _, key := range slices.SortedFunc(maps.Keys(contents.Frontends), lb.Key.Compare) {
		of := ServedFrontend{Frontend: names[key], served: contents.Frontends[key]}
		if of.Frontend == nil {
			of.Frontend = &lb.Frontend{}
		}
		index := of.served.Entry.Index
		of.generation, of.Established = contents.RingRef(index).Generation(), uint64(max(int32(established[1+index]), 0))
		f, err := from.frontend(key, of)
		if err != nil {
			return Status{}, err
		}
		f.HostListens = slices.Contains(listens, key)
		s.Frontends = append(s.Frontends, f)
	}
	held := heldPolicies(known, func(yield func(*lb.Frontend) bool) {
		for key := range contents.Frontends {
			if f := names[key]; f != nil && !yield(f) {
				return
			}
		}
	})
	if s.Policies, err = countPolicies(t, held); err != nil {
		return Status{}, err
	}
	if s.Counters, err = counters(t); err != nil {
		return Status{}, err
	}
	s.Links, err = ReadHooks(t)
	return s, err
}

func tableUse(used, size datapath.Sizes, flows FlowCounts) map[string]lb.Use {
	all := map[string]lb.Use{
		"addresses": {Used: used.Addresses, Size: size.Addresses},
		"frontends": {Used: used.Frontends, Size: size.Frontends},
		"backends":  {Used: used.Backends, Size: size.Backends - 1},
		"rings":     {Used: used.RingSlots, Size: size.RingSlots},
		"flows":     {Used: int(flows.TCP), Size: size.Flows},
		"udp_flows": {Used: int(flows.UDP), Size: size.UDPFlows},
	}
	if size.Refs > 0 { // an earlier program has none
		all["ref_stats"] = lb.Use{Used: used.Refs, Size: size.Refs - 1}
	}
	if size.Policies > 0 { // the same
		all["policies"] = lb.Use{Used: used.Policies, Size: size.Policies - 1}
		all["sources"] = lb.Use{Used: used.Sources, Size: size.Sources}
	}
	return all
}

// reading is where the numbers of frontends come from.
type reading struct {
	counters func(index uint32) (datapath.FrontendCounters, error)
	newFlows func(id uint32) (uint64, error)
	// flags returns those of a backend, which is to be as the state has it.
	flags func(id uint32, wanted lb.Backend) uint16
	// slots returns how many slots of a ring each backend has, by id.
	slots func(*datapath.Served) map[uint32]int
	flows FlowCounts
}

// countSlots returns how many slots of a ring each backend has, by id.
func countSlots(of *datapath.Served) map[uint32]int {
	slots := map[uint32]int{}
	for _, id := range of.Slots {
		slots[id]++
	}
	return slots
}

func (r *reading) frontend(key lb.Key, of ServedFrontend) (FrontendStatus, error) {
	served, index := of.served, of.served.Entry.Index
	c, err := r.counters(index)
	if err != nil {
		return FrontendStatus{}, err
	}
	f := FrontendStatus{
		Frontend: key.String(), Gateway: of.Gateway, Listener: of.Listener, Route: of.Route,
		Index: index, RingSize: len(served.Slots), Generation: of.generation,
		IdleTimeout: idleText(served.Entry.IdleTicks),
		NewFlows:    c.NewFlows, ActiveFlows: r.flows.Frontends[index], Rejected: c.Rejected,
		Packets: c.Packets, Bytes: c.Bytes, ReplyPackets: c.ReplyPackets, ReplyBytes: c.ReplyBytes,
		EstablishedFlows: of.Established, RejectShare: 1,
	}
	if served.Entry.Flags&datapath.FrontendRefuses != 0 || of.Refused != "" {
		f.Refuses = cmp.Or(of.Refused, "the list of sources of one of its policies is not in the tables of this node, for want of room")
	}
	slots := r.slots(served)
	share := func(id uint32) float64 { return float64(slots[id]) / float64(len(served.Slots)) }
	if f.RingSize > 0 {
		f.RejectShare = share(datapath.BackendReject)
	}
	total := uint64(0)
	named := make(map[netip.AddrPort]*lb.Backend, len(of.Backends))
	for i := range of.Backends {
		named[of.Backends[i].Addr] = &of.Backends[i]
	}
	f.Backends = make([]BackendStatus, 0, len(served.IDs))
	for e, id := range served.IDs {
		n := named[e.Addr]
		if n == nil {
			n = &lb.Backend{}
		}
		flags := r.flags(id, *n)
		hearing := datapath.HearingOf(flags)
		b := BackendStatus{
			Address: e.Addr.String(), ID: id, Local: e.Local, State: lb.StateDraining, ActiveFlows: r.flows.Backends[id],
			HearsWithin: hearing.Within, HearsAlone: hearing.Alone,
			Service: n.Service, Weight: float64(n.Weight) / lb.WeightUnit, ServicePort: n.ServicePort, Drained: n.Drained, Ejected: n.Ejected,
		}
		switch {
		case slots[id] > 0:
			b.State, b.RingShare = lb.StateServing, share(id)
		case flags&datapath.BackendNotServing != 0:
			b.State = lb.StateNotServing
		}
		switch s := n.State(); s {
		case lb.StateEjected, lb.StateStandby, lb.StateTrial:
			b.State = s
		}
		if b.NewFlows, err = r.newFlows(id); err != nil {
			return FrontendStatus{}, fmt.Errorf("read flows of backend %d: %w", id, err)
		}
		total += b.NewFlows
		f.Backends = append(f.Backends, b)
	}
	for i := range f.Backends {
		if total > 0 {
			f.Backends[i].FlowShare = float64(f.Backends[i].NewFlows) / float64(total)
		}
	}
	slices.SortFunc(f.Backends, func(a, b BackendStatus) int {
		return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(a.ID, b.ID))
	})
	return f, nil
}

func idleText(ticks uint32) string {
	return (time.Duration(ticks) << datapath.TickShift).Round(time.Second).String()
}

// IdleTimeout returns that of a frontend as FrontendStatus has it when it is served.
func IdleTimeout(f *lb.Frontend) string {
	return idleText(datapath.Ticks(cmp.Or(f.IdleTimeout, lb.DefaultIdleTimeout(f.Protocol))))
}

func counters(t Tables) (map[string]uint64, error) {
	names, err := datapath.CounterNames()
	if err != nil {
		return nil, err
	}
	values, err := t.Counters()
	if err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	all := map[string]uint64{}
	for i, name := range names[:min(len(names), len(values))] {
		all[name] = values[i]
	}
	return all, nil
}

// SPDX-License-Identifier: Apache-2.0

// Package live measures what a packet costs on its way through a balancer, live: the
// kernel's stack has it, between network namespaces. The same job is done in several
// ways, side by side. Bursts of all of them follow each other, round by round, since a
// machine has slow phases: only what is measured in the same moment compares.
package live

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"time"
)

// Options are what to measure.
type Options struct {
	// Binary is the blixt to measure.
	Binary string
	// Rounds is how many bursts each variant has, and Burst how many packets those have.
	Rounds, Burst int
	// Most is the largest number of flows, 0: any.
	Most int
	// Only are the variants to measure, by prefixes of their names; none: all.
	Only []string
	// Log prints what goes on.
	Log func(format string, args ...any)
}

// Variant is what was measured of one way to do the job.
type Variant struct {
	// Name is the path, with what differs from IPv4, 1,024 flows, requests and
	// datagrams with a checksum.
	Name     string `json:"name"`
	Path     string `json:"path"`
	Family   int    `json:"family"`
	Flows    int    `json:"flows"`
	Reply    bool   `json:"reply,omitempty"`
	Checksum bool   `json:"checksum"`
	// Cold packets are the first ones of their flows for a while.
	Cold bool `json:"cold,omitempty"`
	// Packets are ns of CPU that a packet cost in each round, without what the
	// generator costs.
	Packets []float64 `json:"ns"`

	stream  *stream
	drop    *Variant
	sent    uint64
	sources []source
	costs   []float64
}

// source is a generator and its part of a burst.
type source struct {
	*generator
	share float64
}

// wish is a variant that is to be measured.
type wish struct {
	path     path
	family   int
	flows    int
	reply    bool
	checksum bool
	cold     bool
}

func (w wish) name() string {
	name := string(w.path)
	if w.family == 6 {
		name += ", IPv6"
	}
	if w.flows != usual {
		name += fmt.Sprintf(", %s", flowsName(w.flows))
	}
	if w.reply {
		name += ", reply"
	}
	if !w.checksum {
		name += ", no checksum"
	}
	if w.cold {
		name += ", cold"
	}
	return name
}

func flowsName(n int) string {
	switch {
	case n == 1:
		return "1 flow"
	case n%1024 == 0:
		return fmt.Sprintf("%dK flows", n/1024)
	}
	return fmt.Sprintf("%d flows", n)
}

// usual is the number of flows of most variants, and many that of those that do not
// fit into the CPU's caches.
const (
	usual = 1024
	many  = 65536
)

// wishes returns all variants.
func wishes() (all []wish) {
	balanced := []path{pathNFT, pathMasquerade, pathLocal, pathRemote}
	for _, family := range []int{4, 6} {
		for _, reply := range []bool{false, true} {
			for _, p := range append([]path{pathDrop, pathForward, pathForward2, pathEmpty, pathMiss}, balanced...) {
				all = append(all, wish{path: p, family: family, flows: usual, reply: reply, checksum: true})
			}
		}
	}
	for _, p := range balanced {
		all = append(all, wish{path: p, family: 4, flows: usual})
	}
	for _, p := range append([]path{pathDrop, pathForward}, balanced...) {
		all = append(all, wish{path: p, family: 4, flows: 1, checksum: true})
	}
	for _, p := range append([]path{pathDrop, pathForward, pathForward2, pathMiss}, balanced...) {
		all = append(all, wish{path: p, family: 4, flows: many, checksum: true})
	}
	for _, p := range []path{pathLocal, pathRemote} {
		all = append(all, wish{path: p, family: 4, flows: many, checksum: true, cold: true})
	}
	return all
}

// bench is a benchmark that is set up.
type bench struct {
	Options
	rigs     map[string]*rig
	streams  []*stream
	variants []*Variant
}

// Run measures, and returns what it has measured.
func Run(o Options) (variants []*Variant, err error) {
	b := &bench{Options: o, rigs: map[string]*rig{}}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.build(); err != nil {
		return nil, err
	}
	if err := b.measure(); err != nil {
		return nil, err
	}
	return b.variants, b.check()
}

func (b *bench) close() error {
	var errs []error
	for _, r := range b.rigs {
		errs = append(errs, r.close())
	}
	return errors.Join(errs...)
}

// rig returns the rig of a path, which it makes if there is none yet. Those of Blixt
// have the flows of one number only, as the size of what is in use matters.
func (b *bench) rig(p path, flows int) (*rig, error) {
	name := map[path]string{pathDrop: "drop", pathEmpty: "empty", pathNFT: "nft", pathMasquerade: "masq"}[p]
	blixt := p == pathMiss || p == pathLocal || p == pathRemote
	switch {
	case blixt:
		name = fmt.Sprintf("blixt%d", flows)
	case name == "":
		name = "forward"
	}
	if r := b.rigs[name]; r != nil {
		return r, nil
	}
	r, err := newRig("blixt-bench-" + name)
	if err != nil {
		return nil, err
	}
	b.rigs[name] = r
	switch {
	case blixt:
		err = r.startBlixt(b.Binary, 4*max(flows, 16384))
	case p == pathDrop:
		err = r.drop()
	case p == pathEmpty:
		err = r.emptyPrograms()
	case p == pathNFT || p == pathMasquerade:
		err = r.nft(p == pathMasquerade)
	}
	return r, err
}

// build makes all rigs, and establishes all flows.
func (b *bench) build() error {
	streams := map[wish]*stream{}
	drops := map[wish]*Variant{}
	number := map[*rig]int{}
	wanted := b.only(wishes())
	b.Log("establishing flows of %d variants", len(wanted))
	for _, w := range wanted {
		v := &Variant{Name: w.name(), Path: string(w.path), Family: w.family, Flows: w.flows, Reply: w.reply, Checksum: w.checksum, Cold: w.cold}
		of := w
		of.reply, of.cold = false, false
		s := streams[of]
		if s == nil {
			r, err := b.rig(w.path, w.flows)
			if err != nil {
				return err
			}
			s = &stream{rig: r, path: w.path, family: w.family, flows: w.flows, checksum: w.checksum, number: number[r]}
			number[r]++
			if err := errors.Join(s.build(), s.establish()); err != nil {
				return err
			}
			streams[of] = s
			b.streams = append(b.streams, s)
		}
		v.stream = s
		of = wish{path: pathDrop, family: w.family, flows: w.flows, reply: w.reply, checksum: true}
		if w.path == pathDrop {
			drops[of] = v
		} else if v.drop = drops[of]; v.drop == nil {
			return fmt.Errorf("no variant says what the generator costs for %s", v.Name)
		}
		b.variants = append(b.variants, v)
	}
	for _, r := range b.rigs {
		if err := errors.Join(r.receiveQueues(), r.attachSinks()); err != nil {
			return err
		}
	}
	for _, v := range b.variants {
		if err := v.generators(); err != nil {
			return fmt.Errorf("%s: %w", v.Name, err)
		}
	}
	return nil
}

// generators prepares what sends the variant's packets.
func (v *Variant) generators() error {
	add := func(dev string, frames [][]byte) error {
		if len(frames) == 0 {
			return nil
		}
		g, err := newGenerator(v.stream.rig.devices[dev].Index, frames)
		v.sources = append(v.sources, source{g, float64(len(frames)) / float64(v.Flows)})
		return err
	}
	if !v.Reply {
		return add("in", v.stream.requests)
	}
	return errors.Join(add("b1", v.stream.replies["b1"]), add("b2", v.stream.replies["b2"]))
}

// send has about n packets come in.
func (v *Variant) send(n int) error {
	for _, s := range v.sources {
		part := int(float64(n) * s.share)
		if err := s.run(part); err != nil {
			return err
		}
		v.sent += uint64(part)
	}
	return nil
}

// burst sends n packets, and returns what one has cost. Before that it sends one of
// each flow, as at full speed nearly no packet is the first one of its flow in a second.
func (v *Variant) burst(m *meter, n int) error {
	return v.stream.rig.balancer.Do(func() error {
		if !v.Cold {
			if err := v.send(max(v.Flows, usual)); err != nil {
				return err
			}
		}
		if err := v.settled(); err != nil {
			return err
		}
		before := v.sent
		cost, err := m.measure(func() error { return v.send(n) }, v.settled)
		v.costs = append(v.costs, float64(cost)/float64(v.sent-before))
		return err
	})
}

// sink returns where the variant's packets end.
func (v *Variant) sink() *sink { return v.stream.rig.sinks[v.Reply] }

// settled waits until all packets that were sent have arrived.
func (v *Variant) settled() error {
	deadline := time.Now().Add(patience)
	for {
		got, err := v.sink().packets()
		if err != nil {
			return err
		}
		var sent uint64
		for _, o := range v.stream.rig.through[v.sink()] {
			sent += o.sent
		}
		if got >= sent {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d packets have arrived", got, sent)
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// measure measures all variants, round by round.
func (b *bench) measure() error {
	for _, v := range b.variants {
		r := v.stream.rig
		if r.through == nil {
			r.through = map[*sink][]*Variant{}
		}
		r.through[v.sink()] = append(r.through[v.sink()], v)
	}
	if err := b.count(); err != nil {
		return err
	}
	runtime.LockOSThread() // and never unlocked: the thread is bound to a CPU
	m, err := newMeter()
	if err != nil {
		return err
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	begin := time.Now()
	for round := range b.Rounds + 1 {
		for _, v := range b.variants {
			if err := v.burst(m, b.Burst); err != nil {
				return fmt.Errorf("%s, round %d: %w", v.Name, round, err)
			}
		}
		if round == 1 {
			b.Log("measuring: %d rounds of %s", b.Rounds, time.Since(begin).Round(time.Millisecond)/2)
		}
	}
	for _, v := range b.variants {
		v.costs = v.costs[1:] // the first round has filled caches
		v.Packets = slices.Clone(v.costs)
		if v.drop != nil {
			for i := range v.Packets {
				v.Packets[i] -= v.drop.costs[i]
			}
		}
	}
	return nil
}

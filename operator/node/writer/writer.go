// SPDX-License-Identifier: Apache-2.0

// Package writer keeps the maps of a node as they should be. In come states,
// from files or from the operator; out go writes to the maps, and the status
// that is read from them. The maps are the only truth: the writer remembers
// what it has read, and reads again whenever that is in doubt.
package writer

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Tables are all the maps that a writer uses: datapath.Maps, or datapath.Fake
// in tests.
type Tables interface {
	datapath.Tables
	datapath.Counts
	datapath.Flows
	datapath.Announcing
}

// Options configure a writer. The zero value of each field is usable.
type Options struct {
	// SNAT are the source ports of translated flows; zero: lb.DefaultSNATPorts.
	// They must be outside the host's ephemeral range.
	SNAT lb.PortRange
	// HostAddresses are the node's own. The first of each family is the source
	// of translated flows on kernels that cannot choose one.
	HostAddresses []netip.Addr
	// Seed keys the hash of clients. Nodes with the same one choose the same
	// backend for a client. nil: that of the maps is kept.
	Seed *uint64
	// MasqueradeMark is the mark by which the host's NAT translates the source of
	// packets to backends that are reached through its stack; 0: it does not.
	MasqueradeMark uint32
	// Upgrading reports that a previous program is in front of this one: see
	// CONFIG_UPGRADING.
	Upgrading bool
	// SampleDrops reports that somebody reads the ring buffers: see CONFIG_SAMPLE_DROPS.
	SampleDrops bool
	// Hears decides which backends hear of the clients of frontends that preserve
	// them; nil: none. HearsChanged tells when it decides otherwise.
	Hears datapath.Hears
	// StateFile is the path of the file for what the maps have no place for;
	// "": none.
	StateFile string
	// SweepEvery is the pause between sweeps; 0: ten seconds.
	SweepEvery time.Duration
	// CheckEvery is how often the maps are checked for another writer; 0: ten
	// seconds.
	CheckEvery time.Duration
	// Reset sends a RST, to an end of a TCP connection whose backend is gone. nil:
	// both ends hear of it when they next send something.
	Reset func(Reset)
	// Swept is called by Run after each sweep with how many flows have lost their backend
	// since the one before: those that the program has reset when they sent something, and
	// those that the sweep has removed. nil: nobody wants to know.
	Swept func(flows int)
	// Applied is called by Run after each attempt.
	Applied func(Result, error)
	Log     *slog.Logger

	// Clock, Ticks and Sleep are for tests.
	Clock func() time.Time
	Ticks func() uint32
	Sleep func(context.Context, time.Duration) error
}

// Result is the result of an attempt to write a state.
type Result struct {
	// Version and StateHash are what the maps hold now.
	Version   lb.Version       `json:"version"`
	StateHash string           `json:"stateHash"`
	Written   datapath.Written `json:"written"`
	// Done is true if the maps hold the state, apart from what LeftOut says; nil:
	// all of it.
	Done    bool          `json:"done"`
	LeftOut *lb.TableFull `json:"leftOut,omitempty"`
	// Again is when to continue, as ids or slots that the state needs still rest, or what it
	// does not need any more: then it is Done as well. Zero: nothing waits.
	Again time.Time `json:"-"`
	// Changed is true if anything was written.
	Changed  bool          `json:"changed"`
	Duration time.Duration `json:"duration"`
	// State is the state if it is another one than the last, and StateFile is set. It must
	// not be modified.
	State *lb.State `json:"-"`
	// Wanted is the requested version, whether or not the maps hold it now.
	Wanted *lb.Version `json:"-"`
	// Planned is how many frontends were looked at.
	Planned int `json:"-"`
}

// Writer writes the maps of one data plane. Its methods may be called
// concurrently. There must be no second writer for the same maps.
type Writer struct {
	tables Tables
	o      Options

	mu       sync.Mutex // of all below, and of writing; never held while waiting
	contents *datapath.Contents
	target   *datapath.Target
	version  *lb.Version // of the target; nil: the next one
	wanted   uint64      // the hash of the target that was applied last
	unserved struct {    // ports, for the config, by target.Keys
		keys uint64
		udp  [len(datapath.Config{}.UnservedUdp)]uint64
	}
	record  Record
	unknown []string  // policies without their sources, of the last plan
	waiting time.Time // since when something waits; zero: nothing does
	foreign time.Time // when another writer was last noticed
	settled time.Time // when a sweep last settled `interest`; zero: none has

	metrics struct { // as of the last time that nobody wrote
		sync.Mutex
		used      datapath.Sizes
		frontends []ServedFrontend
		policies  []PolicyStatus // without what was counted
		record    Record
		names     uint64 // changes, when this was taken; 0: never
	}
	looks   looks
	changes atomic.Uint64 // counts those of contents and target, under mu

	backendsChanged chan struct{} // has an element if they have since the last sweep
	hearsChanged    chan struct{} // has an element if Hears decides otherwise than the target was told

	policiesChanged chan struct{}          // has an element if they have since flows were last looked at
	enforcing       sync.Mutex             // held while Enforce runs
	lists           map[uint32]*sourceList // by set, of the last look at flows; under mu
	sweep           sync.Mutex             // held while a sweep runs
	waited          map[uint32]refSweep    // of the last sweep, see unanswered.settle
	counts          struct {
		sync.Mutex
		flows FlowCounts
	}
}

// New returns a writer that has not touched the maps yet.
func New(t Tables, o Options) *Writer {
	if o.SNAT == (lb.PortRange{}) {
		o.SNAT = lb.DefaultSNATPorts
	}
	if o.SweepEvery == 0 {
		o.SweepEvery = 10 * time.Second
	}
	if o.CheckEvery == 0 {
		o.CheckEvery = 10 * time.Second
	}
	if o.Applied == nil {
		o.Applied = func(Result, error) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Ticks == nil {
		o.Ticks = ticks
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	w := &Writer{tables: t, o: o, target: datapath.NewTarget(), backendsChanged: make(chan struct{}, 1), hearsChanged: make(chan struct{}, 1), policiesChanged: make(chan struct{}, 1)}
	w.target.SetHears(o.Hears)
	return w
}

// HearsChanged has Run write the flags of those backends about which Options.Hears
// decides otherwise now. It does not wait for that.
func (w *Writer) HearsChanged() {
	select {
	case w.hearsChanged <- struct{}{}:
	default:
	}
}

// Apply makes the maps hold a state, under the next version. It returns once
// they do, which takes a second longer if it has to wait for ids or slots that
// were freed. Result.LeftOut says what does not fit. On error, each frontend is
// served in its previous or its new form, and Apply may be tried again.
func (w *Writer) Apply(ctx context.Context, s lb.State) (Result, error) {
	return w.apply(ctx, s, nil)
}

// apply is Apply for a state with a version; nil: the next one. It returns an
// error if the maps hold a later version of the same epoch.
func (w *Writer) apply(ctx context.Context, s lb.State, v *lb.Version) (all Result, err error) {
	s = clone(s)
	s.Normalize()
	if err := w.want(VersionedState{State: s, Version: v}); err != nil {
		return Result{}, err
	}
	for {
		res, err := w.write()
		res.Written.Add(all.Written)
		res.Changed, res.Duration = res.Changed || all.Changed, res.Duration+all.Duration
		if err != nil || res.Done {
			return res, err
		}
		all = res
		if err := w.o.Sleep(ctx, res.Again.Sub(w.o.Clock())); err != nil {
			return res, err
		}
	}
}

// want sets what write is to write.
func (w *Writer) want(s VersionedState) (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.changes.Add(1)
	if s.Changed != nil {
		err = w.target.Change(s.Changed, s.Sources, s.GoneSources)
	} else {
		err = w.target.Replace(s.State)
	}
	if err == nil {
		w.version = s.Version
	}
	return err
}

// patience is how long a state may wait for ids and slots that rest, a second
// each, until the rest of it counts as written, and what waits as left out.
const patience = 5 * time.Second

// write writes what can be written now.
func (w *Writer) write() (Result, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.changes.Add(1)
	start := w.o.Clock()
	res, err := w.writeMaps()
	res.Duration, res.Wanted = w.o.Clock().Sub(start), w.version
	if res.Written.Backends > 0 {
		w.sweepSoon()
	}
	if res.Written.Policies > 0 {
		w.enforceAfterChange()
	}
	if err != nil {
		w.contents = nil // in doubt: read the maps again
		return res, err
	}
	return res, nil
}

// plansAtOnce is how many plans are carried out before a newer state gets its turn. A set of
// sources takes two: one writes it, and the next one publishes it.
const plansAtOnce = 3

func (w *Writer) writeMaps() (Result, error) {
	config, err := w.tables.Config()
	if err != nil {
		return Result{}, fmt.Errorf("read config: %w", err)
	}
	res := Result{Version: versionOf(config), StateHash: hashText(config.StateHash)}
	if v := w.version; v != nil && v.Epoch == config.Epoch && v.Sequence < config.Sequence {
		return res, fmt.Errorf("state %d of epoch %d is older than state %d, which is served", v.Sequence, v.Epoch, res.Version.Sequence)
	}
	// Options come before the state, and the version after it.
	if err := w.announceHost(); err != nil {
		return res, err
	}
	merged := w.withState(w.mergeOptions(config))
	if merged != config {
		if err := w.tables.SetConfig(merged); err != nil {
			return res, fmt.Errorf("write config: %w", err)
		}
		res.Changed = true
	}
	if w.contents == nil {
		if w.contents, err = datapath.Read(w.tables, w.o.Clock()); err != nil {
			return res, fmt.Errorf("read maps: %w", err)
		}
	}
	var plan *datapath.Plan
	for range plansAtOnce {
		plan = w.target.Plan(w.contents, w.o.Clock())
		written, err := datapath.Apply(w.tables, w.contents, plan, w.o.Clock)
		res.Written.Add(written)
		res.Changed, res.Planned = res.Changed || len(plan.Ops) > 0, max(res.Planned, plan.Planned)
		if err != nil {
			return res, fmt.Errorf("write maps: %w", err)
		}
		if plan.Complete() || plan.Again.After(w.o.Clock()) {
			break
		}
	}
	res.LeftOut, res.Again = plan.LeftOut, plan.Again
	if !slices.Equal(w.unknown, plan.Unknown) {
		if w.unknown = plan.Unknown; len(w.unknown) > 0 {
			w.o.Log.Error("policies have no list of sources in the state: what they are for refuses all new connections, unless an earlier list is in force", "policies", w.unknown)
		}
	}
	if w.mustWait(plan) {
		return res, nil
	}
	if res.Again.IsZero() {
		res.Again = plan.Later
	}
	done := merged
	done.StateHash = plan.Hash
	wanted := w.target.Hash()
	if v := w.version; v != nil {
		done.Epoch, done.Sequence = v.Epoch, v.Sequence
	} else if wanted != w.wanted && plan.Hash != config.StateHash {
		done.Sequence++
	}
	if done != merged {
		if err := w.tables.SetConfig(done); err != nil {
			return res, fmt.Errorf("write config: %w", err)
		}
		res.Changed = true
	}
	res.Done, res.Version, res.StateHash, w.wanted = true, versionOf(done), hashText(done.StateHash), wanted
	err = w.remember(&res)
	return res, err
}

// Frontends returns the frontends of the state that is to be served, for names, and
// its hash. It returns false if nothing differs from the state with that hash, or if it
// would have to wait for who writes.
func (w *Writer) Frontends(known uint64) (all []*lb.Frontend, hash uint64, changed bool) {
	if !w.mu.TryLock() {
		return nil, known, false
	}
	defer w.mu.Unlock()
	if hash = w.target.Hash(); hash == known {
		return nil, known, false
	}
	return w.target.Frontends(), hash, true
}

// mustWait reports whether the state does not count as written yet.
func (w *Writer) mustWait(plan *datapath.Plan) bool {
	if plan.Complete() {
		w.waiting = time.Time{}
		return false
	}
	now := w.o.Clock()
	if w.waiting.IsZero() {
		w.waiting = now
	}
	return now.Sub(w.waiting) < patience
}

// remember keeps what was applied, if that is new.
func (w *Writer) remember(res *Result) error {
	if !res.Changed && w.record.Hash == res.StateHash {
		return nil
	}
	w.record = Record{Version: res.Version, Hash: res.StateHash, Time: w.o.Clock()}
	if w.o.StateFile == "" {
		return nil
	}
	r := w.record
	r.State = w.target.State()
	res.State = &r.State
	return r.save(w.o.StateFile)
}

func versionOf(c datapath.Config) lb.Version {
	return lb.Version{Epoch: c.Epoch, Sequence: c.Sequence}
}

// clone copies everything that Normalize modifies.
func clone(s lb.State) lb.State {
	s.Addresses = slices.Clone(s.Addresses)
	s.Frontends, s.Sources = slices.Clone(s.Frontends), slices.Clone(s.Sources)
	for i := range s.Frontends {
		s.Frontends[i].Backends = slices.Clone(s.Frontends[i].Backends)
	}
	return s
}

func hashText(h uint64) string { return fmt.Sprintf("%016x", h) }

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// MarshalJSON shows the duration as text.
func (r Result) MarshalJSON() ([]byte, error) {
	type plain Result
	return json.Marshal(struct {
		plain
		Duration string `json:"duration"`
	}{plain(r), r.Duration.String()})
}

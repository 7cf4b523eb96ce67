// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// smallSizes make full tables cheap.
var smallSizes = Sizes{Addresses: 8, Frontends: 6, Backends: 24, RingSlots: 10000, Refs: 5, Flows: 64, NewFlows: 64, UDPFlows: 64, Policies: 6, Sources: 8}

// clock is a time that passes only when somebody waits.
type clock struct{ now time.Time }

func newClock() *clock                  { return &clock{time.Unix(1e9, 0)} }
func (c *clock) Now() time.Time         { return c.now }
func (c *clock) sleepUntil(t time.Time) { c.now = maxTime(c.now, t) }
func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// writer does what package writer does: it plans and applies until the tables
// hold the state, and after an error reads them again.
type writer struct {
	tables Tables
	clock  *clock
	image  *Contents
	left   *lb.TableFull // of the last state
}

var errNoProgress = errors.New("state is not reached")

func (w *writer) apply(s lb.State, tries int) (Written, error) {
	var written Written
	err := errNoProgress
	head(w.tables, s)
	for range tries {
		if w.image == nil {
			if w.image, err = Read(w.tables, w.clock.now); err != nil {
				continue
			}
		}
		var p *Plan
		if p, err = NewPlan(w.image, s, w.clock.now); err != nil {
			return written, err
		}
		var n Written
		n, err = Apply(w.tables, w.image, p, w.clock.Now)
		written.Add(n)
		if err != nil {
			w.image = nil
			continue
		}
		w.left = p.LeftOut
		if p.Complete() {
			return written, nil
		}
		w.clock.sleepUntil(p.Again)
		err = errNoProgress
	}
	return written, err
}

// step is one state of a script, and what follows from it.
type step struct {
	name                string
	state               lb.State
	dump, written, left string
}

// A script is a txtar file. For each step N it has a file "N state", in the
// form that parseState reads, and the results: "N dump", "N written", and "N
// left" if not all of it fits.
func readScript(t *testing.T, path string) (*txtar.Archive, []step) {
	t.Helper()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var steps []step
	for _, f := range archive.Files {
		name, kind, _ := strings.Cut(f.Name, " ")
		if kind == "state" {
			steps = append(steps, step{name: name, state: parseState(t, string(f.Data))})
		}
		s := &steps[len(steps)-1]
		switch kind {
		case "dump":
			s.dump = string(f.Data)
		case "written":
			s.written = string(f.Data)
		case "left":
			s.left = string(f.Data)
		}
	}
	return archive, steps
}

// parseState reads lines of
//
//	address IP [exclusive]
//	sources POLICY [only] [+PREFIX] [-PREFIX]
//	tcp|udp IP:PORT [idle DURATION] [reject WEIGHT] [gateway NAME] [route NAME] [records on] [refused WHY] [affinity GROUP[/TIMEOUT]] [ports FIRST-LAST[/shift]]
//	  policy POLICY TARGET [sources] [dry] [new N] [all N]
//	  IP:PORT WEIGHT [local] [not-serving] [standby] [@SERVICE:PORT] [xN: N of them, by counting up the address]
func parseState(t *testing.T, text string) lb.State {
	t.Helper()
	var s lb.State
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0 || f[0][0] == '#':
		case f[0] == "address":
			s.Addresses = append(s.Addresses, lb.Address{IP: netip.MustParseAddr(f[1]), Exclusive: len(f) > 2})
		case f[0] == "sources":
			s.Sources = append(s.Sources, parseSources(f[1], f[2:]))
		case f[0] == "policy":
			fe := &s.Frontends[len(s.Frontends)-1]
			fe.Restrictions = append(fe.Restrictions, parseRestriction(t, f[1:]))
		case f[0] == "tcp" || f[0] == "udp":
			ap := netip.MustParseAddrPort(f[1])
			fe := lb.Frontend{Addr: ap.Addr(), Port: ap.Port(), Protocol: lb.TCP}
			if f[0] == "udp" {
				fe.Protocol = lb.UDP
			}
			for i := 2; i < len(f); i += 2 {
				switch f[i] {
				case "idle":
					fe.IdleTimeout, _ = time.ParseDuration(f[i+1])
				case "reject":
					fe.Reject = weight(t, f[i+1])
				case "gateway":
					fe.Gateway = f[i+1]
				case "route":
					fe.Route = f[i+1]
				case "records":
					fe.Records = true
				case "refused":
					fe.Refused = f[i+1]
				case "affinity":
					fe.Affinity = parseAffinity(t, f[i+1])
				case "ports":
					fe.Ports = parsePorts(t, f[i+1])
				}
			}
			s.Frontends = append(s.Frontends, fe)
		default:
			fe := &s.Frontends[len(s.Frontends)-1]
			b := lb.Backend{Addr: netip.MustParseAddrPort(f[0]), Weight: weight(t, f[1])}
			n := 1
			for _, word := range f[2:] {
				if word == "local" {
					b.Local = true
				} else if word == "standby" {
					b.Standby = true
				} else if word == "not-serving" {
					b.NotServing = true
				} else if service, isRef := strings.CutPrefix(word, "@"); isRef {
					name, port, _ := strings.Cut(service, ":")
					number, _ := strconv.Atoi(port)
					b.Service, b.ServicePort = name, uint16(number)
				} else if n, _ = strconv.Atoi(word[1:]); n == 0 {
					t.Fatalf("line %q", line)
				}
			}
			for range n {
				fe.Backends = append(fe.Backends, b)
				b.Addr = netip.AddrPortFrom(b.Addr.Addr().Next(), b.Addr.Port())
			}
		}
	}
	s.Normalize()
	for _, f := range s.Frontends {
		for _, b := range f.Backends {
			ref := f.RefOf(&b)
			refNames[ref.Hash()] = fmt.Sprintf("%s %s %s:%d/%s", ref.Gateway, ref.Route, ref.Service, ref.Port, ref.Protocol)
		}
	}
	return s
}

func parseAffinity(t *testing.T, text string) *lb.Affinity {
	t.Helper()
	group, timeout, _ := strings.Cut(text, "/")
	a := &lb.Affinity{Group: group, Bits4: 24, Bits6: 64}
	if timeout != "" {
		var err error
		if a.Timeout, err = time.ParseDuration(timeout); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

func parsePorts(t *testing.T, text string) *lb.Ports {
	t.Helper()
	text, how, _ := strings.Cut(text, "/")
	p := &lb.Ports{Shift: how == "shift"}
	if _, err := fmt.Sscanf(text, "%d-%d", &p.First, &p.Last); err != nil {
		t.Fatal(err)
	}
	return p
}

// refNames are the backendRefs of all states that were parsed, by hash.
var refNames = map[uint64]string{}

func weight(t *testing.T, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return n * lb.WeightUnit
}

// dump returns what tables hold, without the ids and offsets, which depend on
// history.
func dump(t *testing.T, tables Tables) string {
	t.Helper()
	contents, err := Read(tables, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, ip := range slices.SortedFunc(maps.Keys(contents.Addresses), netip.Addr.Compare) {
		fmt.Fprintf(&b, "address %s", ip)
		if contents.Addresses[ip].Flags&uint32(bpf.BlixtAddressFlagADDRESS_EXCLUSIVE) != 0 {
			b.WriteString(" exclusive")
		}
		if contents.Addresses[ip].Flags&AddressRanges != 0 {
			b.WriteString(", ranges")
		}
		b.WriteString("\n")
	}
	for _, key := range slices.SortedFunc(maps.Keys(contents.Frontends), lb.Key.Compare) {
		s := contents.Frontends[key]
		fmt.Fprintf(&b, "frontend %s idle %d ticks, ring %d", key, s.Entry.IdleTicks, len(s.Slots))
		if s.Entry.Flags&FrontendRecords != 0 {
			b.WriteString(", records")
		}
		if s.Entry.Flags&FrontendRefuses != 0 {
			b.WriteString(", refuses")
		}
		if e := s.Entry; e.Flags&FrontendAffinity != 0 {
			fmt.Fprintf(&b, ", affinity of %d bits, %d ticks", e.AffinityBits, e.AffinityTicks)
		}
		if s.Entry.Flags&FrontendKeepPort != 0 {
			b.WriteString(", keeps ports")
		}
		if s.Entry.Flags&FrontendShiftPort != 0 {
			fmt.Fprintf(&b, ", shifts ports from %d on", s.Entry.FirstPort)
		}
		b.WriteString("\n")
		for _, policy := range policiesOf(&contents.policies, s.Entry.Index) {
			fmt.Fprintf(&b, "  %s\n", policy)
		}
		slots := map[uint32]int{}
		for _, id := range s.Slots {
			slots[id]++
		}
		if n := slots[0]; n > 0 {
			fmt.Fprintf(&b, "  refuse: %d slots\n", n)
		}
		var lines []string
		for e, id := range s.IDs {
			line := fmt.Sprintf("  %s: %d slots", e.Addr, slots[id])
			if e.Local {
				line += ", local"
			}
			if contents.backends[id].Flags&BackendNotServing != 0 {
				line += ", not serving"
			}
			if kept, has := s.Kept[e.Addr.Addr()]; has && kept == id {
				line += ", kept"
			}
			if ref := contents.backends[id].Ref; ref != 0 {
				line += ", " + refNames[contents.refIDs.keys[ref]]
			}
			lines = append(lines, line+"\n")
		}
		slices.Sort(lines)
		b.WriteString(strings.Join(lines, ""))
	}
	for _, key := range slices.SortedFunc(maps.Keys(contents.Ranges), lb.Key.Compare) {
		fmt.Fprintf(&b, "ranges of %s/%s:", key.Addr, key.Protocol)
		for _, r := range contents.Ranges[key].Of {
			if r.Last != 0 {
				fmt.Fprintf(&b, " %d-%d by %d", r.First, r.Last, FromPort(r.Port))
			}
		}
		b.WriteString("\n")
	}
	if n := len(contents.strayFrontends) + len(contents.strayAffinities) + len(contents.orphans) + len(contents.twins); n > 0 {
		fmt.Fprintf(&b, "%d strays\n", n)
	}
	return b.String()
}

func scripts(t *testing.T, run func(t *testing.T, path string)) {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) { run(t, path) })
	}
}

func TestScriptsOnFake(t *testing.T) {
	scripts(t, func(t *testing.T, path string) {
		archive, steps := readScript(t, path)
		fake, c := NewFake(smallSizes), newClock()
		look := watch(t, fake, c)
		w := &writer{tables: fake, clock: c}
		got := &txtar.Archive{Comment: archive.Comment}
		add := func(name, data string) {
			got.Files = append(got.Files, txtar.File{Name: name, Data: []byte(data)})
		}
		for _, s := range steps {
			i := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == s.name+" state" })
			add(s.name+" state", string(archive.Files[i].Data))
			written, err := w.apply(s.state, 10)
			if err != nil {
				t.Fatal(err)
			}
			if w.left != nil {
				add(s.name+" left", w.left.String()+"\n")
			}
			text := fmt.Sprintf("addresses %d, frontends %d, backends %d, words %d, slots %d", written.Addresses, written.Frontends, written.Backends, written.Words, written.Slots)
			if written.Policies+written.Sources > 0 {
				text += fmt.Sprintf(", policies %d, sources %d", written.Policies, written.Sources)
			}
			if written.Ranges+written.Affinities > 0 {
				text += fmt.Sprintf(", ranges %d, affinities %d", written.Ranges, written.Affinities)
			}
			add(s.name+" written", text+"\n")
			add(s.name+" dump", dump(t, fake))
			if p, err := NewPlan(w.image, s.state, c.now); err == nil && !p.Empty() {
				t.Errorf("step %s: not at rest, %d writes more: %v", s.name, len(p.Ops), p.Ops)
			}
			look()
		}
		golden.File(t, path, txtar.Format(got))
	})
}

// One call in ten fails, and half of the writes that fail were done.
func TestScriptsWithFaults(t *testing.T) {
	scripts(t, func(t *testing.T, path string) {
		_, steps := readScript(t, path)
		for seed := range uint64(20) {
			fake, c := NewFake(smallSizes), newClock()
			watch(t, fake, c)
			fake.Rand = rand.New(rand.NewPCG(seed, 0))
			w := &writer{tables: fake, clock: c}
			for _, s := range steps {
				fake.Faults = 0.1
				_, err := w.apply(s.state, 1000)
				fake.Faults = 0
				checkStep(t, fmt.Sprintf("seed %d step %s", seed, s.name), fake, s, err)
			}
		}
	})
}

// The writer dies after every single write, once each, and another one starts.
func TestScriptsWithCrashes(t *testing.T) {
	scripts(t, func(t *testing.T, path string) {
		_, steps := readScript(t, path)
		for n := 1; ; n++ {
			fake, c := NewFake(smallSizes), newClock()
			watch(t, fake, c)
			crashed := false
			for _, s := range steps {
				w := &writer{tables: fake, clock: c}
				fake.Writes()
				fake.CrashAfter = n
				_, err := w.apply(s.state, 10)
				fake.CrashAfter = 0
				if errors.Is(err, errInjected) {
					crashed = true
					w = &writer{tables: fake, clock: c}
					_, err = w.apply(s.state, 10)
				}
				checkStep(t, fmt.Sprintf("crash after %d step %s", n, s.name), fake, s, err)
			}
			if !crashed {
				t.Logf("crashed after each of %d writes", n-1)
				return
			}
		}
	})
}

func TestScriptsOnKernel(t *testing.T) {
	scripts(t, func(t *testing.T, path string) {
		_, steps := readScript(t, path)
		m := kernelMaps(t, smallSizes)
		w := &writer{tables: m, clock: newClock()}
		for _, s := range steps {
			if s.left != "" { // the sizes of the fake's tables
				return
			}
			_, err := w.apply(s.state, 10)
			checkStep(t, "step "+s.name, m, s, err)
			w.image = nil // as after a restart
		}
	})
}

func checkStep(t *testing.T, what string, tables Tables, s step, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if diff := cmp.Diff(s.dump, dump(t, tables)); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

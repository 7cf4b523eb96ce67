// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// parseSources reads the words behind "sources POLICY".
func parseSources(policy string, words []string) lb.SourceSet {
	s := lb.SourceSet{Policy: policy}
	for _, word := range words {
		switch word[0] {
		case '+':
			s.Allow = append(s.Allow, netip.MustParsePrefix(word[1:]))
		case '-':
			s.Deny = append(s.Deny, netip.MustParsePrefix(word[1:]))
		default:
			s.OnlyAllowed = true
		}
	}
	slices.SortFunc(s.Allow, netip.Prefix.Compare)
	slices.SortFunc(s.Deny, netip.Prefix.Compare)
	knowSet(s)
	return s
}

// parseRestriction reads the words behind "policy".
func parseRestriction(t *testing.T, words []string) lb.Restriction {
	t.Helper()
	r := lb.Restriction{Policy: words[0], Target: words[1]}
	keyNames[policyKey(&r)] = r.Policy + " of " + r.Target
	limit := func(i int) uint32 {
		n, err := strconv.ParseUint(words[i], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		if r.Limits == nil {
			r.Limits = &lb.Limits{Bits4: 32, Bits6: 64}
		}
		return uint32(n)
	}
	for i, word := range words {
		switch word {
		case "sources":
			r.Sources = true
		case "dry":
			r.DryRun = true
			keyNames[policyKey(&r)] = r.Policy + " of " + r.Target + ", dry run"
		case "new":
			n := limit(i + 1)
			r.Limits.PerSource = lb.Limit{NewPerSecond: n, Burst: n}
		case "all":
			r.Limits.Total.Concurrent = limit(i + 1)
		}
	}
	return r
}

// keyNames are the policies of all states that were parsed, by key.
var keyNames = map[uint64]string{}

// policiesOf returns the policies of a frontend, without ids.
func policiesOf(p *heldPolicies, index uint32) (all []string) {
	if !p.enforces {
		return nil
	}
	for _, id := range p.words[index].IDs() {
		e := p.elements[id]
		text := "policy " + keyNames[e.Key] + ":"
		if set := p.sets.byID[setOfPolicy(e)]; set != nil {
			if bpf.BlixtPolicyFlag(e.Sources>>setBits)&bpf.BlixtPolicyFlagPOLICY_ONLY_ALLOWED != 0 {
				text += " only"
			}
			text += contentOf(set.entries())
		}
		if e.SourceInterval != 0 {
			text += fmt.Sprintf(" %d at once and one in %v", e.SourceBurst, time.Duration(e.SourceInterval))
		}
		if e.TotalConcurrent != 0 {
			text += fmt.Sprintf(" %d in all", e.TotalConcurrent)
		}
		all = append(all, text)
	}
	return all
}

// contentOf returns the prefixes of a set.
func contentOf(entries []SourceEntry) string {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, compareSources)
	var b strings.Builder
	for _, e := range entries {
		sign := map[uint32]string{1: "+", 2: "-", 3: "?"}[e.Verdict]
		addr, bits := netip.AddrFrom16(e.Key.Addr.Bytes).Unmap(), int(e.Key.Bits)-setBits
		if addr.Is4() {
			bits -= 96
		}
		fmt.Fprintf(&b, " %s%s", sign, netip.PrefixFrom(addr, bits))
	}
	return b.String()
}

// transitions are from which state to which one tables are on their way.
var transitions = map[Tables]*transition{}

type transition struct{ from, to lb.State }

// head records that tables are to hold a state.
func head(t Tables, s lb.State) {
	of := transitions[t]
	switch {
	case of == nil:
		transitions[t] = &transition{to: s}
	case of.to.Hash() != s.Hash():
		of.from, of.to = of.to, s
	}
}

// asked returns the policies with sources that have to be asked for a frontend at any
// moment: those that it has both in the old and in the new state.
func (tr *transition) asked(key lb.Key) map[uint64]bool {
	find := func(s *lb.State) (keys map[uint64]bool) {
		for i := range s.Frontends {
			if f := &s.Frontends[i]; f.Key() == key {
				keys = map[uint64]bool{}
				for j := range f.Restrictions {
					if r := &f.Restrictions[j]; r.Sources && !r.DryRun {
						keys[policyKey(r)] = true
					}
				}
			}
		}
		return keys
	}
	from, to := find(&tr.from), find(&tr.to)
	if from == nil {
		return to
	}
	for key := range from {
		if !to[key] {
			delete(from, key)
		}
	}
	return from
}

// seenPolicies is what packets have seen of policies, and when last.
type seenPolicies struct {
	sets map[uint32]seenThing[string] // content by id
	keys map[uint32]seenThing[uint64] // whose an id is
}

type seenThing[T comparable] struct {
	thing T
	last  time.Time
}

// saw records what a packet sees under an id, and reports whether another packet of the last
// second has seen something else.
func saw[T comparable](all map[uint32]seenThing[T], id uint32, thing T, now time.Time) bool {
	before, known := all[id]
	all[id] = seenThing[T]{thing, now}
	return !known || before.thing == thing || now.Sub(before.last) >= reuseGrace
}

// policies checks that each frontend asks whole sets of the right policies.
func (w *watcher) policies() {
	w.t.Helper()
	tr := transitions[w.f]
	if !w.f.EnforcesPolicies() || tr == nil {
		return
	}
	if w.seenPolicies.sets == nil {
		w.seenPolicies = seenPolicies{map[uint32]seenThing[string]{}, map[uint32]seenThing[uint64]{}}
	}
	now := w.c.now
	content := map[uint32][]SourceEntry{}
	for k, v := range w.f.p.sources {
		content[k.Set] = append(content[k.Set], SourceEntry{k, v})
	}
	// A packet that is slow still asks what it has read.
	for id, seen := range w.seenPolicies.sets {
		if now.Sub(seen.last) < reuseGrace && contentOf(content[id]) != seen.thing {
			w.t.Fatalf("set %d: has%s, and had%s %v ago", id, contentOf(content[id]), seen.thing, now.Sub(seen.last))
		}
	}
	for key, e := range w.f.frontends {
		asked := tr.asked(key)
		for _, id := range w.f.p.words[e.Index].IDs() {
			p := w.f.p.elements[id]
			if p.Key == 0 || !saw(w.seenPolicies.keys, id, p.Key, now) {
				w.t.Fatalf("%s: policy %d is of %q", key, id, keyNames[p.Key])
			}
			set := setOfPolicy(p)
			if set == 0 {
				continue
			}
			if !saw(w.seenPolicies.sets, set, contentOf(content[set]), now) {
				w.t.Fatalf("%s: set %d has changed to%s", key, set, contentOf(content[set]))
			}
			only := bpf.BlixtPolicyFlag(p.Sources>>setBits) & bpf.BlixtPolicyFlagPOLICY_ONLY_ALLOWED
			name, _, _ := strings.Cut(keyNames[p.Key], " ")
			if text := fmt.Sprint(only != 0, contentOf(content[set])); !knownSets[name][text] {
				w.t.Fatalf("%s: policy %s has never been %s", key, name, text)
			}
			delete(asked, p.Key)
		}
		if len(asked) > 0 && e.Flags&FrontendRefuses == 0 {
			for k := range asked {
				w.t.Fatalf("%s: does not ask %s", key, keyNames[k])
			}
		}
	}
}

// knownSets are the sets of all states that were parsed, by policy.
var knownSets = map[string]map[string]bool{}

func knowSet(s lb.SourceSet) {
	if knownSets[s.Policy] == nil {
		knownSets[s.Policy] = map[string]bool{}
	}
	knownSets[s.Policy][fmt.Sprint(s.OnlyAllowed, contentOf(sourceEntries(&s, 0)))] = true
}

// The watcher must see what it looks for.
func TestWatcherSeesFaultsOfPolicies(t *testing.T) {
	const text = "address 192.0.2.1\nsources a/b only +10.0.0.0/8 +10.1.0.0/16\ntcp 192.0.2.1:80\npolicy a/b TCPRoute/a/b sources\n  10.0.0.1:80 1\n"
	for name, spoil := range map[string]func(f *Fake, index, id uint32){
		"part of a set": func(f *Fake, _, _ uint32) {
			for k := range f.p.sources {
				delete(f.p.sources, k)
				return
			}
		},
		"not asked":         func(f *Fake, index, _ uint32) { f.p.words[index] = 0 },
		"of somebody else":  func(f *Fake, _, id uint32) { f.p.elements[id].Key++ },
		"of nobody":         func(f *Fake, _, id uint32) { f.p.elements[id].Key = 0 },
		"no set":            func(f *Fake, _, id uint32) { f.p.elements[id].Sources = 0 },
		"allows all others": func(f *Fake, _, id uint32) { f.p.elements[id].Sources &= 1<<setBits - 1 },
	} {
		t.Run(name, func(t *testing.T) {
			fake, c := NewFake(smallSizes), newClock()
			w := &writer{tables: fake, clock: c}
			if _, err := w.apply(parseState(t, text), 3); err != nil {
				t.Fatal(err)
			}
			var served *Served
			for _, served = range w.image.Frontends {
			}
			if !failsIn(func(t *testing.T) {
				look := watch(t, fake, c)
				look()
				spoil(fake, served.Entry.Index, w.image.policies.words[served.Entry.Index].IDs()[0])
				look()
			}) {
				t.Error("not seen")
			}
		})
	}
}

// IPv6 prefixes say nothing about IPv4 sources, whose addresses are mapped into IPv6.
func TestFamiliesAreApart(t *testing.T) {
	for text, want := range map[string]string{
		"only +::/0":             " ?0.0.0.0/0 +::/0",
		"-::/0":                  " -::/0 ?0.0.0.0/0",
		"only +::/0 +0.0.0.0/0":  " +0.0.0.0/0 +::/0",
		"only +::/16 -0.0.0.0/0": " +::/16 -0.0.0.0/0",
		"only +2001:db8::/32":    " +2001:db8::/32",
		"-::ffc0:0:0/90":         " -::ffc0:0:0/90 ?0.0.0.0/0",
	} {
		s := parseSources("a/b", strings.Fields(text))
		words := strings.Fields(contentOf(sourceEntries(&s, 7)))
		wanted := strings.Fields(want)
		slices.Sort(words)
		slices.Sort(wanted)
		if !slices.Equal(words, wanted) {
			t.Errorf("%s: entries %v, want %v", text, words, wanted)
		}
		if err := checkSources([]lb.SourceSet{s}); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestSetsOfNobodyAreDeleted: after a rest, by a plan that nobody waits for; also those that a
// killed writer has left.
func TestSetsOfNobodyAreDeleted(t *testing.T) {
	const with = "address 192.0.2.1\nsources a/b +10.0.0.0/8 %s\ntcp 192.0.2.1:80\npolicy a/b TCPRoute/a/b sources\n  10.0.0.1:80 1\n"
	const without = "address 192.0.2.1\ntcp 192.0.2.1:80\n  10.0.0.1:80 1\n"
	fake, c := NewFake(smallSizes), newClock()
	look := watch(t, fake, c)
	target := NewTarget()
	contents, err := Read(fake, c.now)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) (last *Plan) {
		t.Helper()
		if err := target.Replace(parseState(t, text)); err != nil {
			t.Fatal(err)
		}
		head(fake, target.State())
		for range 5 {
			last = target.Plan(contents, c.now)
			if _, err := Apply(fake, contents, last, c.Now); err != nil {
				t.Fatal(err)
			}
			if last.Complete() {
				return last
			}
		}
		t.Fatal("not complete")
		return nil
	}
	write(fmt.Sprintf(with, "-10.1.0.0/16"))
	for i, text := range []string{fmt.Sprintf(with, "-10.2.0.0/16"), without} {
		p := write(text)
		if want := 4 - 2*i; len(fake.p.sources) != want || p.Later.IsZero() {
			t.Fatalf("%s: %d prefixes, want %d; again at %v", text, len(fake.p.sources), want, p.Later)
		}
		for n := 0; !p.Later.IsZero(); n++ {
			if n == 5 {
				t.Fatal("there is no end to it")
			}
			c.sleepUntil(p.Later)
			p = write(text)
		}
		look()
		if want := 2 - 2*i; len(fake.p.sources) != want {
			t.Fatalf("%s: %d prefixes left, want %d", text, len(fake.p.sources), want)
		}
	}
	if len(contents.policies.sets.byID)+len(contents.policies.sets.byDigest)+contents.policies.sets.entries > 0 {
		t.Errorf("the writer thinks that the tables hold %+v", contents.policies.sets)
	}
	// What a writer has left that was killed between the writing of a set and its publication.
	if _, err := fake.PutSources(sourceEntries(&lb.SourceSet{Allow: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}}, 77)); err != nil {
		t.Fatal(err)
	}
	if contents, err = Read(fake, c.now); err != nil {
		t.Fatal(err)
	}
	p := write(without)
	c.sleepUntil(p.Later)
	write(without)
	if len(fake.p.sources) > 0 {
		t.Errorf("%v is left", fake.p.sources)
	}
	if write(fmt.Sprintf(with, "")); contents.policies.sets.last <= 77 {
		t.Errorf("set %d is used again", contents.policies.sets.last)
	}
}

// TestNoMemoryForASet: nothing of it is published, the rest of the state is, and it is tried again.
func TestNoMemoryForASet(t *testing.T) {
	fake, c := NewFake(smallSizes), newClock()
	look := watch(t, fake, c)
	w := &writer{tables: fake, clock: c}
	const one = "address 192.0.2.1\nsources a/b +10.0.0.0/8\ntcp 192.0.2.1:80\npolicy a/b TCPRoute/a/b sources\n  10.0.0.1:80 1\n"
	const two = "address 192.0.2.1\nsources a/b +10.0.0.0/8 -10.1.0.0/16\nsources a/c -10.2.0.0/16\ntcp 192.0.2.1:80\npolicy a/b TCPRoute/a/b sources\n  10.0.0.1:80 1\n  10.0.0.2:80 1\n" +
		"tcp 192.0.2.1:81\npolicy a/c TCPRoute/a/c sources\n  10.0.0.1:80 1\n"
	if _, err := w.apply(parseState(t, one), 5); err != nil {
		t.Fatal(err)
	}
	puts := 0
	fake.NoMemory = func() bool { puts++; return puts > 1 }
	if _, err := w.apply(parseState(t, two), 10); err != nil {
		t.Fatal(err)
	}
	if w.left == nil || !slices.Equal(w.left.Policies, []string{"a/b", "a/c"}) || w.left.PolicyTable != "sources" || w.left.Refusing != 1 || w.left.Frontends != 0 {
		t.Errorf("left out: %+v", w.left)
	}
	if got := dump(t, fake); !strings.Contains(got, "a/b of TCPRoute/a/b: +10.0.0.0/8\n") || !strings.Contains(got, "81/tcp idle 7544 ticks, ring 512, refuses\n") || !strings.Contains(got, "10.0.0.2:80") {
		t.Errorf("tables hold\n%s", got)
	}
	fake.NoMemory = nil
	c.sleepUntil(c.now.Add(noRoomFor))
	if _, err := w.apply(parseState(t, two), 10); err != nil || w.left != nil {
		t.Errorf("%v, left out: %v", err, w.left)
	}
	look()
}

// TestProgramWithoutPolicies: limits are left out, and what sources would protect refuses all new
// connections.
func TestProgramWithoutPolicies(t *testing.T) {
	fake, c := NewFake(smallSizes), newClock()
	fake.Earlier = true
	w := &writer{tables: fake, clock: c}
	if _, err := w.apply(parseState(t, "address 192.0.2.1\nsources a/b +10.0.0.0/8\ntcp 192.0.2.1:80\npolicy a/b TCPRoute/a/b sources\n  10.0.0.1:80 1\n"+
		"tcp 192.0.2.1:81\npolicy a/c TCPRoute/a/c new 10\n  10.0.0.1:80 1\ntcp 192.0.2.1:82\npolicy a/b TCPRoute/a/b sources dry\n  10.0.0.1:80 1\n"), 5); err != nil {
		t.Fatal(err)
	}
	rings := map[uint16]int{}
	for key, s := range w.image.Frontends {
		rings[key.Port] = len(s.Slots)
	}
	if rings[80] != 0 || rings[81] == 0 || rings[82] == 0 || w.left == nil || w.left.Refusing != 1 || len(w.left.Policies) != 2 {
		t.Errorf("rings %v, left out %+v", rings, w.left)
	}
}

// TestSourcesThatAreNotInTheState: an earlier list stays in force, and where none was, nobody gets in.
func TestSourcesThatAreNotInTheState(t *testing.T) {
	fake, c := NewFake(smallSizes), newClock()
	const frontends = "tcp 192.0.2.1:80\npolicy a/b TCPRoute/a/b sources\n  10.0.0.1:80 1\n"
	const more = "tcp 192.0.2.1:81\npolicy a/c TCPRoute/a/c sources\n  10.0.0.1:80 1\n"
	w := &writer{tables: fake, clock: c}
	if _, err := w.apply(parseState(t, "address 192.0.2.1\nsources a/b +10.0.0.0/8\n"+frontends), 5); err != nil {
		t.Fatal(err)
	}
	s := parseState(t, "address 192.0.2.1\n"+frontends+more)
	if _, err := w.apply(s, 5); err != nil {
		t.Fatal(err)
	}
	got := dump(t, fake)
	if !strings.Contains(got, "  policy a/b of TCPRoute/a/b: +10.0.0.0/8\n") || !strings.Contains(got, "192.0.2.1:81/tcp idle 7544 ticks, ring 512, refuses\n") || strings.Count(got, "refuses") != 1 {
		t.Errorf("tables hold\n%s", got)
	}
	p, err := NewPlan(w.image, s, c.now)
	if err != nil || !slices.Equal(p.Unknown, []string{"a/b", "a/c"}) || p.Hash == s.Hash() {
		t.Errorf("unknown are %v, %v", p.Unknown, err)
	}
	if _, err := w.apply(parseState(t, "address 192.0.2.1\nsources a/b +10.0.0.0/8\nsources a/c -10.0.0.0/8\n"+frontends+more), 5); err != nil {
		t.Fatal(err)
	}
	if got := dump(t, fake); strings.Contains(got, "refuses") {
		t.Errorf("once all lists are there:\n%s", got)
	}
}

// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// randomChange changes a state at random: a few frontends, addresses or backends.
// It returns the frontends that differ, nil if more than that does.
func randomChange(random *rand.Rand, s *lb.State) (changed []lb.Frontend) {
	vip := func() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(random.IntN(4))}) }
	if len(s.Frontends) == 0 || random.IntN(4) == 0 {
		f := lb.Frontend{Addr: vip(), Protocol: lb.TCP, Port: uint16(1 + random.IntN(3)), Gateway: fmt.Sprint("g", random.IntN(3))}
		s.Frontends = deleteKey(s.Frontends, f.Key())
		if random.IntN(3) > 0 {
			randomBackends(random, &f)
			s.Frontends = append(s.Frontends, f)
		}
		s.Addresses = nil
		for i := range byte(4) {
			if random.IntN(4) > 0 {
				s.Addresses = append(s.Addresses, lb.Address{IP: netip.AddrFrom4([4]byte{192, 0, 2, i}), Exclusive: random.IntN(2) == 0})
			}
		}
		s.Normalize()
		return nil
	}
	changed = []lb.Frontend{}
	for range 1 + random.IntN(2) {
		f := s.Frontends[random.IntN(len(s.Frontends))]
		if deleteKey(changed, f.Key()) == nil && len(changed) > 0 {
			continue
		}
		randomBackends(random, &f)
		s.Frontends = append(deleteKey(s.Frontends, f.Key()), f)
		s.Normalize()
		changed = append(deleteKey(changed, f.Key()), f)
	}
	return changed
}

func deleteKey(frontends []lb.Frontend, key lb.Key) (rest []lb.Frontend) {
	for _, f := range frontends {
		if f.Key() != key {
			rest = append(rest, f)
		}
	}
	return rest
}

// randomBackends replaces the backends: some stay, weights and flags change.
// randomSettings has some frontends remember clients, and some serve more ports.
func randomSettings(random *rand.Rand, f *lb.Frontend) {
	f.Affinity, f.Ports = nil, nil
	if random.IntN(2) == 0 {
		f.Affinity = &lb.Affinity{Group: fmt.Sprint("g", random.IntN(2)), Bits4: 24, Bits6: 64, Timeout: time.Duration(random.IntN(2)) * time.Hour}
	}
	if random.IntN(3) == 0 {
		f.Ports = &lb.Ports{Last: f.Port + uint16(1+random.IntN(9)), Shift: random.IntN(2) == 0}
	}
}

func randomBackends(random *rand.Rand, f *lb.Frontend) {
	f.Backends = nil
	f.Reject = uint64(random.IntN(3) / 2)
	randomSettings(random, f)
	for i := range byte(random.IntN(9)) {
		if random.IntN(4) > 0 {
			f.Backends = append(f.Backends, lb.Backend{
				Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, i}), 80), Weight: random.Uint64N(3),
				Local: random.IntN(9) == 0, NotServing: random.IntN(9) == 0,
			})
		}
	}
}

// Planning what has changed gives the same writes as planning everything, on
// tables that are often full.
func TestChangesArePlannedAsEverythingIs(t *testing.T) {
	full := map[string]int{}
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 0))
		c := newClock()
		var s lb.State
		target, parts, whole := NewTarget(), NewFake(smallSizes), NewFake(smallSizes)
		a, b := mustRead(t, parts, c), mustRead(t, whole, c)
		for step := range 60 {
			changed := randomChange(random, &s)
			what := fmt.Sprintf("seed %d step %d", seed, step)
			var err error
			if changed != nil {
				err = target.Change(changed, nil, nil)
			} else {
				err = target.Replace(copyOf(s))
			}
			if err != nil || target.Hash() != s.Hash() {
				t.Fatalf("%s: the target has another hash than the state (%v)", what, err)
			}
			for range 1 + random.IntN(3) { // perhaps another change comes before all is done
				one := target.Plan(a, c.now)
				all, err := NewPlan(b, copyOf(s), c.now)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(fmt.Sprint(all.Ops), fmt.Sprint(one.Ops)); diff != "" || one.Again != all.Again || one.Hash != all.Hash {
					t.Fatalf("%s: again %v, want %v; (-everything +changes):\n%s", what, one.Again, all.Again, diff)
				}
				if all.LeftOut != nil {
					full[all.LeftOut.Table]++
				}
				if diff := cmp.Diff(all.LeftOut, one.LeftOut); diff != "" {
					t.Fatalf("%s: left out (-everything +changes):\n%s", what, diff)
				}
				mustCarryOut(t, parts, a, one, c)
				mustCarryOut(t, whole, b, all, c)
				if one.Complete() {
					break
				}
				c.sleepUntil(one.Again)
			}
			if diff := cmp.Diff(dump(t, whole), dump(t, parts)); diff != "" {
				t.Fatalf("%s (-everything +changes):\n%s", what, diff)
			}
			use := mustRead(t, parts, c).Use()
			if a.Use() != use {
				t.Fatalf("%s: in use are %+v, want %+v", what, a.Use(), use)
			}
		}
	}
	for _, table := range []string{"frontends", "backends", "rings"} {
		if full[table] == 0 {
			t.Errorf("table %s was never full: %v", table, full)
		}
	}
}

// Whatever fails on the way, and whenever the writer starts anew: in the end the
// tables hold what a plan for everything would leave as it is.
func TestChangesWithFaultsEndAsEverythingDoes(t *testing.T) {
	for seed := range uint64(12) {
		random := rand.New(rand.NewPCG(seed, 1))
		fake, c := NewFake(smallSizes), newClock()
		watch(t, fake, c)
		fake.Rand = rand.New(rand.NewPCG(seed, 2))
		var s lb.State
		var contents *Contents
		target := NewTarget()
		step := func(tries int) (done bool, err error) {
			for range tries {
				if contents == nil {
					if contents, err = Read(fake, c.now); err != nil {
						continue
					}
				}
				p := target.Plan(contents, c.now)
				if _, err = Apply(fake, contents, p, c.Now); err != nil {
					contents = nil
					continue
				}
				if p.Complete() {
					return true, nil
				}
				c.sleepUntil(p.Again)
			}
			return false, err
		}
		for i := range 40 {
			what := fmt.Sprintf("seed %d step %d", seed, i)
			if changed := randomChange(random, &s); changed != nil {
				_ = target.Change(changed, nil, nil)
			} else {
				_ = target.Replace(copyOf(s))
			}
			fake.Faults = 0.05
			_, _ = step(1 + random.IntN(4))
			fake.Faults = 0
			if random.IntN(5) == 0 { // a restart
				contents, target = nil, NewTarget()
				_ = target.Replace(copyOf(s))
			}
			if random.IntN(3) == 0 {
				continue // another change comes first
			}
			if done, err := step(50); err != nil || !done {
				t.Fatalf("%s: done %v, %v", what, done, err)
			}
			all, err := NewPlan(mustRead(t, fake, c), copyOf(s), c.now)
			if err != nil || len(all.Ops) > 0 {
				t.Fatalf("%s: a plan for everything finds %v (%v)", what, all.Ops, err)
			}
			checkNobodyGone(t, what, fake, s)
		}
	}
}

// checkNobodyGone checks that the tables have no frontend, backend or address that
// the state has not.
func checkNobodyGone(t *testing.T, what string, fake *Fake, s lb.State) {
	t.Helper()
	contents := mustRead(t, fake, newClock())
	wanted := map[lb.Key]map[BackendKey]bool{}
	for _, f := range s.Frontends {
		wanted[f.Key()] = map[BackendKey]bool{}
		for _, b := range f.Backends {
			wanted[f.Key()][keyOf(b)] = true
		}
	}
	for key, served := range contents.Frontends {
		if wanted[key] == nil {
			t.Errorf("%s: %s is still served", what, key)
		}
		for b := range served.IDs {
			if !wanted[key][b] {
				t.Errorf("%s: %s still has backend %v", what, key, b)
			}
		}
	}
	for ip := range contents.Addresses {
		if !slices.ContainsFunc(s.Addresses, func(a lb.Address) bool { return a.IP == ip }) {
			t.Errorf("%s: address %s is still there", what, ip)
		}
	}
}

func copyOf(s lb.State) lb.State {
	s.Frontends = append([]lb.Frontend(nil), s.Frontends...)
	return s
}

func mustRead(t *testing.T, tables Tables, c *clock) *Contents {
	t.Helper()
	contents, err := Read(tables, c.now)
	if err != nil {
		t.Fatal(err)
	}
	return contents
}

func mustCarryOut(t *testing.T, tables Tables, contents *Contents, p *Plan, c *clock) {
	t.Helper()
	if _, err := Apply(tables, contents, p, c.Now); err != nil {
		t.Fatal(err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// stateOf makes a state of frontends such as "80: 1 2*0": port, and backends by number,
// with a weight if it is not 1.
func stateOf(frontends ...string) lb.State {
	s := lb.State{}
	addr := netip.MustParseAddr("192.0.2.1")
	if len(frontends) > 0 {
		s.Addresses = []lb.Address{{IP: addr, Exclusive: true}}
	}
	for _, text := range frontends {
		f := lb.Frontend{Addr: addr, Protocol: lb.TCP}
		port, backends, _ := strings.Cut(text, ":")
		_, _ = fmt.Sscan(port, &f.Port)
		for _, b := range strings.Fields(backends) {
			n, weight := 0, uint64(1)
			_, _ = fmt.Sscanf(b, "%d*%d", &n, &weight)
			f.Backends = append(f.Backends, lb.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 80), Weight: weight})
		}
		s.Frontends = append(s.Frontends, f)
	}
	s.Normalize()
	return s
}

func show(s lb.State) (frontends []string) {
	for _, f := range s.Frontends {
		text := fmt.Sprint(f.Port, ":")
		for _, b := range f.Backends {
			a := b.Addr.Addr().As4()
			if text += fmt.Sprint(" ", a[3]); b.Weight != 1 {
				text += fmt.Sprint("*", b.Weight)
			}
		}
		frontends = append(frontends, text)
	}
	return frontends
}

func TestRemovalsWait(t *testing.T) {
	r := removals{grace: time.Second}
	begin := time.Now()
	changed := begin
	generation := 0
	step := func(ms int, file bool, want, serve lb.State, next time.Duration) {
		t.Helper()
		now := begin.Add(time.Duration(ms) * time.Millisecond)
		if file {
			generation++
			changed = now
		}
		got, wait := r.hold(want, generation, changed, now)
		if !slices.Equal(show(got), show(serve)) || wait != next || len(got.Addresses) != len(serve.Addresses) {
			t.Errorf("at %d ms: serves %v, asks again in %v, want %v, %v", ms, show(got), wait, show(serve), next)
		}
	}
	both := stateOf("80: 1 2", "81: 3")
	step(0, true, both, both, 0)
	// A backend goes: no new connections, then nothing.
	step(100, true, stateOf("80: 1", "81: 3"), stateOf("80: 1 2*0", "81: 3"), time.Second)
	step(1100, false, stateOf("80: 1", "81: 3"), stateOf("80: 1", "81: 3"), 0)
	// It comes back in time, as when a file is moved.
	step(2000, true, both, both, 0)
	step(2100, true, stateOf("80: 1", "81: 3"), stateOf("80: 1 2*0", "81: 3"), time.Second)
	step(2300, true, both, both, 0)
	step(3300, false, both, both, 0)
	// All go: new connections are served, too, and what replaces them is at once.
	step(4000, true, stateOf("80:", "81: 3"), both, time.Second)
	step(4200, true, stateOf("80: 7", "81: 3"), stateOf("80: 1*0 2*0 7", "81: 3"), time.Second)
	step(5200, false, stateOf("80: 7", "81: 3"), stateOf("80: 7", "81: 3"), 0)
	// A frontend goes, then the address.
	step(6000, true, stateOf("80: 7"), stateOf("80: 7", "81: 3"), time.Second)
	step(7000, false, stateOf("80: 7"), stateOf("80: 7"), 0)
	step(8000, true, stateOf(), stateOf("80: 7"), time.Second)
	// While files change it stays, but not for ever.
	step(8900, true, stateOf(), stateOf("80: 7"), time.Second)
	step(9800, true, stateOf(), stateOf("80: 7"), time.Second)
	step(10600, true, stateOf(), stateOf("80: 7"), 400*time.Millisecond)
	step(11000, false, stateOf(), stateOf(), 0)
	// What the network takes is not held.
	step(14000, true, both, both, 0)
	step(14100, false, stateOf("80: 1"), stateOf("80: 1"), 0)
	// Without a grace nothing is.
	r.grace = 0
	step(15000, true, both, both, 0)
	step(15100, true, stateOf("80: 1"), stateOf("80: 1"), 0)
}

// A file that moves, or is deleted and written again, costs no backend.
func TestMoveBetweenFilesRemovesNothing(t *testing.T) {
	veth(t, "eth0")
	i := prepare(t, files(80, far4))
	i.RemovalGrace = time.Hour // whatever the machine is busy with
	i.start()
	i.serves(far4 + ":80")
	i.log.take()
	put := func(text string) {
		i.write(text)
		time.Sleep(50 * time.Millisecond)
		i.serves(far4 + ":80")
		if n := i.backends(); n != 1 {
			t.Errorf("%d backends are served, want 1", n)
		}
	}
	gateway, rest, _ := strings.Cut(files(80, far4), "apiVersion: v1\nkind: Service\n")
	put(gateway)                                             // Service and endpoints are gone
	put("# nothing\n")                                       // everything is
	put("apiVersion: v1\nkind: Service\n" + rest)            // half of it is back
	put(files(80, far4))                                     // all of it
	put(strings.Replace(files(80, far4), "10.0.0.1", "", 1)) // and invalid
	put(files(80, far4))
}

// What is gone for longer than the grace goes.
func TestRemovalTakesEffect(t *testing.T) {
	veth(t, "eth0")
	i := prepare(t, files(80, far4))
	i.RemovalGrace = 100 * time.Millisecond
	i.start()
	i.serves(far4 + ":80")
	i.write(files(81, far4))
	i.serves(far4 + ":81")
}

// A frontend whose policy is removed with it keeps the sources that its policy admits,
// and none that stays loses them.
func TestRemovalsKeepSources(t *testing.T) {
	restricted := func(s lb.State, policies ...string) lb.State {
		for i := range s.Frontends {
			s.Frontends[i].Restrictions = []lb.Restriction{{Policy: policies[i], Sources: true}}
			s.Sources = append(s.Sources, lb.SourceSet{Policy: policies[i], OnlyAllowed: true})
		}
		return s
	}
	r := removals{grace: time.Second}
	now := time.Now()
	r.hold(restricted(stateOf("80: 1", "81: 2"), "default/a", "default/b"), 1, now, now)
	state, _ := r.hold(restricted(stateOf("81: 2"), "default/b"), 2, now, now)
	var policies []string
	for _, s := range state.Sources {
		policies = append(policies, s.Policy)
	}
	if got, want := fmt.Sprint(show(state), policies), "[80: 1 81: 2] [default/a default/b]"; got != want {
		t.Errorf("with one frontend and its policy removed, served: %s, want %s", got, want)
	}
}

// A policy that restricts a frontend stays while its file is away: an editor that renames the
// old file before it writes the new one opens no door.
func TestRemovalOfRestrictionsWaits(t *testing.T) {
	const both = "[default/a default/b] [default/a default/b]"
	r := removals{grace: time.Second}
	begin := time.Now()
	step := func(ms, generation int, want string, policies ...string) {
		t.Helper()
		s := stateOf("80: 1")
		for _, p := range policies {
			s.Frontends[0].Restrictions = append(s.Frontends[0].Restrictions, lb.Restriction{Policy: p, Sources: true})
			s.Sources = append(s.Sources, lb.SourceSet{Policy: p, OnlyAllowed: true})
		}
		now := begin.Add(time.Duration(ms) * time.Millisecond)
		got, _ := r.hold(s, generation, begin, now)
		var restrict, sets []string
		for _, x := range got.Frontends[0].Restrictions {
			restrict = append(restrict, x.Policy)
		}
		for _, x := range got.Sources {
			sets = append(sets, x.Policy)
		}
		if text := fmt.Sprint(restrict, sets); text != want {
			t.Errorf("at %d ms: %s, want %s", ms, text, want)
		}
	}
	step(0, 1, both, "default/a", "default/b")
	step(100, 2, both, "default/a")
	step(200, 3, both, "default/a", "default/b") // it is back
	step(300, 4, "[default/b default/a] [default/a default/b]", "default/b")
	step(1200, 4, "[default/b default/a] [default/a default/b]", "default/b")
	step(1300, 4, "[default/b] [default/b]", "default/b") // it is gone indeed
	// Who has as many as there may be keeps the newer ones.
	step(2000, 5, "[1 2 3 4] [1 2 3 4]", "1", "2", "3", "4")
}

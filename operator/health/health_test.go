// SPDX-License-Identifier: Apache-2.0

package health

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

var epoch = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func passive() *lb.PassiveHealth {
	return &lb.PassiveHealth{
		Consecutive: 5, AnswerWithin: time.Second, FailurePercent: 50, MinFlows: 20, Window: 10 * time.Second,
		BaseEjection: 30 * time.Second, MaxEjection: 300 * time.Second, MaxEjected: 50,
	}
}

// world is a judge with a group of backends, and nodes whose counters only grow.
type world struct {
	*testing.T
	judge    Judge
	protocol lb.Protocol
	health   *lb.Health
	now      time.Time
	counters map[string]map[int]*Observation
	results  map[string]map[int]Result
	d        Decision
}

func addr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80)
}

func newWorld(t *testing.T, p lb.Protocol, h *lb.Health, n int) *world {
	w := &world{T: t, protocol: p, health: h, now: epoch, counters: map[string]map[int]*Observation{}, results: map[string]map[int]Result{}}
	h.Policy = "shop/web"
	w.members(n)
	return w
}

func (w *world) members(n int) {
	g := Group{Name: "192.0.2.1:80", Protocol: w.protocol, Health: w.health}
	for i := range n {
		g.Members = append(g.Members, addr(i))
	}
	w.judge.Judge([]Group{g})
}

func (w *world) key(i int) lb.EjectedKey {
	return lb.EjectedKey{Policy: "shop/web", Protocol: w.protocol, Backend: addr(i)}
}

// at returns the counters of a backend at a node.
func (w *world) at(node string, i int) *Observation {
	if w.counters[node] == nil {
		w.counters[node] = map[int]*Observation{}
	}
	o := w.counters[node][i]
	if o == nil {
		o = &Observation{Key: w.key(i)}
		w.counters[node][i] = o
	}
	return o
}

func (w *world) answer(node string, i, n int) {
	o := w.at(node, i)
	o.Answers += uint32(n)
	o.Consecutive, o.Others = 0, false
}

// refuse counts n flows that were refused, silent those that were not answered: of this many prefixes.
func (w *world) refuse(node string, i, n int) {
	o := w.at(node, i)
	o.Failures += uint32(n)
	o.Consecutive += uint32(n)
}

func (w *world) silent(node string, i, n, prefixes int) {
	w.refuse(node, i, n)
	w.at(node, i).Unanswered += uint32(n)
	w.at(node, i).Others = w.at(node, i).Others || prefixes > 1
}

// tick has all nodes report, and decides, a second later.
func (w *world) tick() {
	w.now = w.now.Add(time.Second)
	w.report()
}

func (w *world) report() {
	for node, all := range w.counters {
		var list []Observation
		for _, o := range all {
			list = append(list, *o)
		}
		w.judge.Observe(node, list, w.now)
	}
	for node, all := range w.results {
		var list []Result
		for _, r := range all {
			list = append(list, r)
		}
		w.judge.Check(node, list, w.now)
	}
	w.d = w.judge.Decide(w.now)
}

func (w *world) pass(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.tick()
	}
}

// wantEjected wants these backends ejected, and no others. Those on trial have a minus in front.
func (w *world) wantEjected(want ...string) {
	w.Helper()
	var got []string
	for i := range 256 {
		if e := w.d.Ejected[w.key(i)]; e != nil && e.Trial {
			got = append(got, fmt.Sprintf("trial %d", i))
		} else if e != nil {
			got = append(got, fmt.Sprint(i))
		}
	}
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		w.Errorf("%v after the beginning: ejected %v, want %v", w.now.Sub(epoch), got, want)
	}
}

// begin has nodes report counters of 0: what was counted before is unknown.
func (w *world) begin(nodes ...string) {
	for _, node := range nodes {
		for i := range 8 {
			w.at(node, i)
		}
	}
	w.tick()
}

func TestConsecutiveFailuresEject(t *testing.T) {
	w := newWorld(t, lb.TCP, &lb.Health{Passive: passive()}, 4)
	w.begin("a")
	w.refuse("a", 1, 4)
	w.tick()
	w.wantEjected()
	w.refuse("a", 1, 1)
	w.tick()
	w.wantEjected("1")
	e := w.d.Ejected[w.key(1)]
	if e.Why != "5 connections in a row refused" || e.Until.Sub(e.Since) != 30*time.Second {
		t.Errorf("%+v", e)
	}
	w.tick()
	if w.d.Ejected[w.key(1)] != e {
		t.Error("an entry that has not changed is another one")
	}
}

func TestShareOfFailuresEjects(t *testing.T) {
	w := newWorld(t, lb.TCP, &lb.Health{Passive: passive()}, 4)
	w.begin("a")
	for range 4 {
		w.refuse("a", 1, 3)
		w.answer("a", 1, 1)
		w.refuse("a", 2, 1)
		w.answer("a", 2, 3)
		w.tick()
		w.wantEjected()
	}
	w.refuse("a", 1, 3)
	w.answer("a", 1, 1)
	w.tick()
	w.wantEjected("1")
	if e := w.d.Ejected[w.key(1)]; e.Why != "15 of 20 connections refused" {
		t.Errorf("%+v", e)
	}
}

func TestSilenceNeedsTwoPrefixes(t *testing.T) {
	w := newWorld(t, lb.TCP, &lb.Health{Passive: passive()}, 4)
	w.begin("a")
	w.silent("a", 1, 100, 1)
	w.tick()
	w.wantEjected()
	w.silent("a", 1, 1, 2)
	w.tick()
	w.wantEjected("1")
	if e := w.d.Ejected[w.key(1)]; e.Why != "101 connections in a row not answered" {
		t.Errorf("%+v", e)
	}
}

func TestFailuresOfThePastDoNotCount(t *testing.T) {
	w := newWorld(t, lb.TCP, &lb.Health{Passive: passive()}, 4)
	w.refuse("a", 1, 100) // before anybody was listening
	w.pass(3 * time.Second)
	w.wantEjected()
	w.refuse("a", 2, 4)
	w.pass(11 * time.Second)
	w.at("a", 2).Consecutive = 5 // one long ago
	w.tick()
	w.wantEjected()
}

// Golden case eject-bound.
func TestEjectBound(t *testing.T) {
	w := newWorld(t, lb.TCP, &lb.Health{Passive: passive()}, 4)
	w.begin("a")
	for i := range 3 {
		w.refuse("a", i, 10)
	}
	w.tick()
	w.wantEjected("0", "1")
	w.pass(20 * time.Second)
	w.wantEjected("0", "1")
}

func TestBoundOfEjections(t *testing.T) {
	for _, c := range []struct{ members, percent, want int }{
		{1, 100, 0}, {2, 50, 1}, {2, 10, 1}, {2, 100, 1}, {3, 50, 1}, {3, 67, 2}, {5, 50, 2}, {8, 100, 7}, {8, 0, 0},
	} {
		h := &lb.Health{Passive: passive()}
		h.Passive.MaxEjected = c.percent
		w := newWorld(t, lb.TCP, h, c.members)
		w.begin("a")
		for i := range c.members {
			w.refuse("a", i, 10)
		}
		w.pass(3 * time.Second)
		if len(w.d.Ejected) != c.want {
			t.Errorf("%d of %d ejected at %d %%, want %d", len(w.d.Ejected), c.members, c.percent, c.want)
		}
	}
}

// Golden case udp-silent.
func TestSilentUDPIsHealthy(t *testing.T) {
	w := newWorld(t, lb.UDP, &lb.Health{Passive: passive()}, 3)
	w.begin("a")
	w.pass(time.Minute)
	w.wantEjected()
	w.refuse("a", 1, 5)
	w.tick()
	w.wantEjected("1")
	w.pass(31 * time.Second)
	w.wantEjected("trial 1")
	w.at("a", 1).Trial = 77
	w.pass(4 * time.Second)
	w.wantEjected("trial 1")
	w.pass(3 * time.Second)
	w.wantEjected() // nobody has refused it
}

func TestTrial(t *testing.T) {
	w := newWorld(t, lb.TCP, &lb.Health{Passive: passive()}, 4)
	w.begin("a")
	w.refuse("a", 1, 5)
	w.tick()
	for _, length := range []time.Duration{30, 60, 120, 240, 300, 300} {
		w.wantEjected("1")
		w.pass(length*time.Second - time.Second)
		w.wantEjected("1")
		w.tick()
		w.wantEjected("trial 1")
		w.pass(time.Minute)
		w.wantEjected("trial 1") // nobody has connected
		w.refuse("a", 1, 1)
		w.tick()
	}
	if e := w.d.Ejected[w.key(1)]; e.Why != "5 connections in a row refused; since then a trial flow has failed, too" {
		t.Errorf("%+v", e)
	}
	w.pass(300 * time.Second)
	w.wantEjected("trial 1")
	w.answer("a", 1, 1)
	w.tick()
	w.wantEjected()
	w.refuse("a", 1, 5) // soon again: longer
	w.tick()
	if e := w.d.Ejected[w.key(1)]; e == nil || e.Until.Sub(e.Since) != 300*time.Second {
		t.Errorf("%+v, want 300 s", e)
	}
	w.pass(300 * time.Second)
	w.answer("a", 1, 1)
	w.pass(301 * time.Second)
	w.refuse("a", 1, 5) // much later: as at first
	w.tick()
	if e := w.d.Ejected[w.key(1)]; e == nil || e.Until.Sub(e.Since) != 30*time.Second {
		t.Errorf("%+v, want 30 s", e)
	}
}

// A node with a broken network sees all backends fail, where other nodes do not.
func TestBrokenNodeEjectsNobody(t *testing.T) {
	w := newWorld(t, lb.TCP, &lb.Health{Passive: passive()}, 4)
	w.begin("a", "b", "c")
	for range 20 {
		for i := range 4 {
			w.silent("a", i, 3, 2)
		}
		w.tick()
		w.wantEjected()
	}
	// Others agree about one: that one is ejected.
	w.refuse("b", 2, 5)
	for i := range 4 {
		w.silent("a", i, 3, 2)
	}
	w.tick()
	w.wantEjected("2")
}

func TestMajorityOfNodes(t *testing.T) {
	w := newWorld(t, lb.TCP, &lb.Health{Passive: passive()}, 4)
	w.begin("a", "b", "c")
	each := func(failing ...string) {
		for _, node := range []string{"a", "b", "c"} {
			w.answer(node, 0, 1)
			w.answer(node, 1, 1)
		}
		for _, node := range failing {
			w.refuse(node, 1, 5)
		}
		w.tick()
	}
	each("a")
	w.wantEjected()
	each("a", "b")
	w.wantEjected("1")
}

func TestReportsThatComeLateOrTwice(t *testing.T) {
	w := newWorld(t, lb.TCP, &lb.Health{Passive: passive()}, 4)
	w.begin("a")
	w.answer("a", 1, 10)
	w.refuse("a", 1, 4)
	for range 5 {
		w.report() // the same five times
	}
	w.tick()
	w.wantEjected()
	late := Observation{Key: w.key(1), Answers: 1}
	for range 5 {
		w.judge.Observe("a", []Observation{late}, w.now)
		w.tick()
		w.wantEjected()
	}
}

func TestNodesThatAreGone(t *testing.T) {
	h := &lb.Health{Active: &lb.ActiveHealth{Type: "TCP"}}
	w := newWorld(t, lb.TCP, h, 4)
	w.results["a"] = map[int]Result{1: {Key: w.key(1), Down: true, Why: "connection refused"}}
	w.tick()
	w.wantEjected("1")
	delete(w.results, "a")
	w.pass(9 * time.Second)
	w.wantEjected("1")
	w.pass(3 * time.Second)
	w.wantEjected()
}

func TestActiveChecksNeedAMajority(t *testing.T) {
	w := newWorld(t, lb.TCP, &lb.Health{Active: &lb.ActiveHealth{Type: "TCP"}}, 4)
	set := func(node string, i int, down bool) {
		if w.results[node] == nil {
			w.results[node] = map[int]Result{}
		}
		w.results[node][i] = Result{Key: w.key(i), Down: down, Why: "timeout"}
	}
	set("a", 1, true)
	set("b", 1, false)
	w.tick()
	w.wantEjected()
	set("c", 1, true)
	w.tick()
	w.wantEjected("1")
	if e := w.d.Ejected[w.key(1)]; e.Why != "timeout" || !e.Until.IsZero() {
		t.Errorf("%+v", e)
	}
	delete(w.results, "c") // one of each: it stays as it was
	w.judge.Forget("c")
	w.tick()
	w.wantEjected("1")
	set("a", 1, false)
	w.tick()
	w.wantEjected()
	// The bound does not hold for active checks; but if all fail, the check is suspect.
	for _, node := range []string{"a", "b"} {
		for i := range 3 {
			set(node, i, true)
		}
	}
	w.tick()
	w.wantEjected("0", "1", "2")
	set("a", 3, true)
	set("b", 3, true)
	w.tick()
	w.wantEjected()
	if len(w.d.Suspects) != 1 || w.d.Suspects[0].Why != "the TCP check fails for all 4 backends of 192.0.2.1:80 at once, so it is not obeyed: timeout" {
		t.Errorf("%+v", w.d.Suspects)
	}
	// What they find may change all the time: what is told stays, until they have found the same for a while.
	for _, node := range []string{"a", "b"} {
		for i, r := range w.results[node] {
			r.Why = "connection refused"
			w.results[node][i] = r
		}
	}
	was := w.d.Suspects
	w.tick()
	if !slices.Equal(w.d.Suspects, was) {
		t.Errorf("%+v, was %+v", w.d.Suspects, was)
	}
	w.pass(steady)
	if len(w.d.Suspects) != 1 || !strings.HasSuffix(w.d.Suspects[0].Why, ": connection refused") {
		t.Errorf("%s later: %+v", steady, w.d.Suspects)
	}
	set("a", 3, false)
	set("b", 3, false)
	w.tick()
	w.wantEjected("0", "1", "2")
	if len(w.d.Suspects) != 0 {
		t.Errorf("one is healthy: %+v", w.d.Suspects)
	}
	for _, node := range []string{"a", "b"} {
		set(node, 3, true)
	}
	w.tick()
	if len(w.d.Suspects) != 1 || !strings.HasSuffix(w.d.Suspects[0].Why, ": timeout") {
		t.Errorf("%+v", w.d.Suspects)
	}
}

// TestCauseOfToday has a server that first is not there, and then refuses: that is what
// is told, but not before it is clear.
func TestCauseOfToday(t *testing.T) {
	w := newWorld(t, lb.TCP, &lb.Health{Active: &lb.ActiveHealth{Type: "TCP"}}, 4)
	find := func(why string) {
		w.results["a"] = map[int]Result{1: {Key: w.key(1), Down: true, Why: why}}
		w.tick()
	}
	told := func(want string) {
		t.Helper()
		w.wantEjected("1")
		if e := w.d.Ejected[w.key(1)]; e == nil || e.Why != want {
			t.Errorf("told is %+v, want %q", e, want)
		}
	}
	find("no answer")
	told("no answer")
	since := w.d.Ejected[w.key(1)].Since
	for range 20 {
		find("refused")
		told("no answer")
		find("no route")
		told("no answer")
	}
	find("refused")
	w.pass(steady - time.Second)
	told("no answer")
	w.pass(2 * time.Second)
	told("refused")
	if got := w.d.Ejected[w.key(1)].Since; !got.Equal(since) {
		t.Errorf("ejected since %s, was since %s", got, since)
	}
	// Another judge goes on from what was told.
	var other Judge
	other.Judge(w.judge.groups)
	other.Adopt(w.d.Ejected)
	other.Check("a", []Result{{Key: w.key(1), Down: true, Why: "no route"}}, w.now)
	if e := other.Decide(w.now).Ejected[w.key(1)]; e == nil || e.Why != "refused" {
		t.Errorf("the other judge tells %+v, want what was told", e)
	}
}

func TestAnotherJudgeTakesOver(t *testing.T) {
	w := newWorld(t, lb.TCP, &lb.Health{Passive: passive()}, 4)
	w.begin("a")
	w.refuse("a", 1, 5)
	w.tick()
	old := w.d.Ejected
	w.judge = Judge{}
	w.members(4)
	w.judge.Adopt(old)
	w.tick()
	w.wantEjected("1")
	w.pass(30 * time.Second)
	w.wantEjected("trial 1")
}

// Of what another judge has ejected, no more is taken over than may be, and nothing that lasts too long.
func TestAdoptKeepsBounds(t *testing.T) {
	w := newWorld(t, lb.TCP, &lb.Health{Passive: passive()}, 4)
	set := lb.EjectedSet{}
	for i := range 4 {
		set[w.key(i)] = &lb.Ejected{Why: "refused", Since: w.now, Until: w.now.Add(30 * time.Second)}
	}
	w.judge.Adopt(set)
	w.tick()
	if n := len(w.d.Ejected); n != 2 {
		t.Errorf("%d of 4 are ejected, want half of them", n)
	}
	w = newWorld(t, lb.TCP, &lb.Health{Passive: passive()}, 4)
	w.judge.Adopt(lb.EjectedSet{w.key(1): {Why: "refused", Since: w.now, Until: w.now.Add(301 * time.Second)}})
	w.tick()
	w.wantEjected()
}

// Whatever comes: nobody ejects the last backend, or more than the bound, or for longer than the longest
// ejection. Clocks jump, reports come twice or late, nodes come and go, counters begin anew, backends too.
func TestInvariants(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		h := &lb.Health{Passive: passive()}
		h.Passive.MaxEjected = r.IntN(101)
		if r.IntN(2) == 0 {
			h.Active = &lb.ActiveHealth{Type: "TCP"}
		}
		members := 1 + r.IntN(8)
		w := newWorld(t, []lb.Protocol{lb.TCP, lb.UDP}[r.IntN(2)], h, members)
		for range 300 {
			node := string(rune('a' + r.IntN(4)))
			i := r.IntN(members)
			switch r.IntN(12) {
			case 0:
				w.answer(node, i, r.IntN(20))
			case 1, 2, 3:
				w.refuse(node, i, r.IntN(10))
			case 4:
				w.silent(node, i, r.IntN(10), 1+r.IntN(2))
			case 5:
				*w.at(node, i) = Observation{Key: w.key(i)}
			case 6:
				w.at(node, i).Trial = r.Uint32()
			case 7:
				w.now = w.now.Add(time.Duration(r.Int64N(int64(time.Hour))) - 30*time.Minute)
			case 8:
				delete(w.counters, node)
				delete(w.results, node)
			case 9:
				if w.results[node] == nil {
					w.results[node] = map[int]Result{}
				}
				w.results[node][i] = Result{Key: w.key(i), Down: r.IntN(3) > 0, Why: "x"}
			case 10:
				members = 1 + r.IntN(8)
				w.members(members)
			case 11:
				w.report()
			}
			before := w.d.Ejected
			w.tick()
			byFlows, available, fresh := 0, members, false
			for i := range members {
				e := w.d.Ejected[w.key(i)]
				if e == nil {
					continue
				}
				available--
				if e.Until.IsZero() {
					continue
				}
				byFlows++
				fresh = fresh || before[w.key(i)] == nil
				if left := e.Until.Sub(w.now); !e.Trial && left > h.Passive.MaxEjection {
					t.Fatalf("seed %d: ejected for %v more", seed, left)
				}
			}
			// Others may have gone since, or be down.
			bound := 0
			if members > 1 && h.Passive.MaxEjected > 0 {
				bound = min(max(members*h.Passive.MaxEjected/100, 1), members-1)
			}
			if fresh && (byFlows > bound || available == 0) {
				t.Fatalf("seed %d: %d of %d ejected at %d %%, %d left", seed, byFlows, members, h.Passive.MaxEjected, available)
			}
			if len(w.d.Ejected) > members {
				t.Fatalf("seed %d: somebody is ejected who is not there", seed)
			}
		}
	}
}

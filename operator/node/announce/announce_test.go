// SPDX-License-Identifier: Apache-2.0

package announce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

var testSizes = datapath.Sizes{Addresses: 8, Frontends: 8, Backends: 64, RingSlots: 1 << 12, Flows: 64, NewFlows: 64, UDPFlows: 64}

func ip(text string) netip.Addr { return netip.MustParseAddr(text) }

func testKey(n byte) (k lb.AnnounceKey) {
	for i := range k {
		k[i] = n
	}
	return k
}

// settings have two keys, of which one signs, and nodes b and c.
func testSettings() Settings {
	return Settings{
		Boot: 7, Keys: [lb.AnnounceKeys]lb.AnnounceKey{1: testKey(1), 2: testKey(2)}, Sign: 2, Ports: lb.PortRange{First: 11000, Last: 29999},
		Peers: []Peer{
			{Name: "b", Sources: []netip.Addr{ip("192.0.2.2"), ip("2001:db8::2")}, Boot: 3, Undoes: true},
			{Name: "c", Sources: []netip.Addr{ip("192.0.2.3")}, Reason: lb.ReasonEarlier},
		},
	}
}

// testState has backends on nodes b and c for TCP and UDP, and one that nobody knows.
func testState() lb.State {
	s := lb.State{}
	for port, f := range map[uint16]lb.Frontend{
		80: {Protocol: lb.TCP, PreserveClient: true}, 53: {Protocol: lb.UDP, PreserveClient: true}, 81: {Protocol: lb.TCP},
	} {
		f.Addr, f.Port = ip("203.0.113.1"), port
		for addr, b := range map[string]lb.Backend{
			"10.0.2.1": {Node: "b"}, "10.0.2.2": {Node: "b"}, "fd00:2::1": {Node: "b"}, "10.0.3.1": {Node: "c"}, "10.0.4.1": {Node: "d"},
			"10.0.1.1": {Local: true}, "10.0.2.9": {Node: "b", ThroughStack: true},
		} {
			b.Addr = netip.AddrPortFrom(ip(addr), 8080)
			f.Backends = append(f.Backends, b)
		}
		s.Frontends = append(s.Frontends, f)
	}
	s.Normalize()
	return s
}

// checkUsable fails if what the maps hold would not work: whoever is killed leaves it so.
func checkUsable(t *testing.T, fake *datapath.Fake) {
	t.Helper()
	c, err := fake.AnnounceConfig()
	if err != nil {
		return // the fault that the test injects
	}
	keys, _ := fake.AnnounceKeys()
	if c.Flags&datapath.AnnouncingTell != 0 && keys[c.Key] == (datapath.AnnounceKey{}) {
		t.Errorf("key %d signs, which is not there", c.Key)
	}
	peers, _ := fake.Peers()
	for ip := range peers {
		if fake.Interest(ip)&datapath.InterestPeer == 0 {
			t.Errorf("peer %s has no interest", ip)
		}
	}
	if known := slices.ContainsFunc(keys, func(k datapath.AnnounceKey) bool { return k != datapath.AnnounceKey{} }); known && c.Flags&datapath.AnnouncingUndo != 0 && len(peers) == 0 {
		t.Error("messages are genuine, and there is no peer yet")
	}
}

// Whenever an agent is killed between two writes, what the maps hold works; and the
// next agent finishes.
func TestMapsAreUsableAfterEachWrite(t *testing.T) {
	first, second := testSettings(), testSettings()
	second.Keys = [lb.AnnounceKeys]lb.AnnounceKey{2: testKey(2), 3: testKey(3)}
	second.Sign, second.Peers = 3, second.Peers[1:]
	for writes := 1; ; writes++ {
		fake := datapath.NewFake(testSizes)
		fake.After = func() { checkUsable(t, fake) }
		if err := New(fake, Options{}).Set(first); err != nil {
			t.Fatal(err)
		}
		fake.Writes()
		fake.CrashAfter = writes
		err := New(fake, Options{}).Set(second)
		fake.CrashAfter = 0
		checkUsable(t, fake)
		if e := New(fake, Options{}).Set(second); e != nil {
			t.Fatal(e)
		}
		expectMaps(t, fake, second)
		if err == nil {
			if writes < 4 {
				t.Errorf("all done after %d writes: the test sees too little", writes)
			}
			return
		}
	}
}

func expectMaps(t *testing.T, tables datapath.Announcing, want Settings) {
	t.Helper()
	held, _, err := New(tables, Options{}).Held()
	if err != nil {
		t.Fatal(err)
	}
	peers, err := tables.Peers()
	if err != nil {
		t.Fatal(err)
	}
	var sources []netip.Addr
	for _, p := range want.Peers {
		sources = append(sources, p.Sources...)
	}
	slices.SortFunc(sources, netip.Addr.Compare)
	want.Peers = nil
	if held.Keys != want.Keys || held.Sign != want.Sign || held.Boot != want.Boot || held.Ports != want.Ports {
		t.Errorf("the maps hold %+v, want %+v", held, want)
	}
	if got := slices.SortedFunc(maps.Keys(peers), netip.Addr.Compare); !slices.Equal(got, sources) {
		t.Errorf("peers %v, want %v", got, sources)
	}
}

// The program keeps times and counters in a peer's element.
func TestPeersThatStayKeepTheirValues(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	a := New(fake, Options{})
	s := testSettings()
	set := func() {
		t.Helper()
		if err := a.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	b := s.Peers[0].Sources[0]
	expect := func(why string, want datapath.Peer) {
		t.Helper()
		set()
		peers, _ := fake.Peers()
		if peers[b] != want {
			t.Errorf("%s: %+v, want %+v", why, peers[b], want)
		}
	}
	expect("new", datapath.Peer{Boot: 3})
	seen := datapath.Peer{Boot: 3, Heard: 1, Time: 99, Undone: 5}
	if err := fake.SetPeer(b, seen); err != nil {
		t.Fatal(err)
	}
	expect("the same", seen)
	s.Peers[0].Boot = 4
	expect("a later boot, of which messages tell themselves", seen)
	seen.Boot = 5
	if err := fake.SetPeer(b, seen); err != nil {
		t.Fatal(err)
	}
	expect("messages of a later boot than was told", seen)
	s.Peers[0].Boot = 2
	expect("an earlier boot is told: the count was lost", datapath.Peer{Boot: 2})
	if err := fake.SetPeer(b, seen); err != nil {
		t.Fatal(err)
	}
	expect("which was told before", seen)
	s.Peers[0].Boot = 0
	expect("a boot that nobody knows", seen)
	s.Peers = s.Peers[1:]
	set()
	s.Peers = testSettings().Peers
	expect("gone and back", datapath.Peer{Boot: 3})
	s.Peers = nil
	expect("peers are not known yet", datapath.Peer{Boot: 3})
}

func TestPeersWithoutRoom(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	fake.MaxPeers = 2
	var log strings.Builder
	a := New(fake, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	s := testSettings()
	for range 3 {
		if err := a.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	if status, err := a.Status(); err != nil || status.LeftOut != 1 {
		t.Errorf("left out %d, %v", status.LeftOut, err)
	}
	if n := strings.Count(log.String(), "no room"); n != 1 {
		t.Errorf("said %d times: %s", n, log.String())
	}
	// As soon as another one goes, there is room.
	s.Peers[0].Sources = s.Peers[0].Sources[:1]
	if err := a.Set(s); err != nil {
		t.Fatal(err)
	}
	expectMaps(t, fake, s)
	if status, err := a.Status(); err != nil || status.LeftOut != 0 {
		t.Errorf("left out %d, %v", status.LeftOut, err)
	}
}

// What others have left in the maps goes, once it is known what belongs there.
func TestGarbageInMaps(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	garbage := datapath.AnnounceConfig{Boot: 99, Key: 3, Flags: 0xff, PortsMin: 5, PortsMax: 1}
	for i := range lb.AnnounceKeys {
		if err := fake.SetAnnounceKey(i, datapath.AnnounceKey{Bytes: testKey(0xee)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(fake.SetAnnounceConfig(garbage), fake.SetPeer(ip("198.51.100.9"), datapath.Peer{Boot: 1})); err != nil {
		t.Fatal(err)
	}
	a := New(fake, Options{})
	a.SetState(testState())
	if c, _ := fake.AnnounceConfig(); c != garbage {
		t.Error("changed before anybody has said what belongs there")
	}
	if err := a.Set(testSettings()); err != nil {
		t.Fatal(err)
	}
	expectMaps(t, fake, testSettings())
	none := Settings{Sign: -1, Peers: []Peer{}}
	if err := a.Set(none); err != nil {
		t.Fatal(err)
	}
	expectMaps(t, fake, none)
	for _, sign := range []int{0, 4} {
		s := testSettings()
		s.Sign = sign
		if err := a.Set(s); err == nil {
			t.Errorf("key %d signs, which is not there", sign)
		}
	}
}

// A program of an earlier version has no such maps.
func TestEarlierProgram(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	fake.Earlier = true
	a := New(fake, Options{})
	a.SetState(testState())
	if err := errors.Join(a.Set(testSettings()), a.SetEgressLinks([]int{1}, true)); err != nil {
		t.Fatal(err)
	}
	if h, known := a.Hears(lb.TCP, lb.Backend{Addr: endpoint, Node: "b"}); !known || h != (datapath.Hearing{}) {
		t.Errorf("hears %+v, %v", h, known)
	}
	s, err := a.Status()
	if err != nil || s.Announces || s.Backends != 10 || len(s.Unannounced) != 1 || s.Unannounced[0] != (lb.Unannounced{Reason: lb.ReasonEarlier, Backends: 10}) {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestEgressLinks(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	a := New(fake, Options{})
	for _, step := range []struct {
		set  []int
		all  bool
		want []int
	}{{[]int{2, 5}, false, []int{2, 5}}, {[]int{5, 4096 + 7}, false, []int{2, 5, 7}}, {[]int{7}, true, []int{7}}, {nil, true, nil}} {
		if err := a.SetEgressLinks(step.set, step.all); err != nil {
			t.Fatal(err)
		}
		if got, _ := fake.EgressLinks(); !slices.Equal(got, step.want) {
			t.Errorf("%v: links %v, want %v", step.set, got, step.want)
		}
	}
}

// answering is a Probe of other nodes that answer as a test wants.
type answering struct {
	sync.Mutex
	answers func(form lb.Forms, to netip.AddrPort) (bool, time.Duration) // after how long
	sent    map[lb.Forms]int
	now     int // on their way
	most    int
}

func (p *answering) probe(ctx context.Context, form lb.Forms, to netip.AddrPort) (bool, time.Duration, error) {
	p.Lock()
	if p.sent == nil {
		p.sent = map[lb.Forms]int{}
	}
	p.sent[form]++
	p.now++
	p.most = max(p.most, p.now)
	answered, after := p.answers(form, to)
	p.Unlock()
	if !answered || after > answerWithin {
		answered, after = false, answerWithin
	}
	select {
	case <-ctx.Done():
	case <-time.After(after):
	}
	p.Lock()
	p.now--
	p.Unlock()
	return answered, after, nil
}

func (p *answering) total() (n int) {
	p.Lock()
	defer p.Unlock()
	for _, sent := range p.sent {
		n += sent
	}
	return n
}

// hears returns what gets to the backends of node b, by protocol.
func hears(t *testing.T, a *Announcer) string {
	t.Helper()
	var text []string
	for _, protocol := range []lb.Protocol{lb.TCP, lb.UDP} {
		for _, addr := range []string{"10.0.2.1", "fd00:2::1"} {
			h, known := a.Hears(protocol, lb.Backend{Addr: netip.AddrPortFrom(ip(addr), 8080), Node: "b"})
			one := "?"
			if known {
				one = map[bool]string{true: "W", false: "-"}[h.Within] + map[bool]string{true: "A", false: "-"}[h.Alone]
			}
			text = append(text, one)
		}
	}
	return strings.Join(text, " ")
}

// run runs an Announcer until the test ends.
func run(t *testing.T, a *Announcer) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// Only those forms are used that get through: the firewall between two nodes may drop
// a SYN with data, and another form may be answered late, or never.
func TestFormsThatGetThrough(t *testing.T) {
	var changes atomic.Int32
	synctest.Test(t, func(t *testing.T) {
		drop := lb.FormOf(false, false, false) // a SYN with data
		late := lb.FormOf(true, true, true)
		p := &answering{answers: func(form lb.Forms, to netip.AddrPort) (bool, time.Duration) {
			if form == late {
				return true, answerWithin + time.Millisecond
			}
			return form != drop && to.Port() == 8080, time.Millisecond
		}}
		a := New(datapath.NewFake(testSizes), Options{Probe: p.probe, Changed: func() { changes.Add(1) }})
		defer run(t, a)()
		a.SetState(testState())
		if got := hears(t, a); got != "? ? ? ?" {
			t.Errorf("before anything is known: %s", got)
		}
		if err := a.Set(testSettings()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if got := hears(t, a); got != "-A WA WA W-" {
			t.Errorf("hears %s", got)
		}
		expectStatus(t, a)
		before := changes.Load()
		time.Sleep(time.Hour) // the operator is away
		if got := hears(t, a); got != "-A WA WA W-" || changes.Load() != before {
			t.Errorf("after an hour: %s, %d changes", got, changes.Load()-before)
		}
		if n := p.total(); n < 6*100 || n > 8*130 {
			t.Errorf("%d probes in an hour of 8 forms", n)
		}
		p.Lock()
		drop = 0
		p.Unlock()
		time.Sleep(badLast * 5 / 4)
		if got := hears(t, a); got != "WA WA WA W-" || changes.Load() == before {
			t.Errorf("after the firewall is gone: %s", got)
		}
		// Node b does not undo any more: at once.
		s := testSettings()
		s.Peers[0].Undoes, s.Peers[0].Reason = false, lb.ReasonNoHeartbeat
		if err := a.Set(s); err != nil {
			t.Fatal(err)
		}
		if got := hears(t, a); got != "-- -- -- --" {
			t.Errorf("a node that undoes nothing: %s", got)
		}
		n := p.total()
		time.Sleep(time.Hour)
		if p.total() != n {
			t.Error("a node that undoes nothing is probed")
		}
	})
}

func expectStatus(t *testing.T, a *Announcer) {
	t.Helper()
	s, err := a.Status()
	if err != nil {
		t.Fatal(err)
	}
	want := []lb.Unannounced{{Reason: lb.ReasonEarlier, Backends: 2}, {Reason: lb.ReasonNoPeer, Backends: 2}}
	if diff := cmp.Diff(want, s.Unannounced); diff != "" || s.Backends != 10 || *s.Sign != 2 || !slices.Equal(s.Keys, []int{1, 2}) {
		t.Errorf("%+v %s", s, diff)
	}
	r := s.Report()
	pairs := []lb.Pair{
		{Node: "b", Answered: 0xff &^ (lb.FormOf(false, false, false) | lb.FormOf(true, true, true)), Unanswered: lb.FormOf(false, false, false) | lb.FormOf(true, true, true)},
		{Node: "c", Unannounced: 2},
	}
	if diff := cmp.Diff(pairs, r.Pairs); diff != "" || r.Peers != 2 || r.Failing != 1 {
		t.Errorf("%+v %s", r, diff)
	}
	text, err := json.Marshal(s)
	if err != nil || strings.Contains(string(text), "AQEB") || strings.Contains(fmt.Sprintf("%+v %#v", testSettings(), testSettings()), "1, 1, 1") {
		t.Errorf("a key is shown: %s, %v", text, err)
	}
}

// A lost packet now and then changes nothing.
func TestLostPacketsNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		p := &answering{answers: func(lb.Forms, netip.AddrPort) (bool, time.Duration) {
			n++
			return n%20 != 0, time.Millisecond
		}}
		a := New(datapath.NewFake(testSizes), Options{Probe: p.probe})
		defer run(t, a)()
		a.SetState(testState())
		if err := a.Set(testSettings()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		for range 100 {
			if got := hears(t, a); got != "WA WA WA WA" {
				t.Fatalf("hears %s", got)
			}
			time.Sleep(30 * time.Second)
		}
	})
}

// Thousands of nodes are probed at a bounded rate, also if none answers.
func TestManyNodes(t *testing.T) {
	const nodes = 5000
	for _, answers := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			p := &answering{answers: func(lb.Forms, netip.AddrPort) (bool, time.Duration) { return answers, time.Millisecond }}
			fake := datapath.NewFake(testSizes)
			var told atomic.Int32
			a := New(fake, Options{Probe: p.probe, Changed: func() { told.Add(1) }})
			s, f := testSettings(), lb.Frontend{Protocol: lb.TCP, PreserveClient: true}
			s.Peers = nil
			for n := range nodes {
				name := fmt.Sprint("node", n)
				s.Peers = append(s.Peers, Peer{Name: name, Sources: []netip.Addr{netip.AddrFrom4([4]byte{192, 168, byte(n >> 8), byte(n)})}, Undoes: true})
				f.Backends = append(f.Backends, lb.Backend{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), 1}), 80), Node: name})
			}
			if err := a.Set(s); err != nil {
				t.Fatal(err)
			}
			a.SetState(lb.State{Frontends: []lb.Frontend{f}})
			stop := run(t, a)
			time.Sleep(time.Minute)
			stop()
			if n := told.Load(); n > int32(time.Minute/changedEvery)+2 {
				t.Errorf("told %d times in a minute", n)
			}
			if n, most := p.total(), int(time.Minute/probeEvery); n > most+10 || n < most/2 || p.most > probesAtOnce {
				t.Errorf("answers %v: %d probes in a minute, %d at once; want up to %d, %d", answers, n, p.most, most, probesAtOnce)
			}
			status, err := a.Status()
			if err != nil || len(status.Report().Pairs) != lb.MaxPairs {
				t.Errorf("%d pairs in a report, %v", len(status.Report().Pairs), err)
			}
		})
	}
}

// What a killed process has left of its probes does not fill the map for the next.
func TestOldProbesAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := datapath.NewFake(testSizes)
		for n := range 200 {
			if err := fake.PutProbe(datapath.FlowKey{Sport: uint16(n)}, 1, endpoint.Addr()); err != nil {
				t.Fatal(err)
			}
		}
		stop := run(t, New(fake, Options{}))
		synctest.Wait()
		stop()
		if left, _ := fake.Probes(); len(left) > 0 {
			t.Errorf("%d probes are left", len(left))
		}
	})
}

// Maps that somebody else has changed are repaired.
func TestMapsAreRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := datapath.NewFake(testSizes)
		a := New(fake, Options{})
		defer run(t, a)()
		if err := a.Set(testSettings()); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(fake.SetAnnounceKey(0, datapath.AnnounceKey{Bytes: testKey(9)}), fake.SetAnnounceKey(2, datapath.AnnounceKey{}), fake.DeletePeer(ip("192.0.2.2")), fake.SettleInterest(make([]uint8, bpf.BlixtLimitINTEREST_SIZE), true), fake.SettleInterest(make([]uint8, bpf.BlixtLimitINTEREST_SIZE), true)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(checkEvery + time.Second)
		expectMaps(t, fake, testSettings())
		checkUsable(t, fake)
	})
}

// Endpoints on a host that has no name for them are found by its networks.
func TestBackendsOfNetworks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &answering{answers: func(lb.Forms, netip.AddrPort) (bool, time.Duration) { return true, time.Millisecond }}
		a := New(datapath.NewFake(testSizes), Options{Probe: p.probe})
		defer run(t, a)()
		s := testSettings()
		s.Peers[0].Networks = []netip.Prefix{netip.MustParsePrefix("10.0.2.0/24")}
		if err := a.Set(s); err != nil {
			t.Fatal(err)
		}
		state := lb.State{Frontends: []lb.Frontend{{Protocol: lb.TCP, PreserveClient: true}}}
		for _, addr := range []string{"10.0.2.77:80", "192.0.2.2:80", "10.0.9.1:80"} {
			state.Frontends[0].Backends = append(state.Frontends[0].Backends, lb.Backend{Addr: netip.MustParseAddrPort(addr)})
		}
		a.SetState(state)
		time.Sleep(time.Second)
		for i, want := range []bool{true, true, false} {
			if h, known := a.Hears(lb.TCP, state.Frontends[0].Backends[i]); !known || h.Within != want || h.Alone != want {
				t.Errorf("%s: %+v, %v", state.Frontends[0].Backends[i].Addr, h, known)
			}
		}
	})
}

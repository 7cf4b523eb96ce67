// SPDX-License-Identifier: Apache-2.0

package flowlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// small is a log whose parts hold 8, 4 and 4 records.
func small() *Log {
	o := stoppedClocks()
	o.sizes = [parts]int{8, 4, 4}
	return New(o)
}

// addEach adds records one after the other, a second apart.
func addEach(l *Log, all ...bpf.BlixtFlowRecord) {
	for _, r := range all {
		shift := (l.memory.seq + 1) * uint64(time.Second) / 10
		r.Began, r.Ended = r.Began+shift, r.Ended+shift
		l.add([]entry{{r: r}})
	}
}

func ports(t *testing.T, lines []string) (all []uint16) {
	t.Helper()
	for _, line := range lines {
		var r observe.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r.Client.Port)
	}
	return all
}

// TestFloodForgetsNoFlows: SYNs and datagrams from forged sources, and packets that are
// dropped, take no room of flows that were.
func TestFloodForgetsNoFlows(t *testing.T) {
	l := small()
	addEach(l, ended(1), ended(2))
	for port := range uint16(100) {
		udp := attempt(1000 + port)
		udp.Protocol = 17
		refused := attempt(2000 + port)
		refused.Reason, refused.Packets[1] = uint8(bpf.BlixtEndReasonRECORD_REFUSED), 1
		halfOpen := attempt(3000 + port) // answered, but nobody has proven to get the answer
		halfOpen.Connect, halfOpen.Packets[1] = 900, 4
		addEach(l, attempt(port), udp, refused, halfOpen, droppedPacket(bpf.BlixtCounterCOUNTER_DROP_MARTIAN, 1).Record)
	}
	lines, memory := ask(t, l, observe.FlowsQuery{Filter: observe.Filter{Reasons: []string{"fin"}}})
	if got := ports(t, lines); !slices.Equal(got, []uint16{1, 2}) {
		t.Errorf("flows of ports %v are remembered", got)
	}
	if memory.Flows.Records != 2 || !memory.Flows.Since.IsZero() || memory.Attempts.Records != 4 || memory.Attempts.Since.IsZero() || memory.Packets.Records != 4 {
		t.Errorf("memory %+v", memory)
	}
	answered := attempt(7)
	answered.Protocol, answered.Packets[1] = 17, 1
	if partOf(&answered) != partFlows {
		t.Error("an answered UDP flow is no flow")
	}
}

func TestMemoryForgetsTheOldest(t *testing.T) {
	l := small()
	for port := range uint16(20) {
		addEach(l, ended(port))
	}
	lines, memory := ask(t, l, observe.FlowsQuery{})
	if got := ports(t, lines); !slices.Equal(got, []uint16{12, 13, 14, 15, 16, 17, 18, 19}) {
		t.Errorf("ports %v", got)
	}
	if want := at.Add(-55*time.Second + 1300*time.Millisecond); !memory.Flows.Since.Equal(want) {
		t.Errorf("remembers since %s, want %s", memory.Flows.Since, want)
	}
	lines, memory = ask(t, l, observe.FlowsQuery{Last: 3})
	if got := ports(t, lines); !slices.Equal(got, []uint16{17, 18, 19}) || memory.LeftOut != 5 {
		t.Errorf("the last three are ports %v, %d left out", got, memory.LeftOut)
	}
}

// TestLastIsTheEndOfAll: who asks for the last ones gets the end of what all are, whether or
// not the filter makes it necessary to look at each, and is told how many there are besides.
func TestLastIsTheEndOfAll(t *testing.T) {
	l := small()
	refused := attempt(7)
	refused.Event, refused.Reason = uint8(bpf.BlixtRecordEventRECORD_DROPPED), 3
	for port := range uint16(20) {
		addEach(l, ended(100+port), attempt(200+port), refused)
	}
	client, err := observe.ParseMatch(":117")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []observe.Filter{
		{}, {Events: []observe.Event{observe.EventEnd}}, {Events: []observe.Event{observe.EventDropped}}, {Events: []observe.Event{observe.EventRejected}},
		{Events: []observe.Event{observe.EventEnd, observe.EventDropped}}, {Events: []observe.Event{observe.EventOpen}}, {Clients: []observe.Match{client}}, {Protocols: []string{"tcp"}},
	} {
		all, _ := ask(t, l, observe.FlowsQuery{Filter: f})
		for _, n := range []int{1, 2, 5, 12, 100} {
			last, memory := ask(t, l, observe.FlowsQuery{Filter: f, Last: n})
			left := max(0, len(all)-n)
			if !slices.Equal(last, all[left:]) || memory.LeftOut != left {
				t.Errorf("filter %+v: the last %d of %d are %q, %d are left out, want %q and %d", f, n, len(all), last, memory.LeftOut, all[left:], left)
			}
		}
	}
}

// TestAnswersAreInOrder: buffers of several CPUs are read one after the other.
func TestAnswersAreInOrder(t *testing.T) {
	l := small()
	later, sooner := ended(2), attempt(1)
	later.Ended += uint64(time.Second)
	l.add([]entry{{r: later}})
	l.add([]entry{{r: sooner}})
	lines, _ := ask(t, l, observe.FlowsQuery{})
	if got := ports(t, lines); !slices.Equal(got, []uint16{1, 2}) {
		t.Errorf("ports %v, want them by time", got)
	}
}

// TestSlowFollowerMissesAndHears: the memory waits for nobody, and who was too slow is
// told how much is missing.
func TestSlowFollowerMissesAndHears(t *testing.T) {
	l := small()
	addEach(l, ended(1))
	ctx, cancel := context.WithCancel(context.Background())
	var got []uint16
	var missed []uint64
	asleep, awake := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- l.Flows(ctx, observe.FlowsQuery{Follow: true}, func(piece any) error {
			p := piece.(observe.FlowsPiece)
			if p.Record == nil {
				if p.Memory.Missed > 0 {
					missed = append(missed, p.Memory.Missed)
					cancel()
				}
				return nil
			}
			if got = append(got, p.Client.Port); len(got) == 1 {
				close(asleep)
				<-awake
			}
			return nil
		})
	}()
	<-asleep
	for port := range uint16(20) { // none of these waits
		addEach(l, ended(100+port))
	}
	close(awake)
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if want := []uint16{1, 112, 113, 114, 115, 116, 117, 118, 119}; !slices.Equal(got, want) || !slices.Equal(missed, []uint64{12}) {
		t.Errorf("got %v and missed %v, want %v and 12", got, missed, want)
	}
}

func TestFollowerGetsEachRecordOnce(t *testing.T) {
	o := stoppedClocks()
	l := New(o)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	const n = 2000
	begun, done := make(chan struct{}), make(chan []uint64)
	go func() {
		var seqs []uint64
		_ = l.Flows(ctx, observe.FlowsQuery{Follow: true}, func(piece any) error {
			if p := piece.(observe.FlowsPiece); p.Record != nil {
				if seqs = append(seqs, p.Seq); len(seqs) == n {
					cancel()
				}
			} else {
				close(begun)
			}
			return nil
		})
		done <- seqs
	}()
	<-begun
	var writing sync.WaitGroup
	for range 4 { // buffers
		writing.Go(func() {
			for range n / 4 {
				l.add([]entry{{r: ended(1)}})
			}
		})
	}
	writing.Wait()
	seqs := <-done
	slices.Sort(seqs)
	if len(slices.Compact(seqs)) != n || seqs[0] != 1 || seqs[n-1] != n {
		t.Errorf("%d records, from %d", len(seqs), seqs[0])
	}
}

func TestAskerWhoFailsEndsTheAnswer(t *testing.T) {
	l := small()
	addEach(l, ended(1), ended(2))
	gone := errors.New("gone")
	calls := 0
	err := l.Flows(context.Background(), observe.FlowsQuery{Follow: true}, func(any) error {
		if calls++; calls == 2 {
			return gone
		}
		return nil
	})
	if !errors.Is(err, gone) || calls != 2 {
		t.Errorf("after %d pieces: %v", calls, err)
	}
}

func TestDropsAreRememberedByReason(t *testing.T) {
	p := newPlane(t)
	l := New(stoppedClocks())
	p.read(l)
	for range 40 {
		l.add([]entry{{r: droppedPacket(bpf.BlixtCounterCOUNTER_DROP_MARTIAN, 5).Record, packet: "E"}})
	}
	l.add([]entry{{r: droppedPacket(bpf.BlixtCounterCOUNTER_REJECT_UNSERVED, 1).Record}})
	var got []string
	err := l.Drops(context.Background(), observe.DropsQuery{}, func(piece any) error {
		d := piece.(observe.DropsOf)
		got = append(got, fmt.Sprintf("%s: %d of %d left out, the first is %d, packet %q", d.Reason, len(d.Last), d.LeftOut, d.Last[0].Seq, d.Last[0].Packet))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, got, `reject_unserved: 1 of 0 left out, the first is 41, packet ""`, `drop_martian: 16 of 60 left out, the first is 25, packet "45"`)
	got = nil
	err = l.Drops(context.Background(), observe.DropsQuery{Reasons: []string{"reject_*"}, Last: 1}, func(piece any) error {
		got = append(got, piece.(observe.DropsOf).Reason)
		return nil
	})
	equal(t, got, "reject_unserved")
	if err != nil {
		t.Fatal(err)
	}
}

var isBad = regexp.MustCompile(`^(Yes|No|Mostly not)[,:] .*\.$`)

// TestReasonsAreExplained: each counter of packets that end here has its cause and cure, and each other
// counter what it counts.
func TestReasonsAreExplained(t *testing.T) {
	names, err := datapath.CounterNames()
	if err != nil {
		t.Fatal(err)
	}
	var counters, explained, others, events []string
	for _, name := range names {
		if isDrop(name) {
			counters = append(counters, name)
		} else {
			others = append(others, name)
		}
	}
	for _, e := range observe.Counters {
		events = append(events, e.Name)
		if !strings.HasSuffix(e.What, ".") || e.Watch != "" && !strings.HasSuffix(e.Watch, ".") {
			t.Errorf("%s is not explained in sentences: %+v", e.Name, e)
		}
	}
	equal(t, events, others...)
	for _, r := range observe.Reasons {
		explained = append(explained, r.Name)
		if r.What == "" || r.Cause == "" || r.Cure == "" || !strings.HasSuffix(r.Cause, ".") || !strings.HasSuffix(r.Cure, ".") || !isBad.MatchString(r.Bad) {
			t.Errorf("%s is not explained in sentences: %+v", r.Name, r)
		}
	}
	equal(t, explained, counters...)
}

// The page for people whose connections end has each reason why flows do, and no others.
func TestEndsAreExplained(t *testing.T) {
	text, err := os.ReadFile("../../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Connections end, or hang\n")
	section, _, _ = strings.Cut(section, "\n## ")
	explained := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?`) \\|").FindAllStringSubmatch(section, -1) {
		for _, name := range regexp.MustCompile("`(\\w+)").FindAllStringSubmatch(row[1], -1) {
			explained[name[1]] = true
		}
	}
	equal(t, slices.Sorted(maps.Keys(explained)), slices.Sorted(maps.Values(reasonNames))...)
}

// TestNamesOutliveFrontends: a frontend that is removed ends its flows, whose records come
// when nothing serves it any more.
func TestNamesOutliveFrontends(t *testing.T) {
	var n names
	n.replace([]*lb.Frontend{frontend}, at)
	changed := *frontend
	changed.Backends = nil
	n.replace([]*lb.Frontend{&changed}, at)
	n.replace([]*lb.Frontend{&changed}, at)
	f, was := n.of(frontend.Key())
	if f != &changed || serviceOf(frontend.Backends[0].Addr, f, was) != "prod/web" {
		t.Error("the Service of a backend that was removed is not known")
	}
	n.replace(nil, at.Add(time.Second))
	if f, _ := n.of(frontend.Key()); f != &changed {
		t.Error("a frontend that was removed is not known")
	}
	n.replace(nil, at.Add(time.Second+namesKept))
	if f, _ := n.of(frontend.Key()); f != nil {
		t.Error("a frontend that was removed long ago is known")
	}
}

// TestNamesMayComeLater: an agent that has just begun reads records before it knows what
// they are of.
func TestNamesMayComeLater(t *testing.T) {
	l := small()
	addEach(l, ended(1))
	l.refreshNames(&source{Source: Source{Frontends: served(frontend)}})
	lines, _ := ask(t, l, observe.FlowsQuery{Filter: observe.Filter{Gateways: []string{"prod/edge"}, Services: []string{"web"}}})
	if len(lines) != 1 {
		t.Errorf("got %v", lines)
	}
}

// TestRecordsStayWhereTheClockWas: somebody sets the wall clock.
func TestRecordsStayWhereTheClockWas(t *testing.T) {
	wall, boot := at, time.Unix(120, 0)
	w := wallClock{clock: func() time.Time { return wall }, boot: func() time.Time { return boot }}
	if got := time.Unix(0, boot.UnixNano()+w.ahead()); !got.Equal(at) {
		t.Errorf("now is %s, want %s", got, at)
	}
	wall, boot = wall.Add(-time.Hour), boot.Add(offsetFor)
	if got := time.Unix(0, boot.UnixNano()+w.ahead()); !got.Equal(wall) {
		t.Errorf("after the clock was set it is %s, want %s", got, wall)
	}
}

// lines collects what is written, and fails when it shall.
type lines struct {
	mu    sync.Mutex
	text  strings.Builder
	fails bool
	wrote chan struct{}
}

func (w *lines) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.wrote <- struct{}{} }()
	if w.fails {
		return 0, errors.New("no space left on device")
	}
	return w.text.Write(p)
}

func TestLinesAreWritten(t *testing.T) {
	w := &lines{wrote: make(chan struct{}, 100)}
	o := stoppedClocks()
	o.Lines, o.sizes = w, [parts]int{8, 4, 4}
	l := New(o)
	l.names.replace([]*lb.Frontend{frontend}, at)
	l.add([]entry{{r: ended(40000)}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx) }()
	<-w.wrote
	w.mu.Lock()
	w.fails = true
	w.mu.Unlock()
	l.add([]entry{{r: ended(1)}}) // a full disk
	<-w.wrote
	w.mu.Lock()
	w.fails = false
	w.mu.Unlock()
	l.add([]entry{{r: ended(2)}})
	<-w.wrote
	cancel()
	<-done
	text := strings.Split(strings.TrimSuffix(w.text.String(), "\n"), "\n")
	if len(text) != 2 || text[0] != endedLine || !strings.Contains(text[1], `"seq":3`) {
		t.Errorf("written:\n%s", w.text.String())
	}
	if s, err := l.Stats(); err != nil || s.Lost["log"] != 1 {
		t.Errorf("counted %+v, %v", s, err)
	}
}

// Flows to a port of a range have the names of its frontend.
func TestNamesOfRanges(t *testing.T) {
	ip := netip.MustParseAddr("192.0.2.1")
	frontend := func(port uint16, name string, ports *lb.Ports) *lb.Frontend {
		return &lb.Frontend{Addr: ip, Protocol: lb.UDP, Port: port, Listener: name, Settings: lb.Settings{Ports: ports},
			Backends: []lb.Backend{{Addr: netip.MustParseAddrPort("10.0.0.1:4000"), Service: "default/" + name}}}
	}
	var n names
	n.replace([]*lb.Frontend{
		frontend(10000, "rtp", &lb.Ports{Last: 20000}), frontend(15000, "own", nil), frontend(53, "all", &lb.Ports{First: 1, Last: 65535}),
	}, time.Now())
	for port, want := range map[uint16]string{10000: "rtp", 12345: "rtp", 20000: "rtp", 15000: "own", 53: "all", 20001: "all", 9999: "all"} {
		f, _ := n.of(lb.Key{Addr: ip, Protocol: lb.UDP, Port: port})
		if f == nil || f.Listener != want {
			t.Errorf("port %d: %+v, want listener %s", port, f, want)
			continue
		}
		backend := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port)
		if got := serviceOf(backend, f); port != 15000 && got != "default/"+want {
			t.Errorf("port %d: Service %q, want default/%s", port, got, want)
		}
	}
	if f, _ := n.of(lb.Key{Addr: ip, Protocol: lb.TCP, Port: 12345}); f != nil {
		t.Errorf("TCP has %s, whose range is of UDP", f.Listener)
	}
}

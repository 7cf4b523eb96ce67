// SPDX-License-Identifier: Apache-2.0

package flowlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/e2e/lib/umask"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/confine"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath/pins"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// nobody is the user that the agent runs as.
const nobody = 65532

// childOf is set in the process that has dropped its privileges.
const childOf = "BLIXT_TEST_PINS"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childOf); dir != "" {
		if err := unprivileged(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// plane are maps without a program, and what writes to their ring buffers as the program
// does.
type plane struct {
	t    *testing.T
	dir  string
	maps *datapath.Maps
}

func newPlane(t *testing.T) *plane {
	dir := pins.Make(t, nobody)
	m, err := datapath.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return &plane{t, dir, m}
}

func (p *plane) pinned(name string) *ebpf.Map {
	p.t.Helper()
	m, err := ebpf.LoadPinnedMap(filepath.Join(p.dir, name), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { m.Close() })
	return m
}

func (p *plane) put(name string, key, value any) {
	p.t.Helper()
	if err := p.pinned(name).Put(key, value); err != nil {
		p.t.Fatal(err)
	}
}

// emit writes samples of one size to a ring buffer.
func (p *plane) emit(ring string, samples ...[]byte) {
	p.t.Helper()
	must := func(err error) {
		p.t.Helper()
		if err != nil {
			p.t.Fatal(err)
		}
	}
	size := len(samples[0])
	in, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(size), MaxEntries: 1})
	must(err)
	defer in.Close()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, in.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Reg(asm.R2, asm.R0),
		asm.LoadMapPtr(asm.R1, p.pinned(ring).FD()),
		asm.Mov.Imm(asm.R3, int32(size)),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.Return().WithSymbol("out"),
	}})
	must(err)
	defer prog.Close()
	for _, s := range samples {
		must(in.Put(uint32(0), s))
		ret, _, err := prog.Test(make([]byte, 64))
		must(err)
		if ret != 0 {
			p.t.Fatalf("the ring buffer has no room: %d", int32(ret))
		}
	}
}

// bytesOf returns what the program would write of a value.
func bytesOf[T any](v T) []byte {
	return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v))...)
}

func addr(text string) bpf.BlixtAddr { return datapath.ToAddr(netip.MustParseAddr(text)) }

// boot0 is a moment of CLOCK_BOOTTIME that lies in the past.
const boot0 = uint64(time.Minute)

// ended returns the record of a flow with this client port that was answered and closed.
func ended(port uint16) bpf.BlixtFlowRecord {
	return bpf.BlixtFlowRecord{
		Began: boot0, Ended: boot0 + uint64(5*time.Second), Packets: [2]uint64{14, 19}, Bytes: [2]uint64{1830, 22110},
		Client: addr("198.51.100.7"), ClientPort: datapath.ToPort(port), Server: addr("192.0.2.10"), ServerPort: datapath.ToPort(443),
		Snat: addr("10.0.0.5"), SnatPort: datapath.ToPort(14211), Backend: addr("10.1.3.9"), BackendPort: datapath.ToPort(8443),
		BackendId: 3, Generation: 1, Connect: 944, Rtt: 22020, Event: uint8(bpf.BlixtRecordEventRECORD_END),
		Reason: uint8(bpf.BlixtEndReasonRECORD_FIN), By: uint8(bpf.BlixtRecordByRECORD_BY_CLIENT), Protocol: 6,
	}
}

// attempt returns the record of a flow that nobody has answered.
func attempt(port uint16) bpf.BlixtFlowRecord {
	r := ended(port)
	r.Packets, r.Bytes, r.Connect, r.Rtt, r.By = [2]uint64{3}, [2]uint64{180}, 0, 0, 0
	r.Reason = uint8(bpf.BlixtEndReasonRECORD_UNANSWERED)
	return r
}

// dropped returns the record of a packet that was dropped.
func droppedPacket(reason bpf.BlixtCounter, sampled uint32) bpf.BlixtPacketRecord {
	p := bpf.BlixtPacketRecord{Record: bpf.BlixtFlowRecord{
		Began: boot0, Ended: boot0, Client: addr("2001:db8::1"), Server: addr("2001:db8::80"), Ifindex: 7, Sampled: sampled,
		Event: uint8(bpf.BlixtRecordEventRECORD_DROPPED), Reason: uint8(reason), Protocol: 58, Captured: 4, Packets: [2]uint64{1}, Bytes: [2]uint64{80},
	}}
	copy(p.Packet[:], "\x60\x00\x00\x01beyond")
	return p
}

// frontend is that of the records.
var frontend = &lb.Frontend{
	Addr: netip.MustParseAddr("192.0.2.10"), Protocol: lb.TCP, Port: 443, Gateway: "prod/edge", Listener: "tls", Route: "TCPRoute/prod/web",
	IdleTimeout: time.Hour, Backends: []lb.Backend{{Addr: netip.MustParseAddrPort("10.1.3.9:8443"), Service: "prod/web"}},
}

func served(all ...*lb.Frontend) func(uint64) ([]*lb.Frontend, uint64, bool) {
	return func(known uint64) ([]*lb.Frontend, uint64, bool) { return all, 1, known != 1 }
}

// at is the wall clock when CLOCK_BOOTTIME is two minutes.
var at = time.Date(2026, 11, 28, 9, 13, 0, 0, time.UTC)

func stoppedClocks() Options {
	return Options{
		Node: "n2", Clock: func() time.Time { return at }, BootClock: func() time.Time { return time.Unix(120, 0) },
		Ticks: func() uint32 { return 1000 },
	}
}

// read reads the plane's records until the test ends.
func (p *plane) read(l *Log) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Read(ctx, Source{p.maps, served(frontend)}) }()
	p.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			p.t.Error(err)
		}
	})
}

// await waits until a log has got a number of records.
func await(t *testing.T, l *Log, n uint64) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		now := l.memory.end()
		if now[0]+now[1]+now[2]+l.invalid.Load() >= n {
			return
		}
		select {
		case <-l.memory.wait(now):
		case <-time.After(10 * time.Millisecond): // invalid ones wake nobody
		case <-deadline:
			t.Fatalf("%v records have come, want %d", now, n)
		}
	}
}

// ask returns the pieces of an answer as lines of JSON.
func ask(t *testing.T, l *Log, q observe.FlowsQuery) (lines []string, memory observe.Memory) {
	t.Helper()
	err := l.Flows(context.Background(), q, func(piece any) error {
		if m := piece.(observe.FlowsPiece).Memory; m != nil {
			memory = *m
			return nil
		}
		text, err := json.Marshal(piece)
		lines = append(lines, string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines, memory
}

func equal(t *testing.T, got []string, want ...string) {
	t.Helper()
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
}

const (
	endedLine = `{"v":1,"event":"end","node":"n2","seq":1,"time":"2026-11-28T09:12:05Z","protocol":"tcp","reason":"fin","endedBy":"client",` +
		`"client":{"address":"198.51.100.7","port":40000},"server":{"address":"192.0.2.10","port":443},"snat":{"address":"10.0.0.5","port":14211},` +
		`"backend":{"address":"10.1.3.9","port":8443},"gateway":"prod/edge","listener":"tls","route":"TCPRoute/prod/web","service":"prod/web",` +
		`"start":"2026-11-28T09:12:00Z","connect":0.0009,"rtt":0.021,"duration":5,"in":{"packets":14,"bytes":1830},"out":{"packets":19,"bytes":22110}}`
	droppedLine = `{"v":1,"event":"dropped","node":"n2","seq":2,"time":"2026-11-28T09:12:00Z","protocol":"icmpv6","reason":"drop_no_route",` +
		`"client":{"address":"2001:db8::1"},"server":{"address":"2001:db8::80"},"interface":"if7","sampled":12,"packet":"60000001"}`
)

func TestReadsRingBuffers(t *testing.T) {
	p := newPlane(t)
	l := New(stoppedClocks())
	p.emit("flow_log_0", bytesOf(ended(40000))) // before anybody reads
	p.read(l)
	await(t, l, 1)
	p.emit("flow_log_3", bytesOf(droppedPacket(bpf.BlixtCounterCOUNTER_DROP_NO_ROUTE, 12)))
	await(t, l, 2)
	lines, memory := ask(t, l, observe.FlowsQuery{})
	equal(t, lines, droppedLine, endedLine)
	if memory.Flows.Records != 1 || memory.Packets.Records != 1 || memory.Recording != "" || len(memory.Lost) != 0 {
		t.Errorf("memory %+v", memory)
	}

	// What no program writes is counted, and takes nothing down.
	unknown := ended(1)
	unknown.Event = 200
	backwards := ended(2)
	backwards.Began = backwards.Ended + 1
	p.emit("flow_log_1", make([]byte, 8))
	p.emit("flow_log_1", bytesOf(unknown), bytesOf(backwards))
	more := droppedPacket(bpf.BlixtCounterCOUNTER_DROP_NO_ROUTE, 0)
	more.Record.Captured, more.Record.Reason = 65535, 255
	p.emit("flow_log_1", bytesOf(more))
	await(t, l, 6)
	if n := l.invalid.Load(); n != 3 {
		t.Errorf("%d invalid records, want 3", n)
	}
	lines, _ = ask(t, l, observe.FlowsQuery{Filter: observe.Filter{Reasons: []string{"counter_255"}}})
	if len(lines) != 1 || !strings.Contains(lines[0], `"packet":"60000001`) {
		t.Errorf("a packet with more bytes than there are: %s", lines)
	}
	counts, err := l.Stats()
	if err != nil || counts.Lost["invalid"] != 3 || counts.Records["packets"] != 2 {
		t.Errorf("counted %+v, %v", counts, err)
	}
}

// TestReaderNeedsNoPrivilege: the agent has no capability, and confines itself.
func TestReaderNeedsNoPrivilege(t *testing.T) {
	p := newPlane(t)
	p.emit("flow_log_2", bytesOf(ended(40000)))
	p.put(bpf.BlixtMapRecorded, bpf.BlixtFlowKey{Protocol: 6}, attempt(1)) // its flow is gone
	p.maps.AddRecordedFlows(1)
	umask.Open(t)
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), childOf+"="+p.dir)
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil { // of this thread, which ends with the test
		t.Fatal(err)
	}
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := p.maps.RecordedFlows(); n != 0 {
		t.Errorf("%d records are left, want none", n)
	}
}

func unprivileged(dir string) error {
	if err := confine.Process(confine.Options{Read: []string{dir}}); err != nil {
		return err
	}
	m, err := datapath.Open(dir)
	if err != nil {
		return err
	}
	l := New(Options{})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- l.Read(ctx, Source{Maps: m}) }()
	for l.memory.end()[partFlows] == 0 {
		select {
		case <-l.memory.wait(l.memory.end()):
		case err := <-done:
			return fmt.Errorf("nothing was read: %w", err)
		}
	}
	if err := l.sweep(ctx, &source{Source: Source{Maps: m}}); err != nil {
		return err
	}
	if l.memory.end()[partAttempts] != 1 {
		return errors.New("the record of a flow that is gone was not found")
	}
	cancel()
	return <-done
}

// forwardKey is the key of the forward entry of ended's flow.
func forwardKey(r bpf.BlixtFlowRecord) bpf.BlixtFlowKey {
	return bpf.BlixtFlowKey{Src: r.Client, Sport: r.ClientPort, Dst: r.Server, Dport: r.ServerPort, Protocol: r.Protocol}
}

// flowOf returns the forward entry of a record's flow, seen last so many ticks ago.
func flowOf(r bpf.BlixtFlowRecord, ago uint32, flags bpf.BlixtFlowFlag) bpf.BlixtFlow {
	return bpf.BlixtFlow{
		Src: r.Snat, Sport: r.SnatPort, Dst: r.Backend, Dport: r.BackendPort, Backend: r.BackendId, Generation: r.Generation,
		LastSeen: 1000 - ago, IdleTicks: 100, Flags: uint32(flags),
	}
}

// running is the record of a flow that has not ended.
func running(port uint16) bpf.BlixtFlowRecord {
	r := ended(port)
	r.Event, r.Reason, r.By = 0, 0, 0
	return r
}

func TestSweepEndsRecordsWhoseFlowIsGone(t *testing.T) {
	p := newPlane(t)
	l := New(stoppedClocks())
	s := &source{Source: Source{p.maps, served(frontend)}}
	l.refreshNames(s)
	const recorded = bpf.BlixtFlowFlagFLOW_RECORDED
	// record puts a record, and returns it.
	record := func(port uint16, change func(*bpf.BlixtFlowRecord)) bpf.BlixtFlowRecord {
		r := running(port)
		r.SnatPort = r.ClientPort // so that each has a reply entry of its own
		change(&r)
		p.put(bpf.BlixtMapRecorded, forwardKey(r), r)
		p.maps.AddRecordedFlows(1)
		return r
	}
	same := func(*bpf.BlixtFlowRecord) {}
	p.put(bpf.BlixtMapBackends, uint32(3), bpf.BlixtBackend{Generation: 1})

	lives := record(1, same)
	p.put(bpf.BlixtMapFlows, forwardKey(lives), flowOf(lives, 5, recorded|bpf.BlixtFlowFlagFLOW_ESTABLISHED))
	halfOpen := record(2, same)
	p.put(bpf.BlixtMapNewFlows, forwardKey(halfOpen), flowOf(halfOpen, 5, recorded))
	answers := record(3, same) // no packet of the client for long, but of the backend
	p.put(bpf.BlixtMapNewFlows, forwardKey(answers), flowOf(answers, 500, recorded))
	reply := flowOf(answers, 5, recorded)
	p.put(bpf.BlixtMapNewFlows, replyKey(forwardKey(answers), &reply), reply)
	record(4, func(r *bpf.BlixtFlowRecord) { r.Ended = uint64(119 * time.Second) }) // young

	expired := record(11, func(r *bpf.BlixtFlowRecord) {
		r.Packets[1] = 0
		r.Began, r.Ended = uint64(10*time.Second), uint64(11*time.Second)
	})
	p.put(bpf.BlixtMapNewFlows, forwardKey(expired), flowOf(expired, 101, recorded))
	record(12, same)                                              // evicted
	record(13, func(r *bpf.BlixtFlowRecord) { r.Generation = 0 }) // its backend has another generation
	record(14, func(r *bpf.BlixtFlowRecord) { r.Protocol = 17 })  // UDP, of no frontend that is known: two minutes
	other := record(15, same)                                     // another flow of the tuple, without a record
	p.put(bpf.BlixtMapFlows, forwardKey(other), flowOf(other, 5, 0))

	if err := l.sweep(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	lines, _ := ask(t, l, observe.FlowsQuery{})
	got := map[string]string{}
	for _, line := range lines {
		var r observe.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		got[fmt.Sprint(r.Client.Port)] = r.Reason
	}
	want := map[string]string{"11": "unanswered", "12": "evicted", "13": "backend_gone", "14": "evicted", "15": "evicted"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("ended: %v, want %v", got, want)
	}
	if n := p.maps.RecordedFlows(); n != 4 {
		t.Errorf("%d records are left by number, want 4", n)
	}

	// Somebody was killed between a deletion and its count.
	p.maps.AddRecordedFlows(7)
	if err := l.sweep(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	if n := p.maps.RecordedFlows(); n != 4 {
		t.Errorf("the number is %d, want it corrected to 4", n)
	}
}

// TestSweepLeavesNewerRecords: between the batch and the deletion another flow may have
// taken the tuple.
func TestSweepLeavesNewerRecords(t *testing.T) {
	p := newPlane(t)
	l := New(stoppedClocks())
	s := &source{Source: Source{Maps: p.maps}}
	newer := running(1)
	newer.Began, newer.Ended = uint64(100*time.Second), uint64(119*time.Second)
	p.put(bpf.BlixtMapRecorded, forwardKey(newer), newer)
	p.maps.AddRecordedFlows(1)
	if err := l.visit(s, nil, datapath.RecordedFlow{Key: forwardKey(newer), Value: running(1)}); err != nil {
		t.Fatal(err)
	}
	got, found, err := p.maps.Recorded(forwardKey(newer))
	if err != nil || !found || got != newer || p.maps.RecordedFlows() != 1 {
		t.Errorf("the newer record is %+v (found: %v, %v), and there are %d", got, found, err, p.maps.RecordedFlows())
	}
	if now := l.memory.end(); now != (place{}) {
		t.Errorf("something has ended: %v", now)
	}
}

func TestOpenFlowsAreAnswered(t *testing.T) {
	p := newPlane(t)
	l := New(stoppedClocks())
	p.read(l)
	for len(l.sourcesNow()) == 0 {
		time.Sleep(time.Millisecond)
	}
	with := running(40000)
	p.put(bpf.BlixtMapRecorded, forwardKey(with), with)
	p.put(bpf.BlixtMapFlows, forwardKey(with), flowOf(with, 5, bpf.BlixtFlowFlagFLOW_RECORDED|bpf.BlixtFlowFlagFLOW_ESTABLISHED))
	// The slot of a direction has counted what the record does not have.
	c, err := p.maps.Config()
	if err != nil {
		t.Fatal(err)
	}
	index := bpf.CacheSet(forwardKey(with), c.Seed)
	var set bpf.BlixtCacheSet
	set.Ways[1] = bpf.BlixtCachedFlow{Src: with.Client, Sport: with.ClientPort, Dst: with.Server, Dport: with.ServerPort, Protocol: 6, Flags: uint8(bpf.BlixtCachedFlagCACHED_RECORDED)}
	set.Ways[0] = set.Ways[1]
	set.Ways[0].Protocol = 0 // emptied by a FIN, while the flow goes on
	p.put(bpf.BlixtMapFlowCache, index, set)
	p.put(bpf.BlixtMapSlotCounts, index, bpf.BlixtSlotCount{Ways: [2]uint64{1<<40 | 40, 2<<40 | 170}})

	without := running(40001)
	p.put(bpf.BlixtMapNewFlows, forwardKey(without), flowOf(without, 20, 0))
	for port, hidden := range map[uint16]bpf.BlixtFlow{
		1: flowOf(running(1), 5, bpf.BlixtFlowFlagFLOW_REPLY), 2: flowOf(running(2), 5, bpf.BlixtFlowFlagFLOW_GONE),
		3: flowOf(running(3), 5, bpf.BlixtFlowFlagFLOW_CLOSED), 4: flowOf(running(4), 101, 0), 5: flowOf(running(5), 5, bpf.BlixtFlowFlagFLOW_UNDONE),
		6: {Frontend: uint32(bpf.BlixtNoFlowOfNO_FRONTEND), LastSeen: 1000, IdleTicks: 100},
	} {
		p.put(bpf.BlixtMapNewFlows, forwardKey(running(port)), hidden)
	}
	p.put(bpf.BlixtMapFrontends, bpf.BlixtFrontendKey{Port: 1}, bpf.BlixtFrontend{Flags: uint32(bpf.BlixtFrontendFlagFRONTEND_RECORDS)})
	p.put(bpf.BlixtMapFrontends, bpf.BlixtFrontendKey{Port: 2}, bpf.BlixtFrontend{})
	p.emit("flow_log_0", bytesOf(ended(39999)))
	await(t, l, 1)

	const names = `"snat":{"address":"10.0.0.5","port":14211},"backend":{"address":"10.1.3.9","port":8443},"gateway":"prod/edge","listener":"tls","route":"TCPRoute/prod/web","service":"prod/web"`
	// Twenty ticks are 21.5 s.
	openWithout := `{"v":1,"event":"open","node":"n2","time":"2026-11-28T09:12:38Z","protocol":"tcp","client":{"address":"198.51.100.7","port":40001},` +
		`"server":{"address":"192.0.2.10","port":443},` + names + `}`
	openWith := `{"v":1,"event":"open","node":"n2","time":"2026-11-28T09:12:05Z","protocol":"tcp","client":{"address":"198.51.100.7","port":40000},` +
		`"server":{"address":"192.0.2.10","port":443},` + names + `,"start":"2026-11-28T09:12:00Z","connect":0.0009,"rtt":0.021,"duration":5,"in":{"packets":17,"bytes":2040},"out":{"packets":19,"bytes":22110}}`
	lines, memory := ask(t, l, observe.FlowsQuery{Open: true})
	equal(t, lines, strings.ReplaceAll(endedLine, "40000", "39999"), openWith, openWithout)
	if memory.Recording != observe.RecordingSome {
		t.Errorf("recording is %q", memory.Recording)
	}
	// Who was behind 10.0.0.5:14211 at 09:12? Of the second nobody knows since when it is there.
	snat, err := observe.ParseMatch("10.0.0.5:14211")
	if err != nil {
		t.Fatal(err)
	}
	lines, _ = ask(t, l, observe.FlowsQuery{Open: true, Last: 1, Filter: observe.Filter{
		SNATs: []observe.Match{snat}, Since: at.Add(-time.Minute), Until: at.Add(-time.Second), Events: []observe.Event{observe.EventOpen},
	}})
	equal(t, lines, openWithout)
}

// sourcesNow returns the sources that are being read.
func (l *Log) sourcesNow() []*source {
	l.sources.RLock()
	defer l.sources.RUnlock()
	return l.sources.all
}

// TestLostRecordsNeverFall: a program is replaced by another one, which has counted nothing.
func TestLostRecordsNeverFall(t *testing.T) {
	p := newPlane(t)
	counters := make([]uint64, ebpf.MustPossibleCPU())
	counters[0] = 7
	p.put(bpf.BlixtMapCounters, uint32(bpf.BlixtCounterCOUNTER_RECORD_LOST), counters)
	l := New(stoppedClocks())
	lost := func() uint64 {
		s, err := l.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return s.Lost["ring"]
	}
	for range 2 { // the second one has the same counters here
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- l.Read(ctx, Source{Maps: p.maps}) }()
		for len(l.sourcesNow()) == 0 {
			time.Sleep(time.Millisecond)
		}
		before := lost()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if after := lost(); before == 0 || after != before {
			t.Errorf("%d were lost, and %d when the program is gone", before, after)
		}
	}
	if n := lost(); n != 14 {
		t.Errorf("%d were lost by two programs, want 14", n)
	}
}

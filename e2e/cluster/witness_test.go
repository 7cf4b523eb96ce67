// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
)

// witness sees who may have refused a client that fails once in many runs: what each
// program counts by reason, of any layout, and each packet that refuses a connection, on
// the nodes and outside.
type witness struct {
	machines []*cluster.Machine
	before   map[string]uint64
	stopped  chan struct{}
	ended    sync.WaitGroup
	once     sync.Once

	mu       sync.Mutex
	refusals []refusal // the last ones
	failures []failure
}

// refusal is a RST that answers a SYN, or an ICMP error that says that nobody is there.
type refusal struct {
	at   time.Time
	text string
}

// failure is what the programs had counted when a client had failed.
type failure struct {
	at      time.Time
	counted map[string]uint64
}

// maxRefusals and maxFailures are how many are kept.
const maxRefusals, maxFailures = 1000, 3

// startWitness looks until the test ends.
func startWitness(t *testing.T) *witness {
	t.Helper()
	w := &witness{machines: append([]*cluster.Machine{c.Outside}, c.Nodes...), stopped: make(chan struct{})}
	t.Cleanup(w.stop)
	for _, m := range w.machines {
		socket, names, err := hearRefusals(m)
		if err != nil {
			t.Fatal(err)
		}
		w.ended.Go(func() { w.hear(m.Name, socket, names) })
	}
	var err error
	if w.before, err = w.count(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *witness) stop() {
	w.once.Do(func() { close(w.stopped) })
	w.ended.Wait()
}

// hearRefusals opens a socket of a machine that receives what refuses a connection by
// IPv4, and returns the names of its devices, too.
func hearRefusals(m *cluster.Machine) (socket int, names map[int]string, err error) {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 0}, // version, length of the header
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xf0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0x40, Jf: 10},
		{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 0},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 9}, // protocol
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_ICMP, Jf: 2},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_IND, K: 0}, // type
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 3, Jt: 4, Jf: 5},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_TCP, Jf: 4},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_IND, K: 13}, // flags
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0x14},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0x14, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 128},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	names = map[int]string{}
	err = m.Do(func() error {
		devices, err := net.Interfaces()
		for _, d := range devices {
			names[d.Index] = d.Name
		}
		if err != nil {
			return err
		}
		if socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		all := uint16(unix.ETH_P_ALL)<<8 | unix.ETH_P_ALL>>8 // in network byte order
		return errors.Join(
			unix.SetsockoptSockFprog(socket, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}),
			unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000}),
			unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: all}))
	})
	return socket, names, err
}

// hear keeps what a socket receives until the witness is stopped.
func (w *witness) hear(machine string, socket int, names map[int]string) {
	defer func() { _ = unix.Close(socket) }()
	buffer := make([]byte, 128)
	for {
		select {
		case <-w.stopped:
			return
		default:
		}
		n, from, err := unix.Recvfrom(socket, buffer, 0)
		device, is := from.(*unix.SockaddrLinklayer)
		if err != nil || !is {
			continue
		}
		name := names[device.Ifindex]
		if name == "" {
			name = fmt.Sprintf("device %d", device.Ifindex)
		}
		way := "comes in by"
		if device.Pkttype == unix.PACKET_OUTGOING {
			way = "leaves by"
		}
		w.mu.Lock()
		w.refusals = append(w.refusals, refusal{time.Now(), fmt.Sprintf("%s: %s %s %s", machine, describeRefusal(buffer[:n]), way, name)})
		w.refusals = w.refusals[max(0, len(w.refusals)-maxRefusals):]
		w.mu.Unlock()
	}
}

// describeRefusal returns what a RST or an ICMP error of IPv4 says.
func describeRefusal(p []byte) string {
	l4 := int(p[0]&0xf) * 4
	if len(p) < l4+14 {
		return fmt.Sprintf("%x", p)
	}
	src, dst := netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
	if p[9] == unix.IPPROTO_ICMP {
		return fmt.Sprintf("ICMP %d.%d from %s to %s, which quotes %x", p[l4], p[l4+1], src, dst, p[l4+8:])
	}
	port := binary.BigEndian.Uint16
	return fmt.Sprintf("RST from %s to %s, ack %d", netip.AddrPortFrom(src, port(p[l4:])), netip.AddrPortFrom(dst, port(p[l4+2:])), binary.BigEndian.Uint32(p[l4+8:]))
}

// count returns what the programs at eth0 of the nodes have counted: by node, program,
// and name of the counter.
func (w *witness) count() (map[string]uint64, error) {
	all := map[string]uint64{}
	for _, m := range c.Nodes {
		var programs []link.AttachedProgram
		err := m.Do(func() error {
			eth0, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			found, err := link.QueryPrograms(link.QueryOptions{Target: eth0.Index, Attach: ebpf.AttachTCXIngress})
			if err == nil {
				programs = found.Programs
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.Name, err)
		}
		for _, p := range programs {
			counted, err := countedBy(p.ID)
			if errors.Is(err, unix.ENOENT) {
				continue // it has just been unloaded
			}
			if err != nil {
				return nil, fmt.Errorf("program %d of %s: %w", p.ID, m.Name, err)
			}
			for name, n := range counted {
				all[fmt.Sprintf("%s, program %d: %s", m.Name, p.ID, name)] = n
			}
		}
	}
	return all, nil
}

// countedBy returns the counters of a program by the names that its own BTF has for them.
func countedBy(id ebpf.ProgramID) (map[string]uint64, error) {
	program, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, err
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return nil, err
	}
	described, _ := info.BTFID()
	handle, err := btf.NewHandleFromID(described)
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	spec, err := handle.Spec(nil)
	if err != nil {
		return nil, err
	}
	var names *btf.Enum
	if err := spec.TypeByName("counter", &names); err != nil {
		return nil, err
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return nil, err
		}
		counted, err := sums(m, names)
		m.Close()
		if counted != nil || err != nil {
			return counted, err
		}
	}
	return nil, errors.New("no map counters")
}

// sums returns the counters in a map by their names, or nil if that is another map.
func sums(m *ebpf.Map, names *btf.Enum) (map[string]uint64, error) {
	info, err := m.Info()
	if err != nil || info.Name != "counters" {
		return nil, err
	}
	counted := map[string]uint64{}
	for _, v := range names.Values {
		var perCPU []uint64
		if uint32(v.Value) >= m.MaxEntries() {
			continue // the number of counters
		}
		if err := m.Lookup(uint32(v.Value), &perCPU); err != nil {
			return nil, err
		}
		for _, n := range perCPU {
			counted[strings.ToLower(strings.TrimPrefix(v.Name, "COUNTER_"))] += n
		}
	}
	return counted, nil
}

// failed has the witness keep what was counted when a client failed. It is called at once.
func (w *witness) failed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.failures) == maxFailures {
		return
	}
	counted, err := w.count()
	if err != nil {
		counted = map[string]uint64{err.Error(): 1}
	}
	w.failures = append(w.failures, failure{time.Now(), counted})
}

// explanation returns what was seen about the first failures, by lines.
func (w *witness) explanation() (lines []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.before
	for _, f := range w.failures {
		lines = append(lines, fmt.Sprintf("A client had failed at %s. Counted since the first client came, or since the last failure:", clock(f.at)))
		for _, name := range slices.Sorted(maps.Keys(f.counted)) {
			if n := f.counted[name] - before[name]; n > 0 {
				lines = append(lines, fmt.Sprintf("  %s %d", name, n))
			}
		}
		before = f.counted
		lines = append(lines, "Refused within the two seconds before:")
		for _, r := range w.refusals {
			if age := f.at.Sub(r.at); age >= 0 && age < 2*time.Second {
				lines = append(lines, fmt.Sprintf("  %s %s", clock(r.at), r.text))
			}
		}
	}
	return lines
}

func clock(t time.Time) string { return t.Format("15:04:05.000") }

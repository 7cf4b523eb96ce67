// SPDX-License-Identifier: Apache-2.0

package announce

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath/pins"
)

// probing returns tables whose probes get the answer, and what was probed.
func probing(t *testing.T, answer bool) (*datapath.Fake, func() (datapath.FlowKey, bpf.BlixtProbeForm)) {
	fake := datapath.NewFake(testSizes)
	if err := fake.SetConfig(datapath.Config{SnatMin: 20000, SnatMax: 24000}); err != nil {
		t.Fatal(err)
	}
	type seen struct {
		key  datapath.FlowKey
		form bpf.BlixtProbeForm
	}
	var last atomic.Pointer[seen]
	fake.Answers = func(k datapath.FlowKey, form bpf.BlixtProbeForm) bool {
		last.Store(&seen{k, form})
		return answer
	}
	return fake, func() (datapath.FlowKey, bpf.BlixtProbeForm) { return last.Load().key, last.Load().form }
}

// Each form is one packet of an ordinary socket, from a port that belongs to the
// program, and leaves nothing behind.
func TestProbePackets(t *testing.T) {
	fake, seen := probing(t, true)
	p := newProber(fake)
	datagrams, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	to := netip.AddrPortFrom(ip("127.0.0.1"), uint16(datagrams.LocalAddr().(*net.UDPAddr).Port))
	for _, alone := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			form := lb.FormOf(alone, udp, false)
			answered, took, err := p.probe(t.Context(), form, to) // nobody listens at the TCP port
			if !answered || took <= 0 || err != nil {
				t.Errorf("%s: answered %v in %v, %v", form, answered, took, err)
			}
			key, got := seen()
			want := datapath.FlowKey{Dst: datapath.ToAddr(to.Addr()), Dport: datapath.ToPort(to.Port()), Sport: key.Sport, Protocol: uint8(lb.TCP)}
			if udp {
				want.Protocol = uint8(lb.UDP)
			}
			if port := datapath.FromPort(key.Sport); key != want || port < 20000 || port > 24000 || (got == bpf.BlixtProbeFormPROBE_ALONE) != alone {
				t.Errorf("%s: probe %+v of form %d, want %+v", form, key, got, want)
			}
			if left, _ := fake.Probes(); len(left) > 0 {
				t.Errorf("%s: %d probes are left", form, len(left))
			}
		}
	}
	if fake.Interest(ip("127.0.0.1"))&datapath.InterestFrom == 0 {
		t.Error("the program would not see the packets when they leave")
	}
	// What got here are the datagrams, as there is no program: one with data, one without.
	for n, want := range []bool{true, false} {
		b := make([]byte, 64)
		if err := datagrams.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		size, from, err := datagrams.ReadFromUDPAddrPort(b)
		if err != nil || size > 0 != want || from.Port() < 20000 || from.Port() > 24000 {
			t.Errorf("datagram %d: %d bytes from %s, %v", n, size, from, err)
		}
	}
}

// A socket that accepts or refuses proves nothing of the program: it is no answer.
func TestAnswersOfSocketsAreNone(t *testing.T) {
	fake, _ := probing(t, false)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	open := l.Addr().(*net.TCPAddr).AddrPort()
	for _, to := range []netip.AddrPort{open, netip.AddrPortFrom(open.Addr(), 1)} {
		if answered, _, err := newProber(fake).probe(t.Context(), tcp4, to); answered || err != nil {
			t.Errorf("%s: answered %v, %v", to, answered, err)
		}
	}
}

func TestProbesThatCannotBeSent(t *testing.T) {
	fake, _ := probing(t, true)
	if err := fake.SetConfig(datapath.Config{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := newProber(fake).probe(t.Context(), tcp4, endpoint); err == nil {
		t.Error("no error without ports")
	}
	if err := fake.SetConfig(datapath.Config{SnatMin: 20000, SnatMax: 20000}); err != nil {
		t.Fatal(err)
	}
	p := newProber(fake)
	p.reserve(datapath.FlowKey{Dst: datapath.ToAddr(endpoint.Addr()), Sport: datapath.ToPort(20000), Dport: datapath.ToPort(endpoint.Port()), Protocol: uint8(lb.TCP)})
	if _, _, err := p.probe(t.Context(), tcp4, endpoint); err == nil {
		t.Error("no error although the only port is in use")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, _ = newProber(fake).probe(ended, tcp4, netip.AddrPortFrom(ip("127.0.0.1"), 1))
	if left, _ := fake.Probes(); len(left) > 0 {
		t.Errorf("%d probes are left", len(left))
	}
}

// The kernel's maps: all that a process without any capability does.
func TestKernelMaps(t *testing.T) {
	m, err := datapath.Open(pins.Make(t, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	a := New(m, Options{})
	if !m.Announces() {
		t.Fatal("the embedded object has no such maps")
	}
	s := testSettings()
	for range 2 {
		if err := errors.Join(a.Set(s), a.SetEgressLinks([]int{3, 4100}, true)); err != nil {
			t.Fatal(err)
		}
		expectMaps(t, m, s)
	}
	if links, err := m.EgressLinks(); err != nil || !slices.Equal(links, []int{3, 4}) {
		t.Errorf("links %v, %v", links, err)
	}
	key := datapath.FlowKey{Sport: 1, Protocol: 6}
	if err := m.PutProbe(key, bpf.BlixtProbeFormPROBE_WITHIN, endpoint.Addr()); err != nil {
		t.Fatal(err)
	}
	if answered, err := m.ProbeAnswered(key); answered || err != nil {
		t.Errorf("answered %v, %v", answered, err)
	}
	if all, err := m.Probes(); err != nil || !slices.Equal(all, []datapath.FlowKey{key}) {
		t.Errorf("probes %v, %v", all, err)
	}
	a.clearProbes()
	if all, err := m.Probes(); err != nil || len(all) > 0 {
		t.Errorf("probes %v, %v", all, err)
	}

	// More nodes than `peers` has room for.
	s.Peers = nil
	for n := range int(bpf.BlixtLimitMAX_PEERS) + 5 {
		s.Peers = append(s.Peers, Peer{Name: "b", Sources: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})}})
	}
	if err := a.Set(s); err != nil {
		t.Fatal(err)
	}
	if status, err := a.Status(); err != nil || status.LeftOut != 5 {
		t.Errorf("left out %d, %v", status.LeftOut, err)
	}
	s.Peers = s.Peers[:len(s.Peers)-5]
	s.Sign, s.Keys = -1, [lb.AnnounceKeys]lb.AnnounceKey{}
	if err := a.Set(s); err != nil {
		t.Fatal(err)
	}
	expectMaps(t, m, s)
}

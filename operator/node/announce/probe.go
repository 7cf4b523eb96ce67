// SPDX-License-Identifier: Apache-2.0

package announce

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

const (
	// answerWithin is how long an answer may take: far more than between nodes of
	// one cluster.
	answerWithin = time.Second
	// pollFirst and pollLast are the pauses between looks for the answer, which is
	// a mark in a map.
	pollFirst = time.Millisecond
	pollLast  = 50 * time.Millisecond
	// portTries is how many source ports are tried, some of which may be in use.
	portTries = 8
	// unprivileged is the first port that every process may use.
	unprivileged = 1024
)

// prober sends probes by ordinary sockets. The program makes a message of the packet
// when it leaves, and takes the answer before any socket gets it.
type prober struct {
	tables datapath.Announcing
	mu     sync.Mutex
	keys   map[datapath.FlowKey]bool // in use
}

// NewProbe returns the Probe that an Announcer has by default.
func NewProbe(t datapath.Announcing) Probe { return newProber(t).probe }

func newProber(t datapath.Announcing) *prober {
	return &prober{tables: t, keys: map[datapath.FlowKey]bool{}}
}

// probe is a Probe.
func (p *prober) probe(ctx context.Context, form lb.Forms, to netip.AddrPort) (answered bool, roundTrip time.Duration, err error) {
	udp, alone := isUDP(form), isAlone(form)
	from, err := sourceTo(to)
	if err != nil {
		return false, 0, nil //nolint:nilerr // there is no route: nothing gets to that node
	}
	config, err := p.tables.Config()
	if err != nil {
		return false, 0, fmt.Errorf("read config: %w", err)
	}
	if config.SnatMax == 0 {
		return false, 0, errors.New("this node has no ports yet to which sources are translated")
	}
	if err := p.tables.AddInterest(datapath.ToAddr(from), datapath.InterestFrom); err != nil {
		return false, 0, fmt.Errorf("write interest: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	first := config.SnatMin
	if config.SnatMax >= unprivileged {
		first = max(first, unprivileged)
	}
	for range portTries {
		port := first + uint16(rand.IntN(int(config.SnatMax-first)+1))
		key := datapath.FlowKey{Dst: datapath.ToAddr(to.Addr()), Sport: datapath.ToPort(port), Dport: datapath.ToPort(to.Port()), Protocol: uint8(lb.TCP)}
		if udp {
			key.Protocol = uint8(lb.UDP)
		}
		answered, roundTrip, err = p.from(ctx, netip.AddrPortFrom(from, port), to, key, alone)
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	return answered, roundTrip, err
}

// from sends a probe from a port, and waits for the answer. It returns an error
// wrapping EADDRINUSE if the port is in use.
func (p *prober) from(ctx context.Context, from, to netip.AddrPort, key datapath.FlowKey, alone bool) (answered bool, roundTrip time.Duration, err error) {
	if !p.reserve(key) {
		return false, 0, unix.EADDRINUSE
	}
	defer p.release(key)
	form := bpf.BlixtProbeFormPROBE_WITHIN
	if alone {
		form = bpf.BlixtProbeFormPROBE_ALONE
	}
	if err := p.tables.PutProbe(key, form, from.Addr()); err != nil {
		return false, 0, fmt.Errorf("write probe: %w", err)
	}
	defer func() {
		if e := p.tables.DeleteProbe(key); e != nil && err == nil {
			err = fmt.Errorf("remove probe: %w", e)
		}
	}()
	start := time.Now()
	fd, err := send(from, to, lb.Protocol(key.Protocol), alone)
	if err != nil {
		return false, 0, err
	}
	defer unix.Close(fd)
	for pause := pollFirst; ; pause = min(2*pause, pollLast) {
		done := false
		select {
		case <-ctx.Done():
			done = true
		case <-time.After(pause):
		}
		answered, err := p.tables.ProbeAnswered(key)
		if answered || err != nil || done {
			return answered, time.Since(start), err
		}
	}
}

func (p *prober) reserve(key datapath.FlowKey) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keys[key] {
		return false
	}
	p.keys[key] = true
	return true
}

func (p *prober) release(key datapath.FlowKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.keys, key)
}

// send sends one packet, a SYN, or a datagram, with data unless the message stands
// alone, and returns its socket. It does not wait: the answer is none that a socket
// gets, and whoever says that there is no way there may be wrong.
func send(from, to netip.AddrPort, protocol lb.Protocol, alone bool) (fd int, err error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	if protocol == lb.UDP {
		kind = unix.SOCK_DGRAM
	}
	fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	if err := unix.Bind(fd, sockaddr(from)); err != nil {
		return 0, fmt.Errorf("bind to %s: %w", from, err)
	}
	if protocol == lb.UDP {
		data := []byte("blixt...")
		if alone {
			data = nil
		}
		_ = unix.Sendto(fd, data, 0, sockaddr(to))
		return fd, nil
	}
	// One SYN, and no TIME_WAIT, whatever becomes of it.
	if err := errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_SYNCNT, 1), unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})); err != nil {
		return 0, fmt.Errorf("set options of socket: %w", err)
	}
	_ = unix.Connect(fd, sockaddr(to))
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// sourceTo returns the address from which this host sends to another.
func sourceTo(to netip.AddrPort) (netip.Addr, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to)) // sends nothing
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	from, is := netip.AddrFromSlice(c.LocalAddr().(*net.UDPAddr).IP)
	if !is {
		return netip.Addr{}, fmt.Errorf("no source for %s", to)
	}
	return from.Unmap(), nil
}

// isUDP and isAlone take a form apart: see lb.FormOf.
func isUDP(f lb.Forms) bool {
	return f&(lb.FormOf(false, true, false)|lb.FormOf(true, true, false)|lb.FormOf(false, true, true)|lb.FormOf(true, true, true)) != 0
}

func isAlone(f lb.Forms) bool {
	return f&(lb.FormOf(true, false, false)|lb.FormOf(true, true, false)|lb.FormOf(true, false, true)|lb.FormOf(true, true, true)) != 0
}

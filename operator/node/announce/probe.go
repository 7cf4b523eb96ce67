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
	"syscall"
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
)

// prober sends probes by ordinary sockets. The program makes a message of the packet
// when it leaves, and takes the answer before any socket gets it.
type prober struct {
	tables datapath.Announcing
	mu     sync.Mutex
	keys   map[datapath.FlowKey]bool // in use
}

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
	for range portTries {
		port := config.SnatMin + uint16(rand.IntN(int(config.SnatMax-config.SnatMin)+1))
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
	ctx, cancel := context.WithCancel(ctx)
	sent := make(chan error, 1)
	var sending sync.WaitGroup
	sending.Go(func() { sent <- send(ctx, from, to, lb.Protocol(key.Protocol), alone) })
	defer sending.Wait()
	defer cancel()
	for pause := pollFirst; ; pause = min(2*pause, pollLast) {
		done := false
		select {
		case <-ctx.Done():
			done = true
		case err := <-sent:
			if errors.Is(err, unix.EADDRINUSE) {
				return false, 0, err
			}
			sent = nil // whoever has answered, or says that there is no way: the program may have as well
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

// send sends one packet: a SYN, or a datagram, with data unless the message stands
// alone. For TCP it returns when ctx ends, or somebody answers.
func send(ctx context.Context, from, to netip.AddrPort, protocol lb.Protocol, alone bool) error {
	if protocol == lb.UDP {
		c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer c.Close()
		data := []byte("blixt...")
		if alone {
			data = nil
		}
		if _, err := c.Write(data); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
	d := net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(from),
		Control: func(_, _ string, c syscall.RawConn) (err error) {
			// One SYN, whatever becomes of it.
			e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_SYNCNT, 1) })
			return errors.Join(e, err)
		},
	}
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return err
	}
	if t, is := c.(*net.TCPConn); is {
		_ = t.SetLinger(0) // leaves nothing behind in TIME_WAIT
	}
	return c.Close()
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

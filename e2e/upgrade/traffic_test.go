// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package upgrade

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// Ports of each address, by what is behind them: servers on other machines and in pods
// of this one. Those of answers answer questions, those of echoes repeat what they get,
// and those of refusals have a server only at first.
const (
	answersRemote, answersLocal   = 80, 81
	echoesRemote, echoesLocal     = 90, 91
	refusalsRemote, refusalsLocal = 95, 96
)

// addresses are those that clients connect to: exclusive ones and ones that the host
// shares, in both families.
var addresses = []string{lab.VIP4, lab.VIP6, lab.Outside4, lab.Outside6}

// traffic is of every kind that flows have, all the time: what an upgrade may break.
type traffic struct {
	w        *labtest.World
	tcp      []*labtest.Clients
	streams  []*stream
	arrivals []*newcomers
	idle     []net.Conn
	bulks    []*bulk
	refused  []net.Conn
	refusals []*lab.Server
}

// newTrafficWorld makes the standard network with servers of every kind, and what is to
// be served of them.
func newTrafficWorld(t *testing.T, name string) *labtest.World {
	t.Helper()
	w := labtest.New(t, name, 2, 2)
	w.Config = &lab.Config{Gateways: []lab.Gateway{
		{Name: "vip", Addresses: []string{lab.VIP4, lab.VIP6}},
		{Name: "shared", Addresses: []string{lab.Outside4, lab.Outside6}},
	}}
	for port, endpoints := range map[int][]lab.Endpoint{
		answersRemote: lab.Endpoints(8080, w.Backends...), answersLocal: lab.On("balancer", lab.Endpoints(8080, w.Pods...)),
		echoesRemote: lab.Endpoints(9001, w.Backends[0]), echoesLocal: lab.On("balancer", lab.Endpoints(9001, w.Pods[0])),
		refusalsRemote: lab.Endpoints(9002, w.Backends[0]), refusalsLocal: lab.On("balancer", lab.Endpoints(9002, w.Pods[0])),
	} {
		service := fmt.Sprintf("service-%d", port)
		w.Config.Services = append(w.Config.Services, lab.Service{Name: service, Endpoints: endpoints})
		for i := range w.Config.Gateways {
			g := &w.Config.Gateways[i]
			for _, protocol := range []string{"TCP", "UDP"} {
				l := lab.Listener{Protocol: protocol, Port: port}
				g.Listeners = append(g.Listeners, l)
				w.Config.Routes = append(w.Config.Routes, lab.Route{Name: g.Name + "-" + service, Gateway: g.Name, Listener: l, Refs: []lab.Ref{{Service: service, Weight: 1}}})
			}
		}
	}
	for _, n := range []*lab.Node{w.Backends[0], w.Pods[0]} {
		for _, ip := range []string{n.IPv4, n.IPv6} {
			w.Accept(n, labtest.At(ip, 9001), func(c net.Conn) {
				defer c.Close()
				_, _ = io.Copy(c, c) // the client reports errors
			})
		}
	}
	return w
}

// startTraffic begins flows of every kind.
func startTraffic(w *labtest.World) *traffic {
	w.Helper()
	c := &traffic{w: w}
	host := *w
	standard := *w.Standard
	standard.Client = w.Balancer
	host.Standard = &standard
	var answers, ofHost []string
	for _, ip := range addresses {
		for _, port := range []int{answersRemote, answersLocal} {
			answers = append(answers, labtest.At(ip, port))
		}
	}
	ofHost = answers[:4] // the VIPs
	for _, n := range []*lab.Node{w.Backends[0], w.Pods[0]} {
		servers, err := n.ServeBoth(n.Name, 9002)
		w.Check(err)
		c.refusals = append(c.refusals, servers[:]...)
	}
	c.tcp = append(c.tcp, w.StartClients(80, "tcp", answers...), host.StartClients(8, "tcp", ofHost...))
	for _, addr := range answers {
		c.streams = append(c.streams, startStream(w, w.Client, addr, 0))
		c.arrivals = append(c.arrivals, startNewcomers(w.Client, addr))
		conn := w.Dial(w.Client, "tcp", addr)
		w.Ask(conn, "before a silence")
		c.idle = append(c.idle, conn)
	}
	for _, addr := range ofHost {
		c.streams = append(c.streams, startStream(w, w.Balancer, addr, 0), startStream(w, w.Client, addr, 4000))
		c.arrivals = append(c.arrivals, startNewcomers(w.Balancer, addr))
	}
	for _, ip := range addresses {
		for _, port := range []int{refusalsRemote, refusalsLocal} {
			conn := w.Dial(w.Client, "udp", labtest.At(ip, port))
			w.Ask(conn, "anybody there?")
			c.refused = append(c.refused, conn)
		}
		for _, port := range []int{echoesRemote, echoesLocal} {
			c.bulks = append(c.bulks, startBulk(w, labtest.At(ip, port)))
		}
	}
	return c
}

// checkUnharmed fails the test if a connection has broken, or moved.
func (c *traffic) checkUnharmed(what string) {
	c.w.Helper()
	for _, clients := range c.tcp {
		clients.CheckUnharmed(what)
	}
}

// end ends all flows, and fails the test unless nothing of any was lost.
func (c *traffic) end(what string) {
	w := c.w
	w.Helper()
	c.checkUnharmed(what)
	for _, n := range c.arrivals {
		n.end(w)
	}
	for _, s := range c.streams {
		s.end(w)
	}
	for _, b := range c.bulks {
		b.end(w)
	}
	for _, conn := range c.idle {
		if _, err := lab.Ask(conn, "after a silence", labtest.Patience); err != nil {
			w.Errorf("%s: idle connection to %s: %v", what, conn.RemoteAddr(), err)
		}
		_ = conn.Close()
	}
	for _, s := range c.refusals {
		w.Check(s.Close())
	}
	for _, conn := range c.refused {
		if _, err := lab.Ask(conn, "nobody there?", labtest.Patience); !errors.Is(err, unix.ECONNREFUSED) {
			w.Errorf("%s: UDP to %s, whose server has ended: %v, want an ICMP error", what, conn.RemoteAddr(), err)
		}
		_ = conn.Close()
	}
	for _, clients := range c.tcp {
		clients.Close()
	}
	w.CheckChecksums()
	if w.Failed() {
		w.Logf("the program has counted %v", w.Status().Counters)
	}
}

// bulk is a connection that sends random bytes as fast as it may, and gets them back.
type bulk struct {
	addr       string
	stop       atomic.Bool
	sent, back int64
	errs       [2]error
	sums       [2][sha256.Size]byte
	wg         sync.WaitGroup
}

// bulkRate is how many bytes a bulk connection sends in 10 ms.
const bulkRate = 1 << 14

func startBulk(w *labtest.World, addr string) *bulk {
	w.Helper()
	conn := w.Dial(w.Client, "tcp", addr)
	b := &bulk{addr: addr}
	b.wg.Go(func() {
		random, hash, buffer := rand.NewChaCha8([32]byte{'b', 'u', 'l', 'k'}), sha256.New(), make([]byte, bulkRate)
		for ; !b.stop.Load(); time.Sleep(10 * time.Millisecond) {
			_, _ = random.Read(buffer) // never fails
			hash.Write(buffer)
			n, err := conn.Write(buffer)
			b.sent += int64(n)
			if err != nil {
				b.errs[0] = err
				return
			}
		}
		b.sums[0] = [sha256.Size]byte(hash.Sum(nil))
		b.errs[0] = conn.(*net.TCPConn).CloseWrite()
	})
	b.wg.Go(func() {
		hash := sha256.New()
		b.back, b.errs[1] = io.Copy(hash, conn)
		b.sums[1] = [sha256.Size]byte(hash.Sum(nil))
	})
	return b
}

// end fails the test unless all bytes came back.
func (b *bulk) end(w *labtest.World) {
	w.Helper()
	b.stop.Store(true)
	b.wg.Wait()
	if err := errors.Join(b.errs[:]...); err != nil || b.sent != b.back || b.sums[0] != b.sums[1] || b.sent == 0 {
		w.Errorf("bulk to %s: sent %d bytes, %d came back, the same: %v (%v)", b.addr, b.sent, b.back, b.sums[0] == b.sums[1], err)
	}
	w.Logf("bulk to %s: %d MB", b.addr, b.sent/1e6)
}

// stream sends numbered datagrams at a steady rate and collects the answers.
type stream struct {
	conn   net.Conn
	stop   chan struct{}
	sent   int
	unsent []error

	sender, listener sync.WaitGroup

	mu    sync.Mutex
	heard map[string]int // answers by server
	seen  map[string]bool
}

// startStream sends datagrams of size bytes at least.
func startStream(w *labtest.World, from *lab.Node, addr string, size int) *stream {
	w.Helper()
	s := &stream{conn: w.Dial(from, "udp", addr), stop: make(chan struct{}), heard: map[string]int{}, seen: map[string]bool{}}
	w.Check(lab.RaiseReceiveBuffer(s.conn.(*net.UDPConn)))
	s.sender.Go(func() {
		for tick := time.NewTicker(10 * time.Millisecond); ; s.sent++ {
			select {
			case <-s.stop:
				return
			case <-tick.C:
				if _, err := fmt.Fprintf(s.conn, "datagram %d%*s", s.sent, size, ""); err != nil {
					s.unsent = append(s.unsent, fmt.Errorf("datagram %d: %w", s.sent, err))
				}
			}
		}
	})
	s.listener.Go(func() {
		buffer := make([]byte, 1<<16)
		for {
			n, err := s.conn.Read(buffer)
			if errors.Is(err, unix.ECONNREFUSED) {
				continue
			}
			if err != nil {
				return
			}
			words := strings.SplitN(string(buffer[:n]), " ", 3)
			s.mu.Lock()
			s.heard[words[0]]++
			s.seen[strings.TrimRight(words[2], " ")] = true
			s.mu.Unlock()
		}
	})
	return s
}

// end fails the test unless one server has answered each datagram.
func (s *stream) end(w *labtest.World) {
	w.Helper()
	close(s.stop)
	s.sender.Wait()
	err := lab.Eventually(labtest.Patience, func() error { // for the last answers
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.seen) != s.sent || len(s.heard) != 1 {
			return fmt.Errorf("%s to %s: %d datagrams of %d were answered, by %v", s.conn.LocalAddr(), s.conn.RemoteAddr(), len(s.seen), s.sent, s.heard)
		}
		return nil
	})
	if err != nil {
		w.Errorf("%v; not answered were %v, not sent %v", err, s.missing(), s.unsent)
	}
	w.Check(s.conn.SetReadDeadline(time.Now()))
	s.listener.Wait()
	w.Logf("stream to %s: %d datagrams, %d answered", s.conn.RemoteAddr(), s.sent, len(s.seen))
}

// missing returns the numbers of the datagrams that were not answered.
func (s *stream) missing() (numbers []int) {
	for i := range s.sent {
		if !s.seen[fmt.Sprintf("datagram %d", i)] {
			numbers = append(numbers, i)
		}
	}
	return numbers[:min(len(numbers), 20)]
}

// newcomers connect, send a question and close, one after the other.
type newcomers struct {
	addr   string
	stop   chan struct{}
	wg     sync.WaitGroup
	served int
	failed []error
}

func startNewcomers(from *lab.Node, addr string) *newcomers {
	n := &newcomers{addr: addr, stop: make(chan struct{})}
	n.wg.Go(func() {
		for ; ; time.Sleep(10 * time.Millisecond) {
			select {
			case <-n.stop:
				return
			default:
			}
			c, err := from.Dial("tcp", "", addr, labtest.Patience)
			if err == nil {
				_, err = lab.Ask(c, "new here", labtest.Patience)
				_ = c.Close()
			}
			if err != nil {
				n.failed = append(n.failed, err)
			} else {
				n.served++
			}
		}
	})
	return n
}

// end fails the test unless each of them was served.
func (n *newcomers) end(w *labtest.World) {
	w.Helper()
	close(n.stop)
	n.wg.Wait()
	if len(n.failed) > 0 || n.served == 0 {
		w.Errorf("to %s %d new connections were served, %d were not: %v", n.addr, n.served, len(n.failed), n.failed)
	}
	w.Logf("newcomers to %s: %d served, %d failed", n.addr, n.served, len(n.failed))
}

// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package client

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// What a load is: connections and sockets of the client, half of them of each family.
const (
	loadConnections = 20
	loadSockets     = 14
	datagramsEach   = 5 // a second: 70 of all
)

// load asks lab.Servers all the time, by connections and by sockets that stay.
type load struct {
	w    *world
	stop chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	flows    []*loadFlow
	problems []error // connections that broke, and what is wrong with answers
}

// loadFlow is one connection or socket.
type loadFlow struct {
	conn            net.Conn
	udp             bool
	asked, answered int
	// strange are answers of a server that saw somebody else.
	strange int
}

// startLoad starts a load on port 80 of the VIPs.
func (w *world) startLoad() *load {
	w.Helper()
	l := &load{w: w, stop: make(chan struct{})}
	w.Cleanup(l.end)
	for i := range loadConnections + loadSockets {
		network := map[bool]string{true: "tcp", false: "udp"}[i < loadConnections]
		c, err := w.dial(w.client, network, vip(4+i%2*2, 80))
		w.Check(err)
		f := &loadFlow{conn: c, udp: network == "udp"}
		l.flows = append(l.flows, f)
		if f.udp {
			w.Check(lab.RaiseReceiveBuffer(c.(*net.UDPConn)))
			l.wg.Go(func() { l.send(f) })
			l.wg.Go(func() { l.receive(f) })
		} else {
			l.wg.Go(func() { l.ask(f) })
		}
	}
	return l
}

// wait waits, and reports whether the load goes on.
func (l *load) wait(d time.Duration) bool {
	select {
	case <-l.stop:
		return false
	case <-time.After(d):
		return true
	}
}

// note records an answer, or that something is wrong.
func (l *load) note(f *loadFlow, seen string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.problems = append(l.problems, err)
		return
	}
	f.answered++
	if seen != f.conn.LocalAddr().String() {
		f.strange++
	}
}

// sent records a question and returns its number.
func (l *load) sent(f *loadFlow) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.asked++
	return f.asked
}

func (l *load) ask(f *loadFlow) {
	for l.wait(50 * time.Millisecond) {
		question := fmt.Sprintf("question %d", l.sent(f))
		a, err := lab.Ask(f.conn, question, 2*patience)
		if err == nil && a.Body != question {
			err = fmt.Errorf("answer to %q is about %q", question, a.Body)
		}
		l.note(f, a.Client, err)
		if err != nil {
			return
		}
	}
}

func (l *load) send(f *loadFlow) {
	for l.wait(time.Second / datagramsEach) {
		if _, err := fmt.Fprintf(f.conn, "%d", l.sent(f)); err != nil {
			l.note(f, "", fmt.Errorf("send datagram: %w", err))
		}
	}
}

func (l *load) receive(f *loadFlow) {
	buffer := make([]byte, 1<<16)
	for {
		n, err := f.conn.Read(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		var server, seen string
		var number int
		if err == nil {
			_, err = fmt.Sscan(string(buffer[:n]), &server, &seen, &number)
		}
		l.note(f, seen, err)
	}
}

// round waits until each connection and each socket has got n more answers.
func (l *load) round(n int) {
	l.w.Helper()
	l.mu.Lock()
	until := map[*loadFlow]int{}
	for _, f := range l.flows {
		until[f] = f.answered + n
	}
	l.mu.Unlock()
	l.w.Check(lab.Eventually(2*patience, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for f, want := range until {
			if f.answered < want {
				return fmt.Errorf("%s has %d answers, want %d; %w", f.conn.LocalAddr(), f.answered, want, errors.Join(l.problems...))
			}
		}
		return nil
	}))
}

// loadResult is what a load has come to.
type loadResult struct {
	// Broken are connections that failed, and errors of sockets.
	broken []error
	// lost are datagrams without an answer.
	asked, lost int
	// strange are answers of servers that did not see the client: those to segments, and
	// those to datagrams.
	strangeTCP, strangeUDP int
}

func (r loadResult) String() string {
	return fmt.Sprintf("%d broken, %d of %d datagrams lost, strange: %d segments, %d datagrams", len(r.broken), r.lost, r.asked, r.strangeTCP, r.strangeUDP)
}

// result returns what has come of the load since the last call.
func (l *load) result() (r loadResult) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.broken, l.problems = l.problems, nil
	for _, f := range l.flows {
		if !f.udp {
			r.strangeTCP += f.strange
		} else {
			r.asked += f.asked
			r.lost += f.asked - f.answered
			r.strangeUDP += f.strange
		}
		f.asked, f.answered, f.strange = f.asked-f.answered, 0, 0
	}
	return r
}

// finish ends the load, waits for the last answers and returns what has come of it.
func (l *load) finish() loadResult {
	l.w.Helper()
	close(l.stop)
	// An answer that does not come within this time is lost.
	_ = lab.Eventually(time.Second, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, f := range l.flows {
			if f.answered < f.asked {
				return errors.New("answers are missing")
			}
		}
		return nil
	})
	r := l.result()
	l.w.Logf("load: %v", r)
	return r
}

// end closes what a load has open.
func (l *load) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	for _, f := range l.flows {
		_ = f.conn.Close()
	}
	l.wg.Wait()
}

// stream is a download that has no end: numbers, one after the other.
type stream struct {
	conn net.Conn
	at   uint64
	// stall is the longest time that nothing came.
	stall time.Duration
}

// serveStreams has pod b1 send streams from port 9001.
func (w *world) serveStreams() {
	w.Helper()
	w.accept(w.b.pods[0], func(c net.Conn) {
		var at uint64
		buffer := make([]byte, 1<<16)
		for {
			for i := range buffer {
				buffer[i] = streamByte(at + uint64(i))
			}
			n, err := c.Write(buffer)
			at += uint64(n)
			if err != nil {
				return
			}
		}
	})
}

// streamByte returns a byte of a stream, which does not repeat with any packet's size.
func streamByte(at uint64) byte { return byte(at * 0x9e3779b97f4a7c15 >> 56) }

// openStream begins a download.
func (w *world) openStream(family int) *stream {
	w.Helper()
	c, err := w.dial(w.client, "tcp", vip(family, 9001))
	w.Check(err)
	w.Cleanup(func() { c.Close() })
	return &stream{conn: c}
}

// read reads so many bytes and compares them.
func (s *stream) read(size int) error {
	buffer := make([]byte, 1<<16)
	for size > 0 {
		start := time.Now()
		if err := s.conn.SetReadDeadline(start.Add(2 * patience)); err != nil {
			return err
		}
		n, err := s.conn.Read(buffer[:min(size, len(buffer))])
		s.stall = max(s.stall, time.Since(start))
		for i, b := range buffer[:n] {
			if b != streamByte(s.at+uint64(i)) {
				return fmt.Errorf("byte %d of a download is wrong", s.at+uint64(i))
			}
		}
		s.at += uint64(n)
		size -= n
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", s.at, err)
		}
	}
	return nil
}

// accept listens at TCP port 9001 of both addresses of a node until the test ends, and calls
// handle with each connection, which it closes then.
func (w *world) accept(n *lab.Node, handle func(net.Conn)) {
	w.Helper()
	for _, family := range []int{4, 6} {
		ln, err := n.Listen("tcp", at(own(n, family), 9001))
		w.Check(err)
		w.serveOn(ln, handle)
	}
}

func (w *world) serveOn(ln net.Listener, handle func(net.Conn)) {
	var mu sync.Mutex
	var open []io.Closer
	w.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range open {
			_ = c.Close()
		}
	})
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
}

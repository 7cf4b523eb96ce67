// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package upgrade

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// stream sends numbered datagrams at a steady rate and collects the answers.
type stream struct {
	conn net.Conn
	stop chan struct{}
	sent int

	sender, listener sync.WaitGroup

	mu    sync.Mutex
	heard map[string]int // answers by server
	seen  map[string]bool
}

func startStream(m *labtest.Managed, addr string) *stream {
	s := &stream{conn: m.Dial(m.Client, "udp", addr), stop: make(chan struct{}), heard: map[string]int{}, seen: map[string]bool{}}
	s.sender.Go(func() {
		for tick := time.NewTicker(4 * time.Millisecond); ; s.sent++ {
			select {
			case <-s.stop:
				return
			case <-tick.C:
				_, _ = fmt.Fprintf(s.conn, "datagram %d", s.sent) // end notices one that was not sent
			}
		}
	})
	s.listener.Go(func() {
		buffer := make([]byte, 1500)
		for {
			n, err := s.conn.Read(buffer)
			if err != nil {
				return
			}
			words := strings.SplitN(string(buffer[:n]), " ", 3)
			s.mu.Lock()
			s.heard[words[0]]++
			s.seen[words[2]] = true
			s.mu.Unlock()
		}
	})
	return s
}

// end fails the test unless one server has answered each datagram.
func (s *stream) end(m *labtest.Managed) {
	m.Helper()
	close(s.stop)
	s.sender.Wait()
	err := lab.Eventually(labtest.Patience, func() error { // for the last answers
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.seen) != s.sent || len(s.heard) != 1 || s.sent < 500 {
			return fmt.Errorf("%d datagrams of %d were answered, by %v", len(s.seen), s.sent, s.heard)
		}
		return nil
	})
	if err != nil {
		m.Error(err)
	}
	m.Check(s.conn.SetReadDeadline(time.Now()))
	s.listener.Wait()
	m.Logf("stream: %d datagrams, %d answered", s.sent, len(s.seen))
}

// newcomers connect, send a question and close, one after the other.
type newcomers struct {
	stop   chan struct{}
	wg     sync.WaitGroup
	served int
	failed []error
}

func startNewcomers(m *labtest.Managed, addr string) *newcomers {
	n := &newcomers{stop: make(chan struct{})}
	n.wg.Go(func() {
		for ; ; time.Sleep(3 * time.Millisecond) {
			select {
			case <-n.stop:
				return
			default:
			}
			c, err := m.Client.Dial("tcp", "", addr, labtest.Patience)
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
func (n *newcomers) end(m *labtest.Managed) {
	m.Helper()
	close(n.stop)
	n.wg.Wait()
	if len(n.failed) > 0 || n.served < 50 {
		m.Errorf("%d new connections were served, %d were not: %v", n.served, len(n.failed), n.failed)
	}
	m.Logf("newcomers: %d served, %d failed", n.served, len(n.failed))
}

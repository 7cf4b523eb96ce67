// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

// load is a steady load from outside: connections to servers that echo, and datagrams
// that are answered.
type load struct {
	stop   chan struct{}
	once   sync.Once
	ended  sync.WaitGroup
	rounds []*atomic.Int64 // of each connection
	asked  []*atomic.Int64 // datagrams of each socket that were answered, or are lost
	sent   atomic.Int64
	lost   atomic.Int64

	mu         sync.Mutex
	broken     []error
	unanswered []error // of the lost datagrams
}

// startLoad opens ten connections to port 8081 of each address, whose servers echo, and
// sends questions by UDP to port 80, until the load is ended.
func startLoad(t *testing.T, addresses []string) *load {
	t.Helper()
	return startLoadAt(t, addresses, "8081", "80")
}

// startLoadAt is startLoad with other ports.
func startLoadAt(t *testing.T, addresses []string, echoes, answers string) *load {
	t.Helper()
	l := &load{stop: make(chan struct{})}
	for _, ip := range addresses {
		for i := range 10 {
			conn, err := outside().Dial("tcp", "", net.JoinHostPort(ip, echoes), 2*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			l.start(conn, fmt.Sprintf("connection %d to %s", i, ip))
		}
		conn, err := outside().Dial("udp", "", net.JoinHostPort(ip, answers), 2*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		asked := &atomic.Int64{}
		l.asked = append(l.asked, asked)
		l.ended.Go(func() { l.send(conn, asked) })
	}
	return l
}

// start has a connection ask until the load is ended.
func (l *load) start(conn net.Conn, name string) {
	rounds := &atomic.Int64{}
	l.rounds = append(l.rounds, rounds)
	l.ended.Go(func() { l.keep(conn, rounds, name) })
}

func (l *load) over() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

func (l *load) keep(conn net.Conn, rounds *atomic.Int64, name string) {
	defer func() {
		_ = conn.(*net.TCPConn).SetLinger(0) // a reset ends the flow at once
		_ = conn.Close()
	}()
	for ; !l.over(); time.Sleep(20 * time.Millisecond) {
		if err := echo(conn, 10*time.Second); err != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.broken = append(l.broken, fmt.Errorf("%s, after %d rounds: %w", name, rounds.Load(), err))
			return
		}
		rounds.Add(1)
	}
}

// send waits longer for each answer than a busy machine may take: a late answer is not
// lost.
func (l *load) send(conn net.Conn, asked *atomic.Int64) {
	defer conn.Close()
	for ; !l.over(); time.Sleep(10 * time.Millisecond) {
		l.sent.Add(1)
		at := time.Now()
		if err := echo(conn, 10*time.Second); err != nil {
			l.lost.Add(1)
			l.mu.Lock()
			l.unanswered = append(l.unanswered, fmt.Errorf("datagram to %s, sent at %s: %w", conn.RemoteAddr(), at.Format("15:04:05.000"), err))
			l.mu.Unlock()
		}
		asked.Add(1)
	}
}

// during does something to the cluster, and fails the test unless every connection goes
// on and every datagram is answered.
func (l *load) during(t *testing.T, do func()) {
	t.Helper()
	start, sent, lost := time.Now(), l.sent.Load(), l.lost.Load()
	do()
	// What became of datagrams that are on their way has to be known as well: else what comes next is blamed.
	all := slices.Concat(l.rounds, l.asked)
	before := make([]int64, len(all))
	for i, r := range all {
		before[i] = r.Load()
	}
	kube.Wait(t, patience, "whether each connection went on, and what became of each datagram", true, func() (bool, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		on := true
		for i, r := range all {
			on = on && r.Load() > before[i]+1
		}
		return on || len(l.broken) > 0, nil
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Logf("%.1f s: %d of %d connections broken, %d of %d datagrams lost", time.Since(start).Seconds(), len(l.broken), len(l.rounds), l.lost.Load()-lost, l.sent.Load()-sent)
	if err := errors.Join(l.broken...); err != nil {
		t.Error(err)
	}
	if l.lost.Load() != lost {
		t.Errorf("began at %s, and %d datagrams were not answered: %v", start.Format("15:04:05.000"), l.lost.Load()-lost, errors.Join(l.unanswered...))
		l.unanswered = nil
	}
}

// end closes all connections.
func (l *load) end() {
	l.once.Do(func() { close(l.stop) })
	l.ended.Wait()
}

// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"fmt"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// load is connections that stay, and ask all the time.
type load struct {
	pair   *pair
	ending chan struct{}
	done   sync.WaitGroup

	mu      sync.Mutex
	answers int
	by      map[net.Conn]int
	lost    []string
}

// startLoad opens two connections of each kind.
func (p *pair) startLoad() *load {
	p.Helper()
	l := &load{pair: p, ending: make(chan struct{}), by: map[net.Conn]int{}}
	p.each(func(what, network string, family, port int) {
		for range 2 {
			conn, err := p.dial(network, labtest.At(vips[family], port))
			p.check(err)
			_, err = lab.Ask(conn, "hello", labtest.Patience)
			p.check(err)
			l.done.Go(func() { l.run(what, network, conn) })
		}
	})
	p.Cleanup(func() { l.end() })
	return l
}

func (l *load) run(what, network string, conn net.Conn) {
	defer conn.Close()
	for n := 0; ; n++ {
		select {
		case <-l.ending:
			return
		case <-time.After(20 * time.Millisecond):
		}
		body := fmt.Sprint("question ", n)
		answer, err := lab.Ask(conn, body, labtest.Patience)
		if err == nil && answer.Body != body {
			err = fmt.Errorf("answer to %q is about %q", body, answer.Body)
		}
		l.mu.Lock()
		l.answers++
		l.by[conn]++
		if err != nil {
			l.lost = append(l.lost, fmt.Sprintf("%s: question %d: %v", what, n, err))
		}
		l.mu.Unlock()
		if err != nil && network == "tcp" {
			return
		}
	}
}

// awaitRound waits until each connection has got two more answers, or has failed.
func (l *load) awaitRound() {
	l.pair.Helper()
	l.mu.Lock()
	before := maps.Clone(l.by)
	l.mu.Unlock()
	l.pair.check(lab.Eventually(4*labtest.Patience, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.lost) > 0 {
			return nil
		}
		for conn, n := range before {
			if l.by[conn] < n+2 {
				return fmt.Errorf("%s %s has got %d answers", conn.LocalAddr().Network(), conn.LocalAddr(), l.by[conn])
			}
		}
		return nil
	}))
}

func (l *load) end() {
	select {
	case <-l.ending:
	default:
		close(l.ending)
	}
	l.done.Wait()
}

// stop ends the load, and fails the test if it has lost anything.
func (l *load) stop(when string) {
	l.pair.Helper()
	l.end()
	if l.answers == 0 || len(l.lost) > 0 {
		l.pair.Errorf("%s: of %d questions are lost: %q", when, l.answers, l.lost)
	}
}

// checkSeenByAnyone fails the test unless all connections work, whomever servers see.
func (p *pair) checkSeenByAnyone(when string) {
	p.Helper()
	p.each(func(what, network string, family, port int) {
		for range 10 {
			if _, _, err := p.seen(network, family, port, "who"); err != nil {
				p.Errorf("%s: %s: %v", when, what, err)
				return
			}
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// crowd is clients that keep a connection each and ask on it all the time.
type crowd struct {
	w    *world
	name string
	stop chan struct{}
	wg   sync.WaitGroup
	// think is a member's pause between two questions.
	think time.Duration

	mu    sync.Mutex
	lives map[*member]bool
	// broken are those whose connection failed since the last call of losses.
	broken []*member
}

// member is a client of the crowd.
type member struct {
	conn net.Conn
	// server answered last; moved counts how often another took over, unheard
	// the datagrams without an answer.
	server         string
	moved, unheard int
	asked          int
	err            error
}

// newCrowd opens n connections, one after the other to each address.
func (w *world) newCrowd(n int, network string, addrs ...string) *crowd {
	w.Helper()
	c := &crowd{w: w, name: network, stop: make(chan struct{}), lives: map[*member]bool{}}
	c.think = max(30*time.Millisecond, time.Duration(n)*time.Second/busiest)
	for i := range n {
		conn := w.dial(w.Client, network, addrs[i%len(addrs)])
		m := &member{conn: conn, server: w.ask(conn, "hello").Server}
		c.lives[m] = true
	}
	for m := range c.lives {
		c.wg.Go(func() { c.live(m) })
	}
	w.Cleanup(c.end)
	return c
}

// busiest is how many questions a crowd asks in a second, at most.
const busiest = 2000

func (c *crowd) live(m *member) {
	for i := 0; ; i++ {
		select {
		case <-c.stop:
			return
		case <-time.After(c.think):
		}
		body := fmt.Sprintf("question %d", i)
		a, err := lab.Ask(m.conn, body, c.limit())
		unheard := c.name == "udp" && errors.Is(err, os.ErrDeadlineExceeded)
		if unheard { // once
			a, err = lab.Ask(m.conn, body, patience)
		}
		if err == nil && a.Body != body {
			err = fmt.Errorf("answer to %q is about %q", body, a.Body)
		}
		c.mu.Lock()
		if unheard {
			m.unheard++
		}
		if err != nil {
			m.err = err
			delete(c.lives, m)
			c.broken = append(c.broken, m)
			c.mu.Unlock()
			return
		}
		m.asked++
		if a.Server != m.server {
			m.server = a.Server
			m.moved++
		}
		c.mu.Unlock()
	}
}

// limit is how long an answer may take.
func (c *crowd) limit() time.Duration {
	if c.name == "udp" {
		return patience / 4
	}
	return patience
}

// end has the crowd go home.
func (c *crowd) end() {
	c.mu.Lock()
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	c.mu.Unlock()
	c.wg.Wait()
}

// leave has the crowd go home and closes its connections.
func (c *crowd) leave() {
	c.end()
	for m := range c.lives {
		c.w.check(m.conn.Close())
	}
}

// with returns how many connections each server has.
func (c *crowd) with() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := map[string]int{}
	for m := range c.lives {
		n[m.server]++
	}
	return n
}

// round waits until every member has asked twice more: whatever was to break
// has broken.
func (c *crowd) round() {
	c.w.Helper()
	c.mu.Lock()
	until := map[*member]int{}
	for m := range c.lives {
		until[m] = m.asked + 2
	}
	c.mu.Unlock()
	c.w.check(lab.Eventually(2*patience, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for m := range c.lives {
			if m.asked < until[m] {
				return fmt.Errorf("%s %s: %d answers, want %d", c.name, m.conn.LocalAddr(), m.asked, until[m])
			}
		}
		return nil
	}))
}

// losses returns who has lost the connection since the last call, by server.
func (c *crowd) losses() map[string][]error {
	c.mu.Lock()
	defer c.mu.Unlock()
	lost := map[string][]error{}
	for _, m := range c.broken {
		lost[m.server] = append(lost[m.server], m.err)
	}
	c.broken = nil
	return lost
}

// moves returns how many members have got another server since the last call,
// and how many datagrams had no answer.
func (c *crowd) moves() (moved, unheard int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for m := range c.lives {
		moved += m.moved
		unheard += m.unheard
		m.moved, m.unheard = 0, 0
	}
	return moved, unheard
}

// unharmed fails the test if anybody has lost the connection, or got another
// server, since the last look.
func (c *crowd) unharmed(what string) {
	c.w.Helper()
	c.round()
	for server, errs := range c.losses() {
		c.w.Errorf("%s: %d %s connections of %s broke: %v", what, len(errs), c.name, server, errs[0])
	}
	if moved, unheard := c.moves(); moved+unheard > 0 {
		c.w.Errorf("%s: %d %s clients got another server, %d datagrams had no answer", what, moved, c.name, unheard)
	}
}

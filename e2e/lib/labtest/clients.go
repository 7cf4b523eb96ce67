// SPDX-License-Identifier: Apache-2.0

package labtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// Clients keep a connection each and send questions on it all the time.
type Clients struct {
	World   *World
	network string
	stop    chan struct{}
	wg      sync.WaitGroup
	// pause is a client's pause between two questions.
	pause time.Duration

	mu sync.Mutex
	// Alive are those whose connection has not failed.
	Alive map[*Client]bool
	// broken are those whose connection has failed since the last call of Lost.
	broken []*Client
}

// Client is one of Clients.
type Client struct {
	Conn net.Conn
	// Server is the one that has answered last.
	Server string
	// moved counts how often another server answered than before, unanswered the
	// datagrams without an answer.
	moved, unanswered int
	answers           int
	err               error
}

// StartClients opens n connections, one after the other to each address.
func (w *World) StartClients(n int, network string, addrs ...string) *Clients {
	w.Helper()
	c := &Clients{World: w, network: network, stop: make(chan struct{}), Alive: map[*Client]bool{}}
	c.pause = max(30*time.Millisecond, time.Duration(n)*time.Second/maxRate)
	for i := range n {
		conn := w.Dial(w.Client, network, addrs[i%len(addrs)])
		m := &Client{Conn: conn, Server: w.Ask(conn, "hello").Server}
		c.Alive[m] = true
	}
	for m := range c.Alive {
		c.wg.Go(func() { c.run(m) })
	}
	w.Cleanup(c.Stop)
	return c
}

// maxRate is how many questions all Clients send in a second, at most.
const maxRate = 2000

func (c *Clients) run(m *Client) {
	for i := 0; ; i++ {
		select {
		case <-c.stop:
			return
		case <-time.After(c.pause):
		}
		body := fmt.Sprintf("question %d", i)
		a, err := lab.Ask(m.Conn, body, c.limit())
		unanswered := c.network == "udp" && errors.Is(err, os.ErrDeadlineExceeded)
		if unanswered { // try once more
			a, err = lab.Ask(m.Conn, body, Patience)
		}
		if err == nil && a.Body != body {
			err = fmt.Errorf("answer to %q is about %q", body, a.Body)
		}
		c.mu.Lock()
		if unanswered {
			m.unanswered++
		}
		if err != nil {
			m.err = err
			delete(c.Alive, m)
			c.broken = append(c.broken, m)
			c.mu.Unlock()
			return
		}
		m.answers++
		if a.Server != m.Server {
			m.Server = a.Server
			m.moved++
		}
		c.mu.Unlock()
	}
}

// limit is how long an answer may take.
func (c *Clients) limit() time.Duration {
	if c.network == "udp" {
		return Patience / 4
	}
	return Patience
}

// Stop ends the questions and leaves the connections open.
func (c *Clients) Stop() {
	c.mu.Lock()
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	c.mu.Unlock()
	c.wg.Wait()
}

// Close ends the questions and closes the connections.
func (c *Clients) Close() {
	c.Stop()
	for m := range c.Alive {
		c.World.Check(m.Conn.Close())
	}
}

// ByServer returns how many connections each server has.
func (c *Clients) ByServer() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := map[string]int{}
	for m := range c.Alive {
		n[m.Server]++
	}
	return n
}

// AwaitRound waits until every client has got two more answers. A connection that a
// change breaks has failed by then.
func (c *Clients) AwaitRound() {
	c.World.Helper()
	c.mu.Lock()
	until := map[*Client]int{}
	for m := range c.Alive {
		until[m] = m.answers + 2
	}
	c.mu.Unlock()
	c.World.Check(lab.Eventually(2*Patience, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for m := range c.Alive {
			if m.answers < until[m] {
				return fmt.Errorf("%s %s: %d answers, want %d", c.network, m.Conn.LocalAddr(), m.answers, until[m])
			}
		}
		return nil
	}))
}

// Lost returns why connections have failed since the last call, by server.
func (c *Clients) Lost() map[string][]error {
	c.mu.Lock()
	defer c.mu.Unlock()
	lost := map[string][]error{}
	for _, m := range c.broken {
		lost[m.Server] = append(lost[m.Server], m.err)
	}
	c.broken = nil
	return lost
}

// Moved returns how often clients have got another server since the last call, and
// how many datagrams had no answer.
func (c *Clients) Moved() (moved, unanswered int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for m := range c.Alive {
		moved += m.moved
		unanswered += m.unanswered
		m.moved, m.unanswered = 0, 0
	}
	return moved, unanswered
}

// CheckUnharmed fails the test if a client has lost its connection or got another
// server since the last check.
func (c *Clients) CheckUnharmed(what string) {
	c.World.Helper()
	c.AwaitRound()
	for server, errs := range c.Lost() {
		c.World.Errorf("%s: %d %s connections of %s broke: %v", what, len(errs), c.network, server, errs[0])
	}
	if moved, unanswered := c.Moved(); moved+unanswered > 0 {
		c.World.Errorf("%s: %d %s clients got another server, %d datagrams had no answer", what, moved, c.network, unanswered)
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package soak

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// frontends are those of each group.
var frontends = map[string][]string{
	"routed":  {labtest.At(lab.VIP4, 80), labtest.At(lab.VIP6, 80)},
	"onlink":  {labtest.At(onLink4, 80), labtest.At(onLink6, 80)},
	"host":    {"10.66.0.1:8081", "[fd66::1]:8081"},
	"default": {"10.66.0.1:8082", "[fd66::1]:8082"},
	"spare":   {labtest.At(spare4, 80), labtest.At(spare6, 80)},
}

// all names every group.
var all = []string{"routed", "onlink", "host", "default", "spare"}

const (
	// askEvery is how often a busy visitor asks.
	askEvery = 100 * time.Millisecond
	// repeatAfter is how long a visitor waits for the answer to a datagram.
	repeatAfter = 500 * time.Millisecond
)

// visitors have connections to all frontends: of each protocol one that is in use all
// the time, and one that is not until it is asked.
type visitors struct {
	h   *host
	all []*visitor
	end chan struct{}
	wg  sync.WaitGroup
	// datagrams counts those that were sent, repeated those without an answer.
	datagrams, repeated atomic.Int64
}

// visitor has a connection.
type visitor struct {
	group, network, addr string
	idle                 bool

	mu     sync.Mutex
	conn   net.Conn
	server string
	asked  int
	broken error
	since  time.Time
}

func (v *visitor) String() string {
	kind := "busy"
	if v.idle {
		kind = "idle"
	}
	return fmt.Sprintf("%s %s connection to %s (%s)", kind, v.network, v.addr, v.group)
}

func (h *host) startVisitors() *visitors {
	vs := &visitors{h: h, end: make(chan struct{})}
	for _, group := range all {
		for _, addr := range frontends[group] {
			for _, network := range []string{"tcp", "udp"} {
				for _, idle := range []bool{false, true} {
					v := &visitor{group: group, network: network, addr: addr, idle: idle}
					h.check(v.String(), vs.open(v))
					vs.all = append(vs.all, v)
				}
			}
		}
	}
	for _, v := range vs.all {
		if !v.idle {
			vs.wg.Go(func() { vs.keepAsking(v) })
		}
	}
	return vs
}

// stop ends all questions and connections.
func (vs *visitors) stop() {
	close(vs.end)
	vs.wg.Wait()
	for _, v := range vs.all {
		_ = v.conn.Close() // it may be broken
	}
}

// open connects, and learns who answers.
func (vs *visitors) open(v *visitor) error {
	conn, server, err := vs.h.visit(v.network, v.addr)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.conn != nil {
		_ = v.conn.Close() // it is broken
	}
	v.conn, v.server, v.broken = conn, server, nil
	return nil
}

// visit connects and asks.
func (h *host) visit(network, addr string) (net.Conn, string, error) {
	local := ""
	if network == "udp" { // else the flow of an earlier socket might go on
		local = fmt.Sprintf(":%d", labtest.NewPort())
	}
	conn, err := h.client.Dial(network, local, addr, patience)
	if err != nil {
		return nil, "", err
	}
	a, err := lab.Ask(conn, "who?", patience)
	if err != nil {
		return nil, "", errors.Join(err, conn.Close())
	}
	return conn, a.Server, nil
}

func (vs *visitors) keepAsking(v *visitor) {
	for {
		select {
		case <-vs.end:
			return
		case <-time.After(askEvery):
			vs.ask(v)
		}
	}
}

// ask asks a question, unless the connection is broken.
func (vs *visitors) ask(v *visitor) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.broken != nil {
		return
	}
	v.asked++
	body, began := fmt.Sprintf("question %d", v.asked), time.Now()
	var a lab.Answer
	var err error
	if v.network == "tcp" {
		a, err = lab.Ask(v.conn, body, patience)
	} else {
		a, err = vs.askDatagram(v.conn, body)
	}
	if err == nil && a.Server != v.server {
		err = fmt.Errorf("%s answers, no longer %s", a.Server, v.server)
	}
	if err != nil {
		v.broken, v.since = fmt.Errorf("question %d from %s, asked at %s: %w", v.asked, v.conn.LocalAddr(), began.Format("15:04:05.000"), err), time.Now()
	}
}

// askDatagram repeats a datagram until it is answered. Only who is refused gives up:
// that a host cannot be reached may pass.
func (vs *visitors) askDatagram(conn net.Conn, body string) (a lab.Answer, err error) {
	for began := time.Now(); time.Since(began) < patience; {
		vs.datagrams.Add(1)
		a, err = lab.Ask(conn, body, repeatAfter)
		if err == nil || errors.Is(err, syscall.ECONNREFUSED) {
			return a, err
		}
		vs.repeated.Add(1)
		time.Sleep(askEvery)
	}
	return a, err
}

// check fails the test if a connection to a group that was not named is broken. It
// opens those of other groups again.
func (vs *visitors) check(what string, named []string, mark time.Time) {
	vs.h.t.Helper()
	for _, v := range vs.all {
		vs.ask(v)
	}
	for _, v := range vs.all {
		v.mu.Lock()
		broken, since := v.broken, v.since
		v.mu.Unlock()
		if broken == nil {
			continue
		}
		if !slices.Contains(named, v.group) {
			vs.h.t.Errorf("%s: the %s broke, %s after it: %v", what, v, since.Sub(mark).Round(time.Millisecond), broken)
		} else if err := vs.open(v); err != nil {
			vs.h.t.Errorf("%s: once it is mended, a new %s fails: %v", what, v, err)
		}
	}
}

// checkNewcomers fails the test unless who comes now is served by all groups that are
// not named.
func (vs *visitors) checkNewcomers(what string, named []string) {
	vs.h.t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed []string
	for _, group := range all {
		if slices.Contains(named, group) {
			continue
		}
		for _, addr := range frontends[group] {
			for _, network := range []string{"tcp", "udp"} {
				wg.Go(func() {
					conn, _, err := vs.h.visit(network, addr)
					if err == nil {
						err = conn.Close()
					}
					if err != nil {
						mu.Lock()
						failed = append(failed, fmt.Sprintf("%s %s (%s): %v", network, addr, group, err))
						mu.Unlock()
					}
				})
			}
		}
	}
	wg.Wait()
	if len(failed) > 0 {
		vs.h.t.Errorf("%s, new connections fail:\n%s", what, strings.Join(failed, "\n"))
	}
}

// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/node/clock"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

const (
	// writeLimit is how long a message may wait for room in the manager's socket.
	writeLimit = time.Second
	// againEvery is how often what could not be told is told again.
	againEvery = time.Second
	// longestStatus is in bytes.
	longestStatus = 500
)

// Manager is the service manager, by the protocol of sd_notify(3). Its methods but Run
// and Stopping only note what there is to tell, so that nobody waits for a manager that
// does not read. Run tells the newest of it, and again what has failed. Without
// $NOTIFY_SOCKET nothing is told.
type Manager struct {
	socket string
	// watchdog is within which time the manager wants to hear that the process is
	// alive; 0: it does not.
	watchdog time.Duration
	changed  chan struct{}

	mu sync.Mutex
	state
	told     state // of this, what the manager has heard
	stopping bool
}

type state struct {
	ready  bool
	reload string // the message that the last reload began
	status string
}

// NewManager returns the manager that the environment names.
func NewManager() *Manager {
	m := &Manager{socket: os.Getenv("NOTIFY_SOCKET"), changed: make(chan struct{}, 1)}
	// A shell passes the variables of the watchdog on, with the shell's pid.
	if pid := os.Getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		if usec, err := strconv.ParseUint(os.Getenv("WATCHDOG_USEC"), 10, 63); err == nil {
			m.watchdog = time.Duration(min(usec, uint64(24*time.Hour/time.Microsecond))) * time.Microsecond
		}
	}
	return m
}

func (m *Manager) set(change func(*state)) {
	m.mu.Lock()
	change(&m.state)
	m.mu.Unlock()
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// Ready tells that the start is complete.
func (m *Manager) Ready() { m.set(func(s *state) { s.ready = true }) }

// Reloading tells that a reload has begun, and done that it is complete. Before the start
// is, there is nothing to tell.
func (m *Manager) Reloading() (done func()) {
	now := clock.Monotonic()
	done = func() {}
	m.set(func(s *state) {
		if s.ready {
			s.ready, s.reload = false, fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Microseconds())
			done = m.Ready
		}
	})
	return done
}

// Status tells people how the process does. The text may come from anybody: it is one
// line of a limited length, and never another assignment.
func (m *Manager) Status(text string) {
	text = phrase.Clip(phrase.Printable(text), longestStatus)
	m.set(func(s *state) { s.status = text })
}

// Run tells the manager until ctx ends. alive returns when the process has made
// progress: the manager restarts a process of which it hears nothing for too long. result
// is called with the outcome of each attempt to tell something.
func (m *Manager) Run(ctx context.Context, alive func(), result func(error)) {
	if m.socket == "" {
		return
	}
	if m.watchdog > 0 {
		go m.feed(ctx, alive, result) // it may wait for alive for ever
	}
	for {
		err := m.tell()
		result(err)
		var again <-chan time.Time
		if err != nil {
			again = time.After(againEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-m.changed:
		case <-again:
		}
	}
}

// feed feeds the watchdog.
func (m *Manager) feed(ctx context.Context, alive func(), result func(error)) {
	for tick := time.NewTicker(max(m.watchdog/3, time.Millisecond)); ; {
		alive()
		if ctx.Err() != nil {
			return
		}
		result(m.send("WATCHDOG=1"))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tell tells what the manager has not heard yet.
func (m *Manager) tell() error {
	m.mu.Lock()
	now, told := m.state, m.told
	m.mu.Unlock()
	heard := func(s state) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.told = s
	}
	if now.reload != told.reload {
		if err := m.send(now.reload); err != nil {
			return err
		}
		told.reload, told.ready = now.reload, false
		heard(told)
	}
	message := ""
	if now.ready && !told.ready {
		message = "READY=1\n"
	}
	if now.status != told.status {
		message += "STATUS=" + now.status + "\n"
	}
	if message == "" {
		return nil
	}
	if err := m.send(message); err != nil {
		return err
	}
	heard(now)
	return nil
}

// Stopping tells at once that the process is ending. Nothing else is told from then on.
func (m *Manager) Stopping() error {
	if m.socket == "" {
		return nil
	}
	err := m.send("STOPPING=1\nSTATUS=ending")
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopping = true
	return err
}

// send sends a message. If the manager's socket is full, it waits a moment for room.
func (m *Manager) send(message string) error {
	m.mu.Lock()
	stopping := m.stopping
	m.mu.Unlock()
	if stopping {
		return nil
	}
	// The net package turns a leading @ into the zero byte of an abstract socket.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	if err = c.SetWriteDeadline(time.Now().Add(writeLimit)); err == nil {
		_, err = c.Write([]byte(message))
	}
	if err = errors.Join(err, c.Close()); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

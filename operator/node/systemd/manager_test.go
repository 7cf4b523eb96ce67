// SPDX-License-Identifier: Apache-2.0

package systemd

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what takes a moment on an idle machine.
const patience = time.Minute

// service is a service manager of a test.
type service struct {
	*testing.T
	socket *net.UnixConn
}

func newService(t *testing.T, name string) service {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return service{t, c}
}

// hears returns the next message.
func (s service) hears() string {
	s.Helper()
	if err := s.socket.SetReadDeadline(time.Now().Add(patience)); err != nil {
		s.Fatal(err)
	}
	text := make([]byte, 4096)
	n, err := s.socket.Read(text)
	if err != nil {
		s.Fatal(err)
	}
	return string(text[:n])
}

// wants fails the test unless all the messages that come, put together, are these.
func (s service) wants(want string) {
	s.Helper()
	got := ""
	for len(got) < len(want) {
		if got += s.hears(); !strings.HasPrefix(want, got) {
			break
		}
	}
	if got != want {
		s.Fatalf("heard %q, want %q", got, want)
	}
}

// fill leaves no room in the socket.
func (s service) fill(name string) {
	s.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		s.Fatal(err)
	}
	defer unix.Close(fd)
	for {
		if err := unix.Sendto(fd, []byte("of others"), 0, &unix.SockaddrUnix{Name: name}); errors.Is(err, unix.EAGAIN) {
			return
		} else if err != nil {
			s.Fatal(err)
		}
	}
}

// run runs the manager until the test ends. It returns the errors.
func run(t *testing.T, m *Manager, alive func()) <-chan error {
	t.Helper()
	results := make(chan error, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		m.Run(ctx, alive, func(err error) {
			select {
			case results <- err:
			default:
			}
		})
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return results
}

var usec = regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*$`)

func TestManagerHearsHowTheProcessDoes(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), "@blixt-test-notify-" + strconv.Itoa(os.Getpid())} {
		t.Run(name[:1], func(t *testing.T) {
			s := newService(t, name)
			m := NewManager()
			run(t, m, func() {})
			m.Reloading()() // before it is ready: nothing
			m.Status("loading")
			s.wants("STATUS=loading\n")
			m.Ready()
			s.wants("READY=1\n")
			m.Status("loading")
			m.Status("serving")
			s.wants("STATUS=serving\n")
			done := m.Reloading()
			if got := s.hears(); !usec.MatchString(got) {
				t.Fatalf("heard %q", got)
			}
			done()
			s.wants("READY=1\n")
			m.Reloading()() // both before anything is told
			if got := s.hears(); !usec.MatchString(got) {
				t.Fatalf("heard %q", got)
			}
			s.wants("READY=1\n")
			if err := m.Stopping(); err != nil {
				t.Error(err)
			}
			s.wants("STOPPING=1\nSTATUS=ending")
			m.Status("too late")
			if err := m.send("too late"); err != nil {
				t.Error(err)
			}
			s.socket.SetReadDeadline(time.Now()) //nolint:errcheck // the read below fails
			if n, err := s.socket.Read(make([]byte, 100)); err == nil {
				t.Errorf("%d bytes after the end", n)
			}
		})
	}
}

// A manager that does not read delays nobody, and hears the newest when it reads again.
func TestManagerThatDoesNotReadIsToldLater(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	s := newService(t, name)
	s.fill(name)
	m := NewManager()
	m.Ready()
	m.Status("serving 1")
	results := run(t, m, func() {})
	if err := <-results; err == nil {
		t.Fatal("there is no room, and it is no error")
	}
	for range 1000 {
		m.Reloading()()
	}
	m.Status("serving 2")
	if err := NewManager().Stopping(); err == nil {
		t.Error("the end was told without room")
	}
	m.Status("serving 3")
	var heard []string
	for len(heard) == 0 || !strings.Contains(heard[len(heard)-1], "serving 3") {
		if text := s.hears(); text != "of others" {
			heard = append(heard, text)
		}
	}
	if all := strings.Join(heard, "|"); len(heard) > 4 || !strings.Contains(all, "READY=1\n") || !strings.Contains(all, "RELOADING=1") {
		t.Errorf("heard %q", heard)
	}
}

func TestManagerThatIsNotThere(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	t.Setenv("NOTIFY_SOCKET", name)
	m := NewManager()
	m.Ready()
	results := run(t, m, func() {})
	if err := <-results; err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("nobody listens: %v", err)
	}
	s := newService(t, name) // it is back
	s.wants("READY=1\n")

	os.Unsetenv("NOTIFY_SOCKET")
	m = NewManager()
	m.Ready()
	m.Status("serving")
	m.Run(t.Context(), func() { t.Error("there is no watchdog") }, func(err error) { t.Error(err) })
	if err := m.Stopping(); err != nil {
		t.Error(err)
	}
}

// What others have written, such as the name of a file, is no message of its own.
func TestStatusIsOneAssignment(t *testing.T) {
	s := newService(t, filepath.Join(t.TempDir(), "notify"))
	m := NewManager()
	run(t, m, func() {})
	m.Status("file a\nMAINPID=1\r\nREADY=1\x00\x1b[2J" + strings.Repeat("long ", 1000))
	got := s.hears()
	if strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, `STATUS=file a\nMAINPID=1`) || strings.ContainsAny(got, "\x00\x1b\r") || len(got) > 2*longestStatus {
		t.Errorf("heard %q", got)
	}
}

// A process that hangs does not feed the watchdog.
func TestWatchdogIsFedByProgress(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "3000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	s := newService(t, filepath.Join(t.TempDir(), "notify"))
	progress := make(chan struct{})
	t.Cleanup(func() { close(progress) })
	run(t, NewManager(), func() { <-progress })
	for range 3 {
		progress <- struct{}{}
		s.wants("WATCHDOG=1")
	}
	s.socket.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) //nolint:errcheck // the read below fails
	if n, err := s.socket.Read(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes without progress", n)
	}
	for _, env := range [][2]string{{"WATCHDOG_PID", "1"}, {"WATCHDOG_USEC", "x"}, {"WATCHDOG_USEC", "-1"}, {"WATCHDOG_USEC", ""}} {
		t.Run(env[0]+env[1], func(t *testing.T) {
			t.Setenv(env[0], env[1])
			if m := NewManager(); m.watchdog != 0 {
				t.Errorf("a watchdog of %s", m.watchdog)
			}
		})
	}
}

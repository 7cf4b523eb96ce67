// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long anything may take on a busy machine that is immediate on an
// idle one.
const patience = 5 * time.Second

// parallel is how many short connections are open at a time.
const parallel = 64

// connections opens short connections for a while and returns how many were served in a
// second. Each sends a byte and gets one; then the server ends it.
func (w *world) connections(to string, during time.Duration) (rate float64, err error) {
	at := netip.MustParseAddrPort(to)
	address := &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	served := w.server.short.Load()
	done := 0
	var took time.Duration
	err = w.client.Do(func() error {
		poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(poll)
		open := map[int32]bool{}
		defer func() {
			for fd := range open {
				_ = unix.Close(int(fd))
			}
		}()
		begin := func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			open[int32(fd)] = true
			if err := unix.Connect(fd, address); err != nil && !errors.Is(err, unix.EINPROGRESS) {
				return fmt.Errorf("connect: %w", err)
			}
			return unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(fd)})
		}
		for range parallel {
			if err := begin(); err != nil {
				return err
			}
		}
		request, buffer := []byte{wantsByte}, make([]byte, 8)
		events := make([]unix.EpollEvent, parallel)
		started := time.Now()
		for len(open) > 0 {
			n, err := unix.EpollWait(poll, events, int(patience/time.Millisecond))
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return err
			}
			if n == 0 {
				return fmt.Errorf("%d connections are not served", len(open))
			}
			for _, e := range events[:n] {
				if e.Events&unix.EPOLLOUT != 0 {
					if _, err := unix.Write(int(e.Fd), request); err != nil {
						return fmt.Errorf("send: %w", err)
					}
					if err := unix.EpollCtl(poll, unix.EPOLL_CTL_MOD, int(e.Fd), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: e.Fd}); err != nil {
						return err
					}
					continue
				}
				got, err := unix.Read(int(e.Fd), buffer)
				if err != nil {
					return fmt.Errorf("receive: %w", err)
				}
				if got > 0 { // the end comes with it, or soon
					continue
				}
				_ = unix.Close(int(e.Fd))
				delete(open, e.Fd)
				done++
				if took = time.Since(started); took < during {
					if err := begin(); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if got := w.server.short.Load() - served; got != uint64(done) {
		return 0, fmt.Errorf("of %d connections the backend has served %d", done, got)
	}
	return float64(done) / took.Seconds(), nil
}

// streams are the connections that carry much.
const streams = 4

// bulk sends as much as it can for a while, and returns the MB that have arrived in a
// second.
func (w *world) bulk(fds []int, during time.Duration) (float64, error) {
	before := w.server.received.Load()
	begin := time.Now()
	errs := make([]error, len(fds))
	var group sync.WaitGroup
	for i, fd := range fds {
		group.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			buffer := make([]byte, 1<<18)
			for time.Since(begin) < during && errs[i] == nil {
				if _, err := unix.Write(fd, buffer); !errors.Is(err, unix.EINTR) {
					errs[i] = err
				}
			}
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, fmt.Errorf("send: %w", err)
	}
	return float64(w.server.received.Load()-before) / time.Since(begin).Seconds() / 1e6, nil
}

// pause is the time between requests whose latency is measured: a thousand a second.
const pause = time.Millisecond

// latency sends requests at a fixed rate and returns how long the answers take, in
// microseconds: that of the middle one, and what one in a hundred exceeds.
func (w *world) latency(fd int, during time.Duration) (p50, p99 float64, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var took []float64
	buffer := []byte{'?'}
	for begin, next := time.Now(), time.Now(); time.Since(begin) < during; next = next.Add(pause) {
		for wait := time.Until(next); wait > 0; wait = time.Until(next) {
			t := unix.NsecToTimespec(int64(wait))
			_ = unix.Nanosleep(&t, nil) // a signal may end it early
		}
		sent := time.Now()
		if _, err := unix.Write(fd, buffer); err != nil {
			return 0, 0, err
		}
		for {
			n, err := unix.Read(fd, buffer)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || n != 1 {
				return 0, 0, fmt.Errorf("answer of %d bytes: %w", n, err)
			}
			break
		}
		took = append(took, float64(time.Since(sent))/1e3)
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100], nil
}

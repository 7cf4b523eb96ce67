// SPDX-License-Identifier: Apache-2.0

package tcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// A connection's first byte says what it wants of the server.
const (
	wantsByte  = 'b' // one byte, and the end
	wantsSink  = 's' // that all is read
	wantsEchos = 'e' // an answer to each byte
)

// server is the backend. It costs as little as it can, as what it takes of the machine
// the balancers lack.
type server struct {
	fds      []int
	short    atomic.Uint64 // connections that got one byte
	received atomic.Uint64 // bytes of those that wanted that all is read
}

func serve(n *lab.Node, addrs ...string) (*server, error) {
	s := &server{}
	for _, addr := range addrs {
		fd, err := listen(n, netip.MustParseAddrPort(addr))
		if err != nil {
			return nil, fmt.Errorf("listen at %s: %w", addr, err)
		}
		s.fds = append(s.fds, fd)
		go s.accept(fd)
	}
	return s, nil
}

func listen(n *lab.Node, at netip.AddrPort) (fd int, err error) {
	err = n.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			// accept returns a connection when its first byte is there.
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 5),
			unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}),
			unix.Listen(fd, 4096))
	})
	return fd, err
}

func (s *server) close() {
	for _, fd := range s.fds {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR) // accept returns, and closes it
	}
}

func (s *server) accept(listener int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer unix.Close(listener)
	buffer := make([]byte, 1)
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if err != nil {
			return
		}
		n, err := unix.Read(fd, buffer)
		switch {
		case n != 1 || err != nil: // whoever looked whether there is somebody
			_ = unix.Close(fd)
		case buffer[0] == wantsByte:
			s.short.Add(1)
			_, _ = unix.Write(fd, buffer) // who does not get it counts it as missing
			_ = unix.Close(fd)
		default:
			go s.serve(fd, buffer[0])
		}
	}
}

// serve serves a connection that lasts.
func (s *server) serve(fd int, wants byte) {
	defer unix.Close(fd)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	buffer := make([]byte, 1<<18)
	if wants == wantsEchos {
		buffer = buffer[:1]
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	for {
		n, err := unix.Read(fd, buffer)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 || err != nil {
			return
		}
		if wants == wantsSink {
			s.received.Add(uint64(n))
		} else if _, err := unix.Write(fd, buffer); err != nil {
			return
		}
	}
}

// dial connects to the server, for what a connection's first byte says. The socket
// blocks.
func dial(n *lab.Node, addr string, wants byte) (fd int, err error) {
	c, err := n.Dial("tcp", "", addr, patience)
	if err != nil {
		return -1, err
	}
	defer c.Close()
	f, err := c.(*net.TCPConn).File() // a duplicate that blocks
	if err != nil {
		return -1, err
	}
	defer f.Close()
	if fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return -1, err
	}
	limit := unix.NsecToTimeval(int64(patience))
	err = errors.Join(unix.SetNonblock(fd, false), unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	if err == nil {
		_, err = unix.Write(fd, []byte{wants})
	}
	return fd, err
}

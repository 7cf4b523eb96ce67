// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestBothEndsAreResetAfterTransfer removes the endpoint of connections that have
// just carried data, and are silent since: both ends hear of it. A RST counts only
// with the number that its receiver expects, and the flow's entry may not have
// seen the last packets.
func TestBothEndsAreResetAfterTransfer(t *testing.T) {
	const size = 200_000
	w := labtest.New(t, "reset", 1, 1)
	ends := map[string]*transferEnd{}
	for _, n := range []*lab.Node{w.Backends[0], w.Pods[0]} {
		for _, ip := range []string{n.IPv4, n.IPv6} {
			ln, err := n.Listen("tcp", labtest.At(ip, 9001))
			w.Check(err)
			t.Cleanup(func() { ln.Close() })
			end := newTransferEnd()
			ends["server "+ln.Addr().String()] = end
			go func() {
				if c, err := ln.Accept(); err == nil {
					end.run(c, 0)
				}
			}()
		}
	}
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{
		80: lab.Endpoints(9001, w.Backends...), 81: lab.On("balancer", lab.Endpoints(9001, w.Pods...)),
	}))
	for _, port := range []int{80, 81} {
		for _, family := range []int{4, 6} {
			end := newTransferEnd()
			ends["client of "+labtest.VIP(family, port)] = end
			go end.run(w.Dial(w.Client, "tcp", labtest.VIP(family, port)), size)
		}
	}
	for name, end := range ends {
		if err := <-end.silent; err != nil {
			w.Fatalf("connection of %s: %v", name, err)
		}
	}
	for i := range w.Config.Services {
		w.Config.Services[i].Endpoints = lab.Endpoints(9002, w.Backends...)
	}
	w.Check(w.Blixt.Apply(w.Config))
	for name, end := range ends {
		if err := <-end.reset; err != nil {
			w.Errorf("connection of %s: %v", name, err)
		}
	}
}

// transferEnd is one end of a connection: it exchanges data, and is silent then.
type transferEnd struct{ silent, reset chan error }

func newTransferEnd() *transferEnd { return &transferEnd{make(chan error, 1), make(chan error, 1)} }

func (e *transferEnd) run(c net.Conn, size int) {
	defer c.Close()
	err := errors.Join(c.SetDeadline(time.Now().Add(3*labtest.Patience)), lab.Exchange(c, size), lastWord(c, size > 0))
	for acknowledged := false; err == nil && !acknowledged; {
		acknowledged, err = allAcknowledged(c)
		time.Sleep(time.Millisecond)
	}
	e.silent <- err
	n, err := c.Read(make([]byte, 1))
	if errors.Is(err, syscall.ECONNRESET) {
		err = nil
	} else {
		err = fmt.Errorf("not reset, but %d bytes: %w", n, err)
	}
	e.reset <- err
}

// lastWord has the client send a byte, and the server another one: no packet is the
// last one together with another.
func lastWord(c net.Conn, client bool) (err error) {
	b := make([]byte, 1)
	if client {
		_, err = c.Write(b)
	}
	if err == nil {
		_, err = c.Read(b)
	}
	if err == nil && !client {
		_, err = c.Write(b)
	}
	return err
}

// allAcknowledged reports whether the peer has acknowledged all that was sent.
func allAcknowledged(c net.Conn) (all bool, err error) {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return false, err
	}
	var info *unix.TCPInfo
	var failed error
	err = raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err = errors.Join(err, failed); err != nil {
		return false, err
	}
	return info.Unacked == 0, nil
}

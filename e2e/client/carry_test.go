// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package client

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// text returns so many letters, which a server sends back.
func text(size int) string {
	return strings.Repeat("announced ", size/10+1)[:size]
}

// learnPath has the client's host learn the path MTU to the VIPs by datagrams of a size:
// the first of them is lost where it does not fit.
func (w *world) learnPath(size int) {
	w.Helper()
	for _, family := range []int{4, 6} {
		w.Check(lab.Eventually(patience, func() error {
			c, err := w.dial(w.client, "udp", vip(family, 80))
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = lab.Ask(c, text(size), 300*time.Millisecond)
			return err
		}))
	}
}

// TestTransfersArriveWhole sends megabytes both ways at once, with what devices compute
// and without.
func TestTransfersArriveWhole(t *testing.T) {
	eachSharedTopology(t, func(w *world) {
		w.accept(w.b.pods[0], 9001, func(c net.Conn) { _ = lab.Exchange(c, 0) }) // the client reports errors
		for _, offloads := range []bool{true, false} {
			size := 32 << 20
			switch {
			case *long:
				size = 100 << 20
			case !offloads:
				size = 4 << 20
			}
			w.Offloads(offloads)
			w.Check(w.Err())
			for _, family := range []int{4, 6} {
				w.Run(fmt.Sprintf("offloads %v/IPv%d", offloads, family), func(t *testing.T) {
					w := w.In(t)
					var rose map[string]uint64
					w.unharmed(func() {
						rose = w.rise(w.b, func() {
							c, err := w.dial(w.client, "tcp", vip(family, 9001))
							w.Check(err)
							defer c.Close()
							w.Check(c.SetDeadline(time.Now().Add(6 * patience)))
							start := time.Now()
							w.Check(lab.Exchange(c, size))
							t.Logf("%d MB/s each way", int(float64(size>>20)/time.Since(start).Seconds()))
						})
					})
					if rose["flow_undone"] != 1 || rose["undone"] == 0 {
						t.Errorf("flow_undone rose by %d, undone by %d", rose["flow_undone"], rose["undone"])
					}
				})
			}
		}
		w.checkSums()
	})
}

// checkSums fails the test if a node has received a packet with a wrong checksum.
func (w *world) checkSums() {
	w.Helper()
	nodes := []*lab.Node{w.client, w.router}
	for _, h := range w.hosts {
		nodes = append(append(nodes, h.Node), h.pods[:]...)
	}
	for _, n := range nodes {
		if count, err := n.ChecksumErrors(); count > 0 || err != nil {
			counters, _ := n.SNMP()
			w.Errorf("%s has seen %d wrong checksums (%v): %v", n.Name, count, err, counters)
		}
	}
}

// sendSegments sends five datagrams in one call, as the first ones of their flow.
func (w *world) sendSegments(family int) {
	w.Helper()
	const segment, segments = 1200, 5
	c, err := w.dial(w.client, "udp", vip(family, 80))
	w.Check(err)
	defer c.Close()
	w.Check(setOption(c.(*net.UDPConn), unix.SOL_UDP, unix.UDP_SEGMENT, segment))
	_, err = c.Write([]byte(text(segment * segments)))
	w.Check(err)
	buffer := make([]byte, 1<<16)
	for range segments {
		w.Check(c.SetReadDeadline(time.Now().Add(patience)))
		n, err := c.Read(buffer)
		w.Check(err)
		var server, seen string
		_, err = fmt.Sscan(string(buffer[:n]), &server, &seen)
		w.Check(err)
		if head := len(server) + len(seen) + 2; seen != c.LocalAddr().String() || string(buffer[head:n]) != text(segment) {
			w.Errorf("the backend sees %s and %d bytes, want the client %s and %d", seen, n-head, c.LocalAddr(), segment)
		}
	}
}

func setOption(c syscall.Conn, level, option, value int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	return errors.Join(raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, value) }), failed)
}

// fastOpened returns how many connections of a node began with data in the SYN that it
// has accepted.
func (w *world) fastOpened(n *lab.Node) (count int) {
	w.Helper()
	out, err := n.Run(patience, "nstat", "-asz", "TcpExtTCPFastOpenPassive")
	w.Check(err)
	for _, line := range strings.Split(out, "\n") {
		if strings.HasPrefix(line, "TcpExtTCPFastOpenPassive ") {
			_, err := fmt.Sscan(strings.Fields(line)[1], &count)
			w.Check(err)
		}
	}
	return count
}

// answerWithPeer answers each line as a lab.Server does.
func answerWithPeer(c net.Conn) {
	buffer := make([]byte, 1<<16)
	at := 0
	for {
		n, err := c.Read(buffer[at:])
		if err != nil {
			return
		}
		if at += n; buffer[at-1] != '\n' {
			continue
		}
		if _, err := fmt.Fprintf(c, "server %s %s", c.RemoteAddr(), buffer[:at]); err != nil {
			return
		}
		at = 0
	}
}

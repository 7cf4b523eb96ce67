// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package client

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// text returns so many letters, which a server sends back.
func text(size int) string {
	return strings.Repeat("announced ", size/10+1)[:size]
}

// TestManyClients has many clients one after the other, 40 at a time: each has its address seen,
// with the first packet.
func TestManyClients(t *testing.T) {
	const atOnce = 40
	clients := 500
	if *long {
		clients = 2000
	}
	eachTopology(t, func(w *world) {
		for _, network := range []string{"tcp", "udp"} {
			sizes := []int{20}
			if network == "udp" {
				sizes = []int{20, 1300, 1450}
			}
			w.Run(network, func(t *testing.T) {
				w := w.In(t)
				w.dumpIfFailed()
				w.learnPath(1450)
				w.unharmed(func() {
					var mu sync.Mutex
					var wg sync.WaitGroup
					same, slowest := 0, time.Duration(0)
					for worker := range atOnce {
						wg.Go(func() {
							for i := worker; i < clients; i += atOnce {
								start := time.Now()
								seen, own, err := w.peerOf(w.client, network, vip(4+i%2*2, 80), text(sizes[i/2%len(sizes)]))
								took := time.Since(start)
								mu.Lock()
								slowest = max(slowest, took)
								if err == nil && seen == own {
									same++
								} else if !t.Failed() {
									t.Errorf("client %d, %d bytes: the backend sees %q (%v), want %s", i, sizes[i/2%len(sizes)], seen, err, own)
								}
								mu.Unlock()
							}
						})
					}
					wg.Wait()
					t.Logf("%d of %d seen as they are, the slowest took %s", same, clients, slowest.Round(time.Millisecond))
				})
			})
		}
	})
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
		w.accept(w.b.pods[0], func(c net.Conn) { _ = lab.Exchange(c, 0) }) // the client reports errors
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

// TestFirstDatagramsOfAnySize sends first datagrams that leave room for an announcement,
// none, and that are fragmented; and several as one, as UDP GSO does.
func TestFirstDatagramsOfAnySize(t *testing.T) {
	eachSharedTopology(t, func(w *world) {
		for _, offloads := range []bool{true, false} {
			w.Offloads(offloads)
			w.learnPath(1472)
			for _, family := range []int{4, 6} {
				for _, size := range []int{0, 1, 15, 16, 1300, 1371, 1372, 1408, 1430, 1431, 1452, 1453, 1472, 1473, 3000, 5000} {
					if w.tunnel && family == 6 && size == 1408 {
						// The bridge of the pods puts the answer together again. It fits eth0, where the
						// node sends it, and not the tunnel; nobody fragments IPv6 on the way.
						continue
					}
					w.Run(fmt.Sprintf("offloads %v/IPv%d/%d bytes", offloads, family, size), func(t *testing.T) {
						w := w.In(t)
						w.dumpIfFailed()
						w.unharmed(func() {
							seen, own, err := w.peerOf(w.client, "udp", vip(family, 80), text(size))
							if err != nil || seen != own {
								t.Errorf("the backend sees %q (%v), want the client %s", seen, err, own)
							}
						})
					})
				}
				w.Run(fmt.Sprintf("offloads %v/IPv%d/segments", offloads, family), func(t *testing.T) {
					w := w.In(t)
					w.dumpIfFailed()
					w.sendSegments(family)
				})
			}
		}
		w.checkSums()
	})
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

// TestFastOpen connects with data in the SYN (RFC 7413): there is no room for an
// announcement behind it.
func TestFastOpen(t *testing.T) {
	eachSharedTopology(t, func(w *world) {
		pod := w.b.pods[0]
		w.client.Sysctl("net.ipv4.tcp_fastopen=3")
		pod.Sysctl("net.ipv4.tcp_fastopen=3")
		w.Check(w.Err())
		for _, family := range []int{4, 6} {
			listen := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
				return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_FASTOPEN, 16) }), err)
			}}
			w.Check(pod.Do(func() error {
				ln, err := listen.Listen(w.Context(), "tcp", at(own(pod, family), 9001))
				if err == nil {
					w.serveOn(ln, answerWithPeer)
				}
				return err
			}))
		}
		for _, family := range []int{4, 6} {
			ask := func(size int) (seen, own string) {
				w.Helper()
				port := labtest.NewPort()
				d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{Port: int(port)}, Control: func(_, _ string, c syscall.RawConn) (err error) {
					return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_FASTOPEN_CONNECT, 1) }), err)
				}}
				var c net.Conn
				w.Check(w.client.Do(func() (err error) {
					c, err = d.Dial("tcp", vip(family, 9001))
					return err
				}))
				defer c.Close()
				a, err := lab.Ask(c, text(size), patience)
				w.Check(err)
				return a.Client, c.LocalAddr().String()
			}
			ask(3) // gets the cookie
			for _, size := range []int{3, 1300} {
				w.Run(fmt.Sprintf("IPv%d/%d bytes", family, size+1), func(t *testing.T) {
					w := w.In(t)
					w.dumpIfFailed()
					before := w.fastOpened(pod)
					w.unharmed(func() {
						if seen, own := ask(size); seen != own {
							t.Errorf("the backend sees %s, want the client %s", seen, own)
						}
					})
					if n := w.fastOpened(pod) - before; n != 1 {
						t.Errorf("%d connections began with data in the SYN, want 1", n)
					}
				})
			}
		}
	})
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

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lab"
)

// TestLargeTransfersArriveWhole sends megabytes both ways at once: with
// offloads in packets of 64 KiB that nobody cuts, without in segments whose
// every checksum the receiver looks at.
func TestLargeTransfersArriveWhole(t *testing.T) {
	w := newWorld(t, "bulk", 1, 1)
	for _, n := range []*lab.Node{w.Backends[0], w.Pods[0]} {
		for _, ip := range []string{n.IPv4, n.IPv6} {
			ln, err := n.Listen("tcp", at(ip, 9001))
			w.check(err)
			t.Cleanup(func() { ln.Close() })
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						_ = exchange(c, 0) // the client sees what is wrong
					}()
				}
			}()
		}
	}
	w.run(serve(map[int][]lab.Endpoint{
		toRemote: lab.Endpoints(9001, w.Backends...),
		toPods:   lab.On("balancer", lab.Endpoints(9001, w.Pods...)),
	}))
	for _, offloads := range []bool{true, false} {
		size := 64 << 20
		if !offloads {
			size = 8 << 20
		}
		w.Offloads(offloads)
		w.check(w.Err())
		for _, port := range []int{toRemote, toPods} {
			for _, family := range []int{4, 6} {
				t.Run(fmt.Sprintf("offloads %v, port %d, IPv%d", offloads, port, family), func(t *testing.T) {
					w := w.in(t)
					addr := vip(family, port)
					s := w.counting(func() {
						c := w.dial(w.Client, "tcp", addr)
						w.check(c.SetDeadline(time.Now().Add(6 * patience)))
						w.check(exchange(c, size))
					})
					w.carried(s, "tcp", addr, 1, size, size)
					f, g := w.frontend(s.before, "tcp", addr), w.frontend(s.after, "tcp", addr)
					packet := float64(g.Bytes-f.Bytes) / float64(g.Packets-f.Packets)
					t.Logf("%.0f bytes a packet", packet)
					if offloads && packet < 2000 || !offloads && packet > 1500 {
						t.Errorf("packets have %.0f bytes", packet)
					}
				})
			}
		}
	}
	w.noChecksumErrors()
}

// exchange sends random bytes and their hash while it receives the other side's.
// The client says how many; 0 makes it the server, which sends as many.
func exchange(c net.Conn, size int) error {
	client := size > 0
	head := make([]byte, 8)
	if client {
		binary.BigEndian.PutUint64(head, uint64(size))
		if _, err := c.Write(head); err != nil {
			return err
		}
	} else {
		if _, err := io.ReadFull(c, head); err != nil {
			return err
		}
		size = int(binary.BigEndian.Uint64(head))
	}
	sent := make(chan error, 1)
	go func() {
		hash := sha256.New()
		random := io.LimitReader(rand.NewChaCha8([32]byte{'b', 'u', 'l', 'k'}), int64(size))
		if _, err := io.CopyBuffer(c, io.TeeReader(random, hash), make([]byte, 1<<18)); err != nil {
			sent <- err
			return
		}
		_, err := c.Write(hash.Sum(nil))
		sent <- err
	}()
	hash := sha256.New()
	if _, err := io.CopyN(hash, c, int64(size)); err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	sum := make([]byte, sha256.Size)
	if _, err := io.ReadFull(c, sum); err != nil {
		return fmt.Errorf("receive hash: %w", err)
	}
	if string(sum) != string(hash.Sum(nil)) {
		return fmt.Errorf("%d bytes arrive with hash %x, sent with %x", size, hash.Sum(nil), sum)
	}
	return <-sent
}

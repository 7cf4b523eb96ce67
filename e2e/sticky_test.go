// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// TestDefect2_DatagramsOfASocketReachOneBackend asks often on each of many
// connected sockets, which hear nobody but the address that they asked.
func TestDefect2_DatagramsOfASocketReachOneBackend(t *testing.T) {
	w := newWorld(t, "sticky", 4, 0)
	w.run(serve(map[int][]lab.Endpoint{toRemote: lab.Endpoints(8080, w.Backends...)}), "eth0", "eth1")
	for _, family := range []int{4, 6} {
		t.Run(fmt.Sprintf("IPv%d", family), func(t *testing.T) {
			w := w.in(t)
			addr := vip(family, toRemote)
			const sockets, questions = 50, 10
			servers := map[string]int{}
			s := w.counting(func() {
				for range sockets {
					c := w.dial(w.Client, "udp", addr)
					first := w.ask(c, "who?")
					servers[first.Server]++
					for range questions - 1 {
						if a := w.ask(c, "who?"); a.Server != first.Server || a.Client != first.Client {
							t.Fatalf("%s hears %s, then %s hears %s", first.Server, first.Client, a.Server, a.Client)
						}
					}
				}
			})
			if len(servers) != 4 {
				t.Errorf("%d sockets reach %v", sockets, servers)
			}
			w.carried(s, "udp", addr, sockets, 0, 0)
			f, g := w.frontend(s.before, "udp", addr), w.frontend(s.after, "udp", addr)
			if to, back := g.Packets-f.Packets, g.ReplyPackets-f.ReplyPackets; to != sockets*questions || back != to {
				t.Errorf("Blixt counts %d packets to and %d from backends, want %d", to, back, sockets*questions)
			}
		})
	}
}

// TestReceivingKernelVerifiesChecksums proves that the other tests would notice
// a wrong one: a datagram that bears one is counted, and heard by nobody.
func TestReceivingKernelVerifiesChecksums(t *testing.T) {
	w := newWorld(t, "verify", 1, 0)
	w.Offloads(false)
	w.check(w.Err())
	for sum, wrong := range map[uint16]uint64{0xbad1: 1, 0: 0} { // 0: none
		before, err := w.Backends[0].ChecksumErrors()
		w.check(err)
		payload := []byte("hello")
		datagram := append([]byte{0x30, 0x39, 8080 >> 8, 8080 & 0xff, 0, byte(8 + len(payload)), byte(sum >> 8), byte(sum)}, payload...)
		w.check(w.Client.Do(func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Sendto(fd, datagram, 0, &unix.SockaddrInet4{Addr: [4]byte{10, 77, 0, 11}})
		}))
		w.check(lab.Eventually(patience, func() error {
			if after, err := w.Backends[0].ChecksumErrors(); err != nil || after != before+wrong {
				return fmt.Errorf("checksum %#x: %d errors counted, want %d (%w)", sum, after-before, wrong, err)
			}
			return nil
		}))
	}
}

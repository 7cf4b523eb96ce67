// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestDefect2_DatagramsOfASocketReachOneBackend asks often on each of many connected
// sockets, which accept answers only from the address that they asked.
func TestDefect2_DatagramsOfASocketReachOneBackend(t *testing.T) {
	w := labtest.New(t, "sticky", 4, 0)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{toRemote: lab.Endpoints(8080, w.Backends...)}), "eth0", "eth1")
	for _, family := range []int{4, 6} {
		t.Run(fmt.Sprintf("IPv%d", family), func(t *testing.T) {
			w := w.In(t)
			addr := labtest.VIP(family, toRemote)
			const sockets, questions = 50, 10
			servers := map[string]int{}
			s := w.Count(func() {
				for range sockets {
					c := w.Dial(w.Client, "udp", addr)
					first := w.Ask(c, "who?")
					servers[first.Server]++
					for range questions - 1 {
						if a := w.Ask(c, "who?"); a.Server != first.Server || a.Client != first.Client {
							t.Fatalf("%s hears %s, then %s hears %s", first.Server, first.Client, a.Server, a.Client)
						}
					}
				}
			})
			if len(servers) != 4 {
				t.Errorf("%d sockets reach %v", sockets, servers)
			}
			w.CheckCarried(s, "udp", addr, sockets, 0, 0)
			f, g := w.Frontend(s.Before, "udp", addr), w.Frontend(s.After, "udp", addr)
			if to, back := g.Packets-f.Packets, g.ReplyPackets-f.ReplyPackets; to != sockets*questions || back != to {
				t.Errorf("Blixt counts %d packets to and %d from backends, want %d", to, back, sockets*questions)
			}
		})
	}
}

// TestReceivingKernelVerifiesChecksums proves that the other tests would notice a wrong
// checksum: such a datagram is counted and not delivered.
func TestReceivingKernelVerifiesChecksums(t *testing.T) {
	w := labtest.New(t, "verify", 1, 0)
	w.Offloads(false)
	w.Check(w.Err())
	for sum, wrong := range map[uint16]uint64{0xbad1: 1, 0: 0} { // 0: none
		before, err := w.Backends[0].ChecksumErrors()
		w.Check(err)
		payload := []byte("hello")
		datagram := append([]byte{0x30, 0x39, 8080 >> 8, 8080 & 0xff, 0, byte(8 + len(payload)), byte(sum >> 8), byte(sum)}, payload...)
		w.Check(w.Client.Do(func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Sendto(fd, datagram, 0, &unix.SockaddrInet4{Addr: [4]byte{10, 77, 0, 11}})
		}))
		w.Check(lab.Eventually(labtest.Patience, func() error {
			if after, err := w.Backends[0].ChecksumErrors(); err != nil || after != before+wrong {
				return fmt.Errorf("checksum %#x: %d errors counted, want %d (%w)", sum, after-before, wrong, err)
			}
			return nil
		}))
	}
}

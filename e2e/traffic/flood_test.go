// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// flood is more SYNs than there is room for new flows: twice MAX_NEW_FLOWS.
const flood = 150_000

// TestEstablishedFlowsSurviveAFloodOfSYNs sends SYNs from forged addresses, while TCP
// connections and UDP sockets are in use.
func TestEstablishedFlowsSurviveAFloodOfSYNs(t *testing.T) {
	w := labtest.New(t, "flood", 2, 0)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{toRemote: lab.Endpoints(8080, w.Backends...)}), "eth0", "eth1")
	w.Balancer.Route("203.0.113.0/24 via " + lab.Client4) // where SYN-ACKs are sent
	w.Check(w.Err())
	clients := w.StartClients(100, "tcp", labtest.VIP(4, toRemote), labtest.VIP(6, toRemote))
	datagrams := w.StartClients(20, "udp", labtest.VIP(4, toRemote), labtest.VIP(6, toRemote))
	clients.CheckUnharmed("before the flood")
	datagrams.CheckUnharmed("before the flood")

	before := w.Status()
	w.Check(synFlood(w.Client, netip.MustParseAddrPort(labtest.VIP(4, toRemote)), flood))
	clients.CheckUnharmed("the flood")
	datagrams.CheckUnharmed("the flood")
	after := w.Status()
	if n := labtest.Rise(before, after, "flow_new"); n < flood*9/10 {
		t.Errorf("flow_new rose by %d, want %d or so", n, flood)
	}
	if n := labtest.Rise(before, after, "flow_established"); n != 0 {
		t.Errorf("%d forged flows count as established", n)
	}
	// New connections are served.
	if got := w.Tally(40, func(i int) (string, error) { return w.Answerer(labtest.VIP(4+i%2*2, toRemote)) }); len(got) != 2 {
		t.Errorf("after the flood new connections reach %v", got)
	}
}

// flight is how many SYNs are sent without a pause: fewer than the 1,000 packets
// that Linux queues for a processor (net.core.netdev_max_backlog). On a busy machine
// a flood without pauses fills that queue, and datagrams of others are lost there,
// before they reach any program.
const flight = 100

// synFlood sends SYNs from forged addresses of 203.0.113.0/24.
func synFlood(n *lab.Node, to netip.AddrPort, count int) error {
	var fd int
	err := n.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	p := make([]byte, 40) // IPv4 and TCP without options; the kernel fills in length and header checksum
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_TCP
	dst := to.Addr().As4()
	copy(p[12:], []byte{203, 0, 113, 0})
	copy(p[16:], dst[:])
	binary.BigEndian.PutUint16(p[22:], to.Port())
	p[32], p[33] = 5<<4, 2 // header length, SYN
	binary.BigEndian.PutUint16(p[34:], 65535)
	for i := range count {
		if i%flight == 0 {
			time.Sleep(100 * time.Microsecond)
		}
		p[15] = byte(i)
		binary.BigEndian.PutUint16(p[20:], uint16(1024+i/256))
		binary.BigEndian.PutUint32(p[24:], uint32(i)*2654435761)
		binary.BigEndian.PutUint16(p[36:], 0)
		binary.BigEndian.PutUint16(p[36:], tcpChecksum(p))
		if err := unix.Sendto(fd, p, 0, &unix.SockaddrInet4{Addr: dst}); err != nil && err != unix.ENOBUFS {
			return err
		}
	}
	return nil
}

// tcpChecksum computes the checksum of an IPv4 packet of 40 bytes (RFC 9293, 3.1).
func tcpChecksum(p []byte) uint16 {
	sum := uint32(unix.IPPROTO_TCP + 20)
	for i := 12; i < 40; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum>>16 + sum&0xffff)
}

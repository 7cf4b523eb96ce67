// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kubernetes-sigs/blixt/e2e/lib/forge"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestForgedAnswersFromOutsideAreNotBelieved has somebody among the clients send what a
// backend would answer, to the address and port that stand for a client there.
func TestForgedAnswersFromOutsideAreNotBelieved(t *testing.T) {
	w := labtest.New(t, "forged", 1, 0)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{toRemote: lab.Endpoints(8080, w.Backends...)}))
	var mac [6]byte
	w.Check(w.Balancer.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			copy(mac[:], link.Attrs().HardwareAddr)
		}
		return err
	}))
	attacker, err := forge.Open(w.Client, "eth0", mac)
	w.Check(err)
	defer attacker.Close()

	for family, backend := range map[int]string{4: "10.77.0.11:8080", 6: "[fd77::11]:8080"} {
		from := netip.MustParseAddrPort(backend)
		udp := w.Dial(w.Client, "udp", labtest.VIP(family, toRemote))
		defer udp.Close()
		tcp := w.Dial(w.Client, "tcp", labtest.VIP(family, toRemote))
		defer tcp.Close()
		s := w.Count(func() {
			to := netip.MustParseAddrPort(w.Ask(udp, "who am I?").Client)
			w.Check(attacker.Send(forge.Frame{IP: forge.Datagram(from, to, []byte("forged")).Bytes()}))
			to = netip.MustParseAddrPort(w.Ask(tcp, "who am I?").Client)
			w.Check(attacker.Send(forge.Frame{IP: forge.Segment{Seq: 1, Ack: 1, Flags: forge.RST}.Packet(from, to).Bytes()}))
			w.Check(udp.SetReadDeadline(time.Now().Add(time.Second)))
			b := make([]byte, 100)
			if n, err := udp.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the client has received %q (%v), which no backend has sent", b[:n], err)
			}
			w.Check(udp.SetReadDeadline(time.Time{}))
			for _, c := range []net.Conn{udp, tcp} {
				w.Ask(c, "and now?")
			}
		})
		if n := s.Rise("wrong_device"); n != 2 {
			t.Errorf("IPv%d: wrong_device rose by %d, want 2", family, n)
		}
	}
}

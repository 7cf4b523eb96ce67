// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// narrow is the MTU of a route that is narrow.
const narrow = 1400

// TestLargeDatagramsArrive has real sockets exchange datagrams that are larger than the
// way, through a balancer of each kind.
func TestLargeDatagramsArrive(t *testing.T) {
	for _, balancer := range []string{"nftables", "Blixt"} {
		t.Run(balancer, func(t *testing.T) {
			t.Parallel()
			w := labtest.New(t, "large-"+strings.ToLower(balancer), 1, 1)
			servers := map[uint16]*lab.Node{toRemote: w.Backends[0], toLocal: w.Pods[0]}
			serve(w, balancer, servers)
			checkSizes(w, "client to server", servers, map[uint16]string{toRemote: "eth1", toLocal: "pods"})
			checkSizes(w, "server to client", map[uint16]*lab.Node{0: w.Client}, map[uint16]string{0: "eth0"})
			w.CheckChecksums()
		})
	}
}

// serve has the balancer lead to a server of each port.
func serve(w *labtest.World, balancer string, to map[uint16]*lab.Node) {
	w.Helper()
	if balancer == "Blixt" {
		w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{
			toRemote: lab.Endpoints(serverPort, to[toRemote]), toLocal: lab.On("balancer", lab.Endpoints(serverPort, to[toLocal])),
		}))
		return
	}
	for _, a := range vip {
		w.Balancer.Addr("lo", fmt.Sprintf("%s/%d", a, a.BitLen()))
	}
	w.Check(w.Err())
	_, err := w.Balancer.Run(5*time.Second, "nft", nftables(func(family int, port uint16) netip.Addr {
		return netip.MustParseAddr(map[int]string{4: to[port].IPv4, 6: to[port].IPv6}[family])
	}))
	w.Check(err)
}

// checkSizes gives the balancer a narrow route, of which nobody else knows, and has
// sockets send that let routers fragment, as name servers do.
func checkSizes(w *labtest.World, direction string, to map[uint16]*lab.Node, dev map[uint16]string) {
	w.Helper()
	routes := map[string]string{}
	for port, n := range to {
		routes[n.IPv4+"/32"], routes[n.IPv6+"/128"] = dev[port], dev[port]
	}
	for prefix, dev := range routes {
		w.Balancer.IP(fmt.Sprintf("route add %s dev %s mtu lock %d", prefix, dev, narrow))
		defer w.Balancer.IP(fmt.Sprintf("route del %s dev %s", prefix, dev))
	}
	w.Check(w.Err())
	for _, port := range served {
		for _, family := range families {
			to := netip.AddrPortFrom(vip[family], port)
			for _, size := range []int{1000, 1330, 1420, 1440, 4000, 60_000} {
				c := w.Dial(w.Client, "udp", to.String())
				w.Check(letFragment(c.(*net.UDPConn), family))
				var err error
				for range 3 { // in IPv6 both sides fragment, once they have been told
					if _, err = c.Write(letters(size)); err == nil {
						err = hear(c, size)
					}
					if err == nil {
						break
					}
				}
				if err != nil {
					w.Errorf("%s is narrow: %d bytes to %s: %v", direction, size, to, err)
				}
			}
		}
	}
}

// hear waits for the answer to a text of letters.
func hear(c net.Conn, size int) error {
	if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	buffer := make([]byte, 1<<16)
	n, err := c.Read(buffer)
	if err != nil {
		return err
	}
	if parts := strings.SplitN(string(buffer[:n]), " ", 3); len(parts) != 3 || parts[2] != string(letters(size)) {
		return fmt.Errorf("the answer is %.60q", buffer[:n])
	}
	return nil
}

// letters returns a text of so many bytes without a period that is a power of two.
func letters(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(i%23)
	}
	return b
}

// letFragment has a socket send without DF, and forget what it has learned of the path.
func letFragment(c syscall.Conn, family int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		if family == 4 {
			set = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
		} else {
			set = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT)
		}
	})
	return errors.Join(err, set)
}

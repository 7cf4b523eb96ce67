// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// nftables has the kernel's own NAT do in a network what Blixt does in another: it
// translates UDP to the VIP's ports towards one node each.
func nftables(w *labtest.World, to map[int]*lab.Node, port int) {
	w.Helper()
	w.Balancer.IP("addr add "+lab.VIP4+"/32 dev lo", "addr add "+lab.VIP6+"/128 dev lo nodad")
	w.Check(w.Err())
	var rules strings.Builder
	for family, vip := range map[int]string{4: "ip daddr " + lab.VIP4, 6: "ip6 daddr " + lab.VIP6} {
		fmt.Fprintf(&rules, "table %s oracle {\n", map[int]string{4: "ip", 6: "ip6"}[family])
		for _, hook := range []string{"prerouting", "output"} {
			fmt.Fprintf(&rules, "chain %s { type nat hook %s priority -100;\n", hook, hook)
			for p, n := range to {
				fmt.Fprintf(&rules, "%s udp dport %d dnat to %s\n", vip, p, labtest.At(own(n, family), port))
			}
			rules.WriteString("}\n")
		}
		rules.WriteString("chain postrouting { type nat hook postrouting priority 100; ct status dnat masquerade\n}\n}\n")
	}
	path := w.Dir() + "/oracle.nft"
	w.Check(os.WriteFile(path, []byte(rules.String()), 0o600))
	_, err := w.Balancer.Run(labtest.Patience, "nft", "-f", path)
	w.Check(err)
}

// A large datagram is one kind that TestLargeDatagramsGetThrough sends.
type largeDatagram struct {
	from   string
	port   int
	family int
	size   int
	// fragment: the socket allows routers to fragment; else it discovers the path MTU.
	fragment, offloads bool
}

func (d largeDatagram) String() string {
	return fmt.Sprintf("%s to %d, IPv%d, %d bytes, fragment=%t offloads=%t", d.from, d.port, d.family, d.size, d.fragment, d.offloads)
}

// sendLarge sends three datagrams of a kind and returns how many the servers receive.
func sendLarge(w *labtest.World, servers map[int]*lab.Node, d largeDatagram) (got int) {
	w.Helper()
	from := map[string]*lab.Node{"client": w.Client, "host": w.Balancer, "pod": w.Pods[0]}[d.from]
	w.Check(forgetPaths(from))
	server, err := servers[d.port].ListenPacket("udp", labtest.At(own(servers[d.port], d.family), tellsMTU))
	w.Check(err)
	defer server.Close()
	// A fragment that was split off takes as much of the receiver's memory as the datagram, if they share a machine.
	w.Check(set(server.(*net.UDPConn), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<24))
	c := w.Dial(from, "udp", labtest.VIP(d.family, d.port)).(*net.UDPConn)
	w.Check(c.SetWriteBuffer(1 << 20))
	if d.fragment && d.family == 4 {
		w.Check(set(c, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT))
	}
	_, err = c.Write([]byte("hello")) // who is the neighbour? Few packets can wait for the answer.
	w.Check(err)
	receive(w, server, "hello")
	const datagrams = 3
	for i := range datagrams {
		_, err := c.Write([]byte(fmt.Sprint(i) + text(d.size-1)))
		if err != nil && i == 0 { // a later one may hear of an earlier one
			w.Errorf("%v: %v", d, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.Check(server.SetReadDeadline(time.Now().Add(200 * time.Millisecond)))
	seen := map[string]bool{}
	for buffer := make([]byte, 1<<16); len(seen) < datagrams; {
		n, _, err := server.ReadFrom(buffer)
		if err != nil {
			break
		}
		if string(buffer[1:n]) != text(d.size-1) {
			w.Errorf("%v: the server receives something else: %.20q", d, buffer[:n])
		}
		if seen[string(buffer[:1])] {
			w.Errorf("%v: the server receives %.1q twice", d, buffer[:n])
		}
		seen[string(buffer[:1])] = true
	}
	return len(seen)
}

// TestLargeDatagramsGetThrough sends datagrams that are larger than the MTU of the way to
// the backend. Where the kernel's own NAT fragments them, Blixt has to do it as well.
func TestLargeDatagramsGetThrough(t *testing.T) {
	network := func(name string) (*labtest.World, map[int]*lab.Node) {
		w := labtest.New(t, name, 1, 1)
		far := addRouters(w, "far", 73, [3]int{narrow, 1500, 1500})
		return w, map[int]*lab.Node{toRemote: w.Backends[0], toPods: w.Pods[0], toFar: far}
	}
	oracle, theirs := network("largenft")
	nftables(oracle, theirs, tellsMTU)
	w, ours := network("large")
	services := map[int][]lab.Endpoint{}
	for port, n := range ours {
		services[port] = lab.Endpoints(tellsMTU, n)
	}
	services[toPods] = lab.On("balancer", services[toPods])
	w.StartBlixt(labtest.ConfigOf(services))
	for _, offloads := range []bool{false, true} {
		oracle.Offloads(offloads)
		w.Offloads(offloads)
		// With br_netfilter a bridge puts fragments together, for conntrack: that of the pods, in the second half.
		firewall(oracle, offloads, "forward")
		firewall(w, offloads, "forward")
		for _, from := range []string{"client", "host", "pod"} {
			for port := range ours {
				if from == "pod" && port == toPods {
					continue // the same pod: nftables would need more rules for that
				}
				for _, family := range []int{4, 6} {
					for _, size := range []int{1400, 4000, map[bool]int{true: 60000, false: 20000}[from == "host"]} {
						for _, fragment := range []bool{true, false} {
							if fragment && family == 6 {
								continue // routers never fragment
							}
							if from == "pod" && port == toFar && family == 6 && size == 1400 && offloads {
								continue // put together by the bridge, it is no larger than what a device receives
							}
							d := largeDatagram{from, port, family, size, fragment, offloads}
							want, got := sendLarge(oracle, theirs, d), sendLarge(w, ours, d)
							if got < want {
								t.Errorf("%v: %d of 3 get through, with nftables %d", d, got, want)
							} else if got > want {
								t.Logf("%v: %d of 3 get through, with nftables %d", d, got, want)
							}
						}
					}
				}
			}
		}
	}
	w.CheckChecksums()
}

// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// Ports of RTP: the range 16384-32767 of one listener, in which another one has a port of
// its own.
const (
	rtpFirst, rtpLast = 16384, 32767
	rtpOther          = 20000
	// shifted is a listener whose range leads to the ports from 9000 on.
	shifted, shiftedTo = 5000, 9000
)

// TestPortRange serves 16,384 ports by one frontend for each protocol and family.
func TestPortRange(t *testing.T) {
	w := labtest.New(t, "port-range", 2, 1)
	c := labtest.ConfigOf(map[int][]lab.Endpoint{
		rtpFirst: append(lab.Endpoints(rtpFirst, w.Backends[0]), lab.On("balancer", lab.Endpoints(rtpFirst, w.Pods[0]))...),
		rtpOther: lab.Endpoints(8080, w.Backends[1]),
		shifted:  lab.Endpoints(shiftedTo, w.Backends[1]),
	})
	for _, protocol := range []string{"tcp", "udp"} {
		writeGatewayPolicy(w, "rtp-"+protocol, fmt.Sprintf("%s-%d", protocol, rtpFirst), rtpPorts(rtpLast))
		writeGatewayPolicy(w, "shifted-"+protocol, fmt.Sprintf("%s-%d", protocol, shifted), fmt.Sprintf("ports: {endPort: %d, target: Shift}", shifted+9))
	}
	// iperf3 has two connections, which one server has to get.
	writeGatewayPolicy(w, "same-server", fmt.Sprintf("tcp-%d", rtpFirst), "affinity: {type: ClientAddress}")
	w.StartBlixt(c)
	if n := len(w.Status().Frontends); n != 12 {
		t.Errorf("%d frontends, want 12: of three listeners, two protocols and two families", n)
	}
	for _, family := range []int{4, 6} {
		t.Run(fmt.Sprintf("IPv%d UDP, each port", family), func(t *testing.T) { checkEachPort(w.In(t), family) })
		t.Run(fmt.Sprintf("IPv%d, ports that others have", family), func(t *testing.T) { checkOtherPorts(w.In(t), family) })
		t.Run(fmt.Sprintf("IPv%d iperf3", family), func(t *testing.T) { checkRangeThroughput(w.In(t), family) })
	}
	w.CheckChecksums()
}

// rtpPorts is the spec of a policy for a range up to this port.
func rtpPorts(last int) string { return fmt.Sprintf("ports: {endPort: %d}", last) }

// ownAddr returns the address of a node of a family.
func ownAddr(n *lab.Node, family int) string {
	if family == 4 {
		return n.IPv4
	}
	return n.IPv6
}

// echoAt has servers of the remote backend and of the pod send datagrams to these ports
// back, with their name and port in front.
func echoAt(w *labtest.World, family, first, last int) (stop func()) {
	w.Helper()
	var open []net.PacketConn
	for _, n := range []*lab.Node{w.Backends[0], w.Pods[0]} {
		for port := first; port <= last; port++ {
			pc, err := n.ListenPacket("udp", labtest.At(ownAddr(n, family), port))
			w.Check(err)
			open = append(open, pc)
			go func() {
				b := make([]byte, 8192)
				for {
					read, from, err := pc.ReadFrom(b)
					if err != nil {
						return
					}
					_, _ = pc.WriteTo(append([]byte(fmt.Sprintf("%s %d ", n.Name, port)), b[:read]...), from)
				}
			}()
		}
	}
	return func() {
		for _, pc := range open {
			_ = pc.Close()
		}
	}
}

// checkEachPort asks at each port of the range, from one socket for each batch: so the
// client's port is the same where the frontend's differs.
func checkEachPort(w *labtest.World, family int) {
	const batch = 256
	servers := map[string]int{}
	big := strings.Repeat("x", 3000)
	s := w.Count(func() {
		for first := rtpFirst; first <= rtpLast; first += batch {
			stop := echoAt(w, family, first, first+batch-1)
			pc, err := w.Client.ListenPacket("udp", labtest.At(ownAddr(w.Client, family), int(labtest.NewPort())))
			w.Check(err)
			b := make([]byte, 8192)
			for port := first; port < first+batch; port++ {
				if port == rtpOther {
					continue
				}
				to, err := net.ResolveUDPAddr("udp", labtest.VIP(family, port))
				w.Check(err)
				question := fmt.Sprint("what? ", port)
				if port == first { // in fragments
					question += big
				}
				_, err = pc.WriteTo([]byte(question), to)
				w.Check(err)
				w.Check(pc.SetReadDeadline(time.Now().Add(labtest.Patience)))
				n, from, err := pc.ReadFrom(b)
				if err != nil {
					w.Fatalf("port %d: %v", port, err)
				}
				server, rest, _ := strings.Cut(string(b[:n]), " ")
				if want := fmt.Sprint(port, " ", question); rest != want || from.String() != to.String() {
					w.Fatalf("port %d: %q from %s", port, rest, from)
				}
				servers[server]++
			}
			w.Check(pc.Close())
			stop()
		}
	})
	if len(servers) != 2 {
		w.Errorf("the servers are %v, want the remote one and the one of this node", servers)
	}
	// One frontend counts all of them.
	f := w.Frontend(s.After, "udp", labtest.VIP(family, rtpFirst))
	if g := w.Frontend(s.Before, "udp", labtest.VIP(family, rtpFirst)); f.NewFlows-g.NewFlows != rtpLast-rtpFirst {
		w.Errorf("%d new flows, want %d", f.NewFlows-g.NewFlows, rtpLast-rtpFirst)
	}
}

// checkOtherPorts asks at ports that another listener has, that lead elsewhere, and
// behind the ranges.
func checkOtherPorts(w *labtest.World, family int) {
	for _, network := range []string{"tcp", "udp"} {
		if a := w.Ask(w.Dial(w.Client, network, labtest.VIP(family, rtpOther)), "who?"); a.Server != w.Backends[1].Name {
			w.Errorf("%s port %d: %s answers, want %s", network, rtpOther, a.Server, w.Backends[1].Name)
		}
		for _, offset := range []int{0, 1, 9} {
			addr := labtest.At(ownAddr(w.Backends[1], family), shiftedTo+offset)
			server, err := w.Backends[1].Serve(fmt.Sprint("at-", shiftedTo+offset), addr)
			w.Check(err)
			if a := w.Ask(w.Dial(w.Client, network, labtest.VIP(family, shifted+offset)), "who?"); a.Server != server.Name {
				w.Errorf("%s port %d: %s answers, want %s", network, shifted+offset, a.Server, server.Name)
			}
			w.Check(server.Close())
		}
	}
	for _, port := range []int{rtpFirst - 1, rtpLast + 1, shifted - 1, shifted + 10} {
		if c, err := w.Client.Dial("tcp", "", labtest.VIP(family, port), labtest.Patience); !errors.Is(err, syscall.ECONNREFUSED) {
			if err == nil {
				_ = c.Close()
			}
			w.Errorf("port %d, which nobody serves: %v", port, err)
		}
		c := w.Dial(w.Client, "udp", labtest.VIP(family, port))
		_, err := c.Write([]byte("anybody?"))
		w.Check(err)
		w.Check(c.SetReadDeadline(time.Now().Add(labtest.Patience)))
		if _, err := c.Read(make([]byte, 16)); !errors.Is(err, syscall.ECONNREFUSED) {
			w.Errorf("UDP port %d, which nobody serves: %v", port, err)
		}
	}
	// A connection goes on when its range ends.
	for _, n := range []*lab.Node{w.Backends[0], w.Pods[0]} {
		w.Accept(n, labtest.At(ownAddr(n, family), 17000), func(c net.Conn) {
			defer c.Close()
			_, _ = io.Copy(c, c)
		})
	}
	c := w.Dial(w.Client, "tcp", labtest.VIP(family, 17000))
	echoed := func(when string) {
		_, err := c.Write([]byte(when))
		w.Check(err)
		w.Check(c.SetReadDeadline(time.Now().Add(labtest.Patience)))
		b := make([]byte, len(when))
		if _, err := io.ReadFull(c, b); err != nil || string(b) != when {
			w.Errorf("%s: %q, %v", when, b, err)
		}
	}
	echoed("while the range is there")
	setLast := func(last int) {
		w.Check(w.Blixt.AwaitLog("INFO serving ", labtest.Patience, func() error {
			writeGatewayPolicy(w, "rtp-tcp", fmt.Sprintf("tcp-%d", rtpFirst), rtpPorts(last))
			return nil
		}))
	}
	setLast(16999)
	echoed("behind the end of the range")
	if _, err := w.Client.Dial("tcp", "", labtest.VIP(family, 17000), labtest.Patience); !errors.Is(err, syscall.ECONNREFUSED) {
		w.Errorf("a new connection behind the end of the range: %v", err)
	}
	setLast(rtpLast)
	echoed("with the range again")
}

// checkRangeThroughput sends some MB through a port of the range, both ways.
func checkRangeThroughput(w *labtest.World, family int) {
	const port = 30001
	for _, n := range []*lab.Node{w.Backends[0], w.Pods[0]} {
		stop, err := n.Daemon("iperf3", "--server", "--port", fmt.Sprint(port))
		w.Check(err)
		defer func() { _ = stop() }()
		w.Check(listening(n, port))
	}
	host, _, err := net.SplitHostPort(labtest.VIP(family, port))
	w.Check(err)
	for _, reverse := range []string{"", "--reverse"} {
		args := []string{"--client", host, "--port", fmt.Sprint(port), "--bytes", "8M", "--json"}
		if reverse != "" {
			args = append(args, reverse)
		}
		out, err := w.Client.Run(2*labtest.Patience, "iperf3", args...)
		w.Check(err)
		if !strings.Contains(out, "sum_received") {
			w.Errorf("iperf3 %s: %s", reverse, out)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

// Package labtest has what tests in a lab share: the standard network with Blixt in
// it, clients, and checks of what Blixt has counted.
package labtest

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// Patience is how long anything may take on a busy machine that is immediate on an
// idle one.
const Patience = 5 * time.Second

// Binary is the path of the blixt under test, once Main has built it.
var Binary string

// Main builds Blixt and runs the tests of a package.
func Main(m *testing.M) {
	os.Exit(func() int {
		if os.Geteuid() != 0 {
			fmt.Fprintln(os.Stderr, lab.ErrNotRoot)
			return 1
		}
		dir, err := os.MkdirTemp("", "blixt-e2e-")
		if err == nil {
			defer os.RemoveAll(dir)
			Binary, err = lab.Build(dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// World is the standard network with servers on port 8080 of every backend and
// pod, and Blixt between them.
type World struct {
	*testing.T
	*lab.Standard
	Blixt  *lab.Blixt
	Config *lab.Config
}

// New makes the network, which Cleanup removes. No other test may use its name, as it
// names the network namespaces.
func New(t *testing.T, name string, backends, pods int) *World {
	t.Helper()
	s, err := lab.NewStandard("blixt-e2e-"+name, backends, pods)
	if err != nil {
		t.Fatal(err)
	}
	w := &World{T: t, Standard: s}
	t.Cleanup(func() {
		if t.Failed() && w.Blixt != nil {
			status, err := w.Blixt.Run("status")
			t.Logf("blixt said:\n%s\nand its status is, %v:\n%s", w.Blixt.Log(), err, status)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, n := range append(s.Backends, s.Pods...) {
		if _, err := n.ServeBoth(n.Name, 8080); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// Check ends the test if there is an error.
func (w *World) Check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// StartBlixt starts Blixt. Without interfaces it chooses them itself.
func (w *World) StartBlixt(c *lab.Config, interfaces ...string) {
	w.Helper()
	b, err := w.Standard.Blixt(w.Balancer, Binary, c, interfaces...)
	w.Check(err)
	w.Blixt, w.Config = b, c
	w.Check(b.Start())
}

// Status returns what blixt status reports.
func (w *World) Status() lab.Status {
	w.Helper()
	s, err := w.Blixt.Status()
	w.Check(err)
	return s
}

// In returns the world for a subtest.
func (w *World) In(t *testing.T) *World {
	sub := *w
	sub.T = t
	return &sub
}

// VIP returns the address of a port of the exclusive VIP of a family.
func VIP(family, port int) string { return At(map[int]string{4: lab.VIP4, 6: lab.VIP6}[family], port) }

// At joins an address and a port.
func At(ip string, port int) string { return net.JoinHostPort(ip, strconv.Itoa(port)) }

// Dial connects, or ends the test. Each UDP socket gets a source port of its own:
// Blixt remembers a flow for a minute, and a socket to which the kernel gave its port
// again would continue it.
func (w *World) Dial(n *lab.Node, network, remote string) net.Conn {
	w.Helper()
	local := ""
	if network == "udp" {
		local = fmt.Sprintf(":%d", NewPort())
	}
	c, err := n.Dial(network, local, remote, Patience)
	if err != nil {
		w.Fatalf("%s %s from %s%s: %v", network, remote, n.Name, local, err)
	}
	w.Cleanup(func() { c.Close() })
	return c
}

// lastPort counts the ports that NewPort has returned, in all networks.
var lastPort atomic.Uint32

// NewPort returns a source port that no flow of the last minute has had, below the
// kernel's ephemeral ports.
func NewPort() uint32 { return 31000 + lastPort.Add(1)%1768 }

// Accept listens at the node's TCP address until the test ends, and calls handle with
// each connection, each time in a goroutine of its own.
func (w *World) Accept(n *lab.Node, addr string, handle func(net.Conn)) {
	w.Helper()
	ln, err := n.Listen("tcp", addr)
	w.Check(err)
	w.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go handle(c)
		}
	}()
}

// Ask sends a question and returns the answer, or ends the test.
func (w *World) Ask(c net.Conn, body string) lab.Answer {
	w.Helper()
	a, err := lab.Ask(c, body, Patience)
	if err != nil {
		w.Fatalf("question to %s: %v", c.RemoteAddr(), err)
	}
	if a.Body != body {
		w.Fatalf("answer to %.40q is about %.40q", body, a.Body)
	}
	return a
}

// Frontend returns the status of a frontend, or ends the test.
func (w *World) Frontend(s lab.Status, network, addr string) writer.FrontendStatus {
	w.Helper()
	f, err := s.Frontend(addr + "/" + network)
	w.Check(err)
	return f
}

// Rise returns by how much a counter has risen.
func Rise(before, after lab.Status, counter string) uint64 {
	return after.Counters[counter] - before.Counters[counter]
}

// CheckChecksums fails the test if any node has received a packet with a wrong
// checksum.
func (w *World) CheckChecksums() {
	w.Helper()
	for _, n := range append([]*lab.Node{w.Client, w.Balancer}, append(w.Backends, w.Pods...)...) {
		if errors, err := n.ChecksumErrors(); err != nil || errors > 0 {
			w.Errorf("%s has seen %d wrong checksums (%v)", n.Name, errors, err)
		}
	}
}

// Seconds returns a number of seconds as a duration.
func Seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// ConfigOf makes a configuration of an exclusive address in both families, with
// TCP and UDP listeners that lead to a Service each.
func ConfigOf(services map[int][]lab.Endpoint) *lab.Config {
	c := &lab.Config{}
	g := lab.Gateway{Name: "vip", Addresses: []string{lab.VIP4, lab.VIP6}}
	for port, endpoints := range services {
		name := fmt.Sprintf("service-%d", port)
		c.Services = append(c.Services, lab.Service{Name: name, Endpoints: endpoints})
		for _, protocol := range []string{"TCP", "UDP"} {
			l := lab.Listener{Protocol: protocol, Port: port}
			g.Listeners = append(g.Listeners, l)
			c.Routes = append(c.Routes, lab.Route{Name: name, Gateway: g.Name, Listener: l, Refs: []lab.Ref{{Service: name, Weight: 1}}})
		}
	}
	c.Gateways = append(c.Gateways, g)
	return c
}

// Programs returns the ids of the programs at a device of the load balancer, ingress
// before egress.
func (w *World) Programs(dev string) (ids []ebpf.ProgramID) {
	w.Helper()
	w.Check(w.Balancer.Do(func() error {
		ifc, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		for _, attach := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			found, err := link.QueryPrograms(link.QueryOptions{Target: ifc.Index, Attach: attach})
			if err != nil {
				return err
			}
			for _, p := range found.Programs {
				ids = append(ids, p.ID)
			}
		}
		return nil
	}))
	return ids
}

// SPDX-License-Identifier: Apache-2.0

// Package e2e tests Blixt from the outside: real sockets in network namespaces,
// the real `blixt run` between them, and Blixt's own counters, which have to
// rise by what was sent.
package e2e

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// patience is how long anything that works at once may take on a busy machine.
const patience = 5 * time.Second

// executable is what is under test.
var executable string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if dir := os.Getenv(writerOf); dir != "" {
			if err := write(dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			return 0
		}
		if os.Geteuid() != 0 {
			fmt.Fprintln(os.Stderr, lab.ErrNotRoot)
			return 1
		}
		dir, err := os.MkdirTemp("", "blixt-e2e-")
		if err == nil {
			defer os.RemoveAll(dir)
			executable, err = lab.Build(dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// world is the standard network with servers on port 8080 of every backend and
// pod, and Blixt between them.
type world struct {
	*testing.T
	*lab.Standard
	blixt  *lab.Blixt
	config *lab.Config
}

// newWorld makes a network. Its name must be the test's alone.
func newWorld(t *testing.T, name string, backends, pods int) *world {
	t.Helper()
	s, err := lab.NewStandard("blixt-e2e-"+name, backends, pods)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, Standard: s}
	t.Cleanup(func() {
		if t.Failed() && w.blixt != nil {
			status, err := w.blixt.Run("status")
			t.Logf("blixt said:\n%s\nand its status is, %v:\n%s", w.blixt.Log(), err, status)
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

// check ends the test on an error.
func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// run starts Blixt. No interfaces: its own choice.
func (w *world) run(c *lab.Config, interfaces ...string) {
	w.Helper()
	b, err := w.Standard.Blixt(w.Balancer, executable, c, interfaces...)
	w.check(err)
	w.blixt, w.config = b, c
	w.check(b.Start())
}

// status asks Blixt.
func (w *world) status() lab.Status {
	w.Helper()
	s, err := w.blixt.Status()
	w.check(err)
	return s
}

// in returns the world for a subtest.
func (w *world) in(t *testing.T) *world {
	sub := *w
	sub.T = t
	return &sub
}

// vip returns the address of a port of the exclusive VIP of a family.
func vip(family, port int) string { return at(map[int]string{4: lab.VIP4, 6: lab.VIP6}[family], port) }

// at joins an address and a port.
func at(ip string, port int) string { return net.JoinHostPort(ip, strconv.Itoa(port)) }

// own returns the node's address of a family.
func own(n *lab.Node, family int) string {
	if family == 6 {
		return n.IPv6
	}
	return n.IPv4
}

// dial connects, or fails the test. A UDP flow is remembered for a minute and would
// go on, if the kernel chose its port again: each has one of its own.
func (w *world) dial(n *lab.Node, network, remote string) net.Conn {
	w.Helper()
	local := ""
	if network == "udp" {
		local = fmt.Sprintf(":%d", newPort())
	}
	c, err := n.Dial(network, local, remote, patience)
	if err != nil {
		w.Fatalf("%s %s from %s%s: %v", network, remote, n.Name, local, err)
	}
	w.Cleanup(func() { c.Close() })
	return c
}

// lastPort counts the ports that newPort has given, to any world.
var lastPort atomic.Uint32

// newPort is a source port that no flow of the last minute has had, below those
// that the kernel chooses.
func newPort() uint32 { return 31000 + lastPort.Add(1)%1768 }

// ask asks once and returns the answer, or fails the test.
func (w *world) ask(c net.Conn, body string) lab.Answer {
	w.Helper()
	a, err := lab.Ask(c, body, patience)
	if err != nil {
		w.Fatalf("ask %s: %v", c.RemoteAddr(), err)
	}
	if a.Body != body {
		w.Fatalf("answer to %.40q is about %.40q", body, a.Body)
	}
	return a
}

// frontend returns what Blixt says of a frontend.
func (w *world) frontend(s lab.Status, network, addr string) writer.FrontendStatus {
	w.Helper()
	f, err := s.Frontend(addr + "/" + network)
	w.check(err)
	return f
}

// rise returns by how much a counter has risen.
func rise(before, after lab.Status, counter string) uint64 {
	return after.Counters[counter] - before.Counters[counter]
}

// noChecksumErrors fails the test if any node has received a wrong checksum.
func (w *world) noChecksumErrors() {
	w.Helper()
	for _, n := range append([]*lab.Node{w.Client, w.Balancer}, append(w.Backends, w.Pods...)...) {
		if errors, err := n.ChecksumErrors(); err != nil || errors > 0 {
			w.Errorf("%s has seen %d wrong checksums (%v)", n.Name, errors, err)
		}
	}
}

// seconds is short for a number of them.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

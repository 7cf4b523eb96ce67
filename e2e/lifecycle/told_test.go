// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestBothEndsHearThatABackendIsGone: connections on which nobody sends anything end at
// the client and at the server, when their endpoint is removed. Those of others stay.
func TestBothEndsHearThatABackendIsGone(t *testing.T) {
	w := labtest.New(t, "told", 2, 1)
	const port = 9000
	serve := func(gone bool) *lab.Config {
		stays := lab.Endpoints(port, w.Backends[1])
		services := map[int][]lab.Endpoint{82: stays, 80: lab.Endpoints(port, w.Backends[0]), 81: lab.On("balancer", lab.Endpoints(port, w.Pods[0]))}
		if gone {
			services[80], services[81] = stays, stays
		}
		return labtest.ConfigOf(services)
	}
	accepted := map[*lab.Node]chan net.Conn{}
	for _, n := range []*lab.Node{w.Backends[0], w.Backends[1], w.Pods[0]} {
		accepted[n] = make(chan net.Conn, 16)
		w.Accept(n, fmt.Sprintf(":%d", port), func(c net.Conn) { accepted[n] <- c })
	}
	w.StartBlixt(serve(false), "eth0", "eth1", "pods")

	type end struct {
		name string
		net.Conn
	}
	var gone, stay []end
	for frontend, server := range map[int]*lab.Node{80: w.Backends[0], 81: w.Pods[0], 82: w.Backends[1]} {
		for _, family := range []int{4, 6} {
			client := w.Dial(w.Client, "tcp", labtest.VIP(family, frontend))
			at := <-accepted[server]
			t.Cleanup(func() { _ = at.Close() })
			for _, c := range []net.Conn{client, at} { // some data in both directions
				w.Check(c.SetDeadline(time.Now().Add(labtest.Patience)))
				if _, err := c.Write([]byte("hello")); err != nil {
					t.Fatal(err)
				}
			}
			for _, c := range []net.Conn{client, at} {
				if _, err := c.Read(make([]byte, 5)); err != nil {
					t.Fatal(err)
				}
			}
			name := fmt.Sprintf("IPv%d, %s: ", family, server.Name)
			ends := []end{{name + "client", client}, {name + "server", at}}
			if frontend == 82 {
				stay = append(stay, ends...)
			} else {
				gone = append(gone, ends...)
			}
		}
	}

	w.Check(w.Blixt.Apply(serve(true)))
	limit := time.Now().Add(labtest.Seconds(8))
	for _, c := range gone {
		w.Check(c.SetDeadline(limit))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s hears %v, want a reset", c.name, err)
		}
	}
	for i := 0; i < len(stay); i += 2 {
		client, server := stay[i], stay[i+1]
		w.Check(client.SetDeadline(time.Now().Add(labtest.Patience)))
		w.Check(server.SetDeadline(time.Now().Add(labtest.Patience)))
		if _, err := client.Write([]byte("x")); err != nil {
			t.Errorf("%s: %v", client.name, err)
		}
		if _, err := server.Read(make([]byte, 1)); err != nil {
			t.Errorf("%s: %v", server.name, err)
		}
	}
}

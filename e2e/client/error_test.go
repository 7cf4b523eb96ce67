// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package client

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// TestClosedPorts asks for a port of a backend at which nobody listens: the client is told.
func TestClosedPorts(t *testing.T) {
	eachSharedTopology(t, func(w *world) {
		for _, network := range []string{"tcp", "udp"} {
			for _, family := range []int{4, 6} {
				w.Run(fmt.Sprintf("%s%d", network, family), func(t *testing.T) {
					w := w.In(t)
					w.dumpIfFailed()
					w.unharmed(func() {
						c, err := w.dial(w.client, network, vip(family, 84))
						if err == nil {
							defer c.Close()
							_, err = lab.Ask(c, "hello", patience)
						}
						if !errors.Is(err, syscall.ECONNREFUSED) {
							t.Errorf("the client hears %v, want that it is refused", err)
						}
					})
				})
			}
		}
	})
}

// forgetPaths has a node forget every path MTU.
func forgetPaths(n *lab.Node) error {
	_, four := n.Run(patience, "ip", "-4", "route", "flush", "cache")
	_, six := n.Run(patience, "ip", "-6", "route", "flush", "cache")
	return errors.Join(four, six)
}

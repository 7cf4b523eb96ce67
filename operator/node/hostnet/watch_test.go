// SPDX-License-Identifier: Apache-2.0

package hostnet

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/vishvananda/netlink"
)

func newWatcher(t *testing.T) *Watcher {
	t.Helper()
	w := Watch()
	mustLook(t, w)
	t.Cleanup(w.Close)
	return w
}

// run has a Watcher run until the test ends. Its channel gets what it tells of.
func run(t *testing.T, w *Watcher) chan bool {
	changed, ended := make(chan bool, 10000), make(chan bool)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		w.Run(ctx, func() { _, _ = w.Look(); changed <- true })
		close(ended)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return changed
}

func TestEveryChangeOfTheNetworkIsReported(t *testing.T) {
	w := newWatcher(t)
	changed := run(t, w)
	notice := func(what string, do func()) {
		t.Helper()
		for len(changed) > 0 {
			<-changed
		}
		do()
		eventually(t, func() error {
			if len(changed) == 0 {
				return fmt.Errorf("nobody notices: %s", what)
			}
			return nil
		})
	}
	var link netlink.Link
	notice("a new interface", func() { link = veth(t, "eth0") })
	notice("an address", func() { assign(t, link, "192.0.2.1/24") })
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP("192.0.2.254")}
	notice("a default route", func() { must(t, netlink.RouteAdd(route)) })
	notice("a default route that goes", func() { must(t, netlink.RouteDel(route)) })
	notice("an interface that goes", func() { must(t, netlink.LinkDel(link)) })
}

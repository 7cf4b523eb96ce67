// SPDX-License-Identifier: Apache-2.0

package hostnet

import (
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/ownhost"
)

// TestMain gives the tests a host of their own.
func TestMain(m *testing.M) {
	ownhost.Main(m, func() error { return nil })
}

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for f to return nil.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// add adds an interface, brings it up, and removes it at the end.
func add(t *testing.T, link netlink.Link) netlink.Link {
	t.Helper()
	must(t, netlink.LinkAdd(link))
	t.Cleanup(func() { _ = netlink.LinkDel(link) }) // the test may have removed it
	must(t, netlink.LinkSetUp(link))
	return link
}

// veth adds a pair of which the other end is called peer-<name>.
func veth(t *testing.T, name string) netlink.Link {
	t.Helper()
	return add(t, &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "peer-" + name})
}

// assign gives an interface addresses.
func assign(t *testing.T, link netlink.Link, prefixes ...string) {
	t.Helper()
	for _, p := range prefixes {
		a, err := netlink.ParseAddr(p)
		must(t, err)
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		must(t, netlink.AddrAdd(link, a))
	}
}

func mustLook(t *testing.T, w *Watcher) *Snapshot {
	t.Helper()
	s, err := w.Look()
	must(t, err)
	return s
}

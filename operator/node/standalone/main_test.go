// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/ownhost"
)

// TestMain gives the tests a host of their own.
func TestMain(m *testing.M) {
	ownhost.Main(m, ownhost.LoopbackUp)
}

// must ends the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patience is how long a test waits for what takes a moment on an idle machine.
const patience = time.Minute

// eventually waits for f to return nil.
func eventually(t testing.TB, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// add adds an interface, which is removed at the end, and brings it up.
func add(t testing.TB, link netlink.Link) {
	t.Helper()
	must(t, netlink.LinkAdd(link))
	t.Cleanup(func() { _ = netlink.LinkDel(link) }) // the test may have removed it
	up(t, link.Attrs().Name)
}

func up(t testing.TB, name string) {
	t.Helper()
	must(t, netlink.LinkSetUp(byName(t, name)))
}

func byName(t testing.TB, name string) netlink.Link {
	t.Helper()
	link, err := netlink.LinkByName(name)
	must(t, err)
	return link
}

// veth adds a pair of which the other end is called peer-<name>.
func veth(t testing.TB, name string) {
	t.Helper()
	add(t, &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "peer-" + name})
}

// assign gives an interface addresses.
func assign(t testing.TB, name string, prefixes ...string) {
	t.Helper()
	for _, p := range prefixes {
		a, err := netlink.ParseAddr(p)
		must(t, err)
		a.Flags = unix.IFA_F_NODAD
		must(t, netlink.AddrAdd(byName(t, name), a))
	}
}

// addresses returns the addresses of an interface, without loopback and link-local
// ones.
func addresses(t testing.TB, name string) (found []netip.Addr) {
	t.Helper()
	list, err := netlink.AddrList(byName(t, name), netlink.FAMILY_ALL)
	must(t, err)
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && !ip.Unmap().IsLinkLocalUnicast() && !ip.Unmap().IsLoopback() {
			found = append(found, ip.Unmap())
		}
	}
	return found
}

// neighbour is another machine, at the end of a cable.
type neighbour struct{ fd int }

// newNeighbour makes a machine that is connected to a new interface eth0 of this host.
func newNeighbour(t *testing.T, prefixes ...string) neighbour {
	t.Helper()
	made := make(chan error)
	n := neighbour{fd: -1}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		made <- err
	}()
	must(t, <-made)
	t.Cleanup(func() { _ = unix.Close(n.fd) })
	add(t, &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(n.fd)})
	must(t, n.do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, p := range prefixes {
			a, err := netlink.ParseAddr(p)
			if err != nil {
				return err
			}
			a.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(link, a); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(link)
	}))
	return n
}

// do calls f in the neighbour.
func (n neighbour) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(n.fd, unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// listen accepts connections until the test ends, and closes each at once.
func listen(t *testing.T, in func(func() error) error, addr string) {
	t.Helper()
	var ln net.Listener
	must(t, in(func() (err error) {
		ln, err = net.Listen("tcp", addr)
		return err
	}))
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
}

// here calls f on this host, as neighbour.do does on a neighbour.
func here(f func() error) error { return f() }

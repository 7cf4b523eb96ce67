// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// exclusive returns addresses that Blixt serves alone.
func exclusive(ips ...string) (list []lb.Address) {
	for _, ip := range ips {
		list = append(list, lb.Address{IP: netip.MustParseAddr(ip), Exclusive: true})
	}
	return list
}

// ips parses addresses.
func ips(texts ...string) (list []netip.Addr) {
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

// mustReadNetwork returns the network as it is now.
func mustReadNetwork(t *testing.T) *network {
	t.Helper()
	n, err := readNetwork(nil)
	must(t, err)
	return n
}

// want fails the test unless an interface has these addresses.
func want(t *testing.T, name string, texts ...string) {
	t.Helper()
	got, wanted := addresses(t, name), ips(texts...)
	slices.SortFunc(got, netip.Addr.Compare)
	slices.SortFunc(wanted, netip.Addr.Compare)
	if !slices.Equal(got, wanted) {
		t.Errorf("%s has %v, want %v", name, got, wanted)
	}
}

func newVIPs(t *testing.T, file string) *vips {
	t.Helper()
	v, err := readVIPs(file)
	must(t, err)
	return v
}

// Addresses of the network between the host and its neighbour.
const (
	host4, host6 = "192.0.2.1", "2001:db8:1::1"
	peer4, peer6 = "192.0.2.2", "2001:db8:1::2"
	near4, near6 = "192.0.2.100", "2001:db8:1::100"
	far4, far6   = "198.51.100.1", "2001:db8:9::1"
)

func TestServedAddressIsWhereNeighboursFindIt(t *testing.T) {
	other := newNeighbour(t, "eth0", peer4+"/24", peer6+"/64")
	assign(t, "eth0", host4+"/24", host6+"/64")
	v := newVIPs(t, filepath.Join(t.TempDir(), "addresses"))
	must(t, v.assign(exclusive(near4, near6, far4, far6), mustReadNetwork(t)))

	want(t, "eth0", host4, host6, near4, near6)
	want(t, "lo", far4, far6)
	for _, ip := range []string{near4, near6} {
		listen(t, here, net.JoinHostPort(ip, "80"))
		must(t, other.do(func() error {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(ip, "80"), 2*time.Second)
			if err == nil {
				c.Close()
			}
			return err
		}))
	}
	for _, ip := range []string{far4, far6} { // from the host itself
		listen(t, here, net.JoinHostPort(ip, "80"))
		c, err := net.DialTimeout("tcp", net.JoinHostPort(ip, "80"), 2*time.Second)
		must(t, err)
		c.Close()
	}
}

func TestServedAddressIsNeverTheSourceOfTheHost(t *testing.T) {
	other := newNeighbour(t, "eth0", peer4+"/24", peer6+"/64")
	v := newVIPs(t, filepath.Join(t.TempDir(), "addresses"))
	// Before the host's own are there, and lower than they: a kernel may prefer either.
	assign(t, "eth0", host4+"/32", host6+"/128")
	network := mustReadNetwork(t)
	link := byName(t, "eth0").Attrs()
	for _, p := range []string{"192.0.2.0/24", "2001:db8:1::/64"} {
		network.connected = append(network.connected, connected{link.Index, link.Name, netip.MustParsePrefix(p)})
	}
	must(t, v.assign(exclusive("192.0.2.100", "2001:db8:1::", "2001:db8:1::100", far4, far6), network))
	assign(t, "eth0", "192.0.2.3/24", "2001:db8:1::3/64")
	must(t, netlink.AddrDel(byName(t, "eth0"), mustAddr(t, host4+"/32")))
	must(t, netlink.AddrDel(byName(t, "eth0"), mustAddr(t, host6+"/128")))

	for to, from := range map[string]string{peer4: "192.0.2.3", peer6: "2001:db8:1::3"} {
		listen(t, other.do, net.JoinHostPort(to, "80"))
		c, err := net.DialTimeout("tcp", net.JoinHostPort(to, "80"), 2*time.Second)
		must(t, err)
		if got := c.LocalAddr().(*net.TCPAddr).IP.String(); got != from {
			t.Errorf("the host talks to %s as %s, want %s", to, got, from)
		}
		c.Close()
	}
}

func mustAddr(t *testing.T, text string) *netlink.Addr {
	t.Helper()
	a, err := netlink.ParseAddr(text)
	must(t, err)
	return a
}

func TestAddressesThatAreNoLongerServedAreRemoved(t *testing.T) {
	veth(t, "eth0")
	assign(t, "eth0", host4+"/24", host6+"/64")
	file := filepath.Join(t.TempDir(), "addresses")
	v := newVIPs(t, file)
	must(t, v.assign(exclusive(near4, near6, far4, far6), mustReadNetwork(t)))
	must(t, v.assign(exclusive(near4, far6), mustReadNetwork(t)))
	want(t, "eth0", host4, host6, near4)
	want(t, "lo", far6)
	must(t, v.remove())
	want(t, "eth0", host4, host6)
	want(t, "lo")
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("a file is left: %v", err)
	}
}

func TestAddressesOfTheHostAreLeftAlone(t *testing.T) {
	veth(t, "eth0")
	assign(t, "eth0", host4+"/24", near4+"/32")
	v := newVIPs(t, filepath.Join(t.TempDir(), "addresses"))
	shared := []lb.Address{{IP: netip.MustParseAddr(near4)}}
	must(t, v.assign(shared, mustReadNetwork(t)))
	if own := v.own(mustReadNetwork(t).addresses); !slices.Equal(own, ips(host4, near4)) {
		t.Errorf("own addresses are %v", own)
	}
	must(t, v.remove())
	want(t, "eth0", host4, near4)
}

// TestSuccessorOfAKilledProcessKnowsItsAddresses: a process that was killed has removed
// nothing. The next one tells its addresses from the host's own.
func TestSuccessorOfAKilledProcessKnowsItsAddresses(t *testing.T) {
	veth(t, "eth0")
	assign(t, "eth0", host4+"/24")
	file := filepath.Join(t.TempDir(), "addresses")
	must(t, newVIPs(t, file).assign(exclusive(near4, far4), mustReadNetwork(t)))

	v := newVIPs(t, file)
	if own := v.own(mustReadNetwork(t).addresses); !slices.Equal(own, ips(host4)) {
		t.Errorf("own addresses are %v, want %s alone", own, host4)
	}
	must(t, v.assign(exclusive(far4, far6), mustReadNetwork(t)))
	want(t, "eth0", host4)
	want(t, "lo", far4, far6)
	must(t, v.remove())
	want(t, "lo")
}

// TestAddressThatWasWrittenDownOnlyIsNoError: the process may have been killed after it
// wrote the file, before it added the address.
func TestAddressThatWasWrittenDownOnlyIsNoError(t *testing.T) {
	veth(t, "eth0")
	assign(t, "eth0", host4+"/24")
	file := filepath.Join(t.TempDir(), "addresses")
	must(t, newVIPs(t, file).assign(exclusive(near4, far4), mustReadNetwork(t)))
	must(t, netlink.AddrDel(byName(t, "eth0"), mustAddr(t, near4+"/32")))
	must(t, netlink.AddrDel(byName(t, "lo"), mustAddr(t, far4+"/32")))

	v := newVIPs(t, file)
	must(t, v.assign(exclusive(far4), mustReadNetwork(t)))
	want(t, "eth0", host4)
	want(t, "lo", far4)
	must(t, v.remove())
}

func TestBrokenFileOfAddressesIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "addresses")
	must(t, os.WriteFile(file, []byte(`{"192.0.2.1`), 0o644))
	if _, err := readVIPs(file); err == nil {
		t.Error("no error")
	}
}

func TestAddressGoesWithItsInterface(t *testing.T) {
	veth(t, "eth0")
	assign(t, "eth0", host4+"/24")
	v := newVIPs(t, filepath.Join(t.TempDir(), "addresses"))
	must(t, v.assign(exclusive(near4), mustReadNetwork(t)))
	must(t, netlink.LinkDel(byName(t, "eth0")))
	must(t, v.assign(exclusive(near4), mustReadNetwork(t)))
	want(t, "lo", near4)

	// And comes back with it, without having been away.
	veth(t, "eth0")
	assign(t, "eth0", host4+"/24")
	must(t, v.assign(exclusive(near4), mustReadNetwork(t)))
	want(t, "eth0", host4, near4)
	want(t, "lo")
	must(t, v.remove())
}

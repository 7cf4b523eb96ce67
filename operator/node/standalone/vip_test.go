// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vishvananda/netlink"

	"github.com/kubernetes-sigs/blixt/operator/node/vip"
)

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

// newHolder returns a Holder that the tests end with.
func newHolder(t *testing.T) *vip.Holder {
	t.Helper()
	h := vip.New(vip.Options{Name: "test", Changed: func() {}})
	t.Cleanup(func() { must(t, h.Remove()) })
	return h
}

// hold makes exactly these addresses ours.
func hold(t *testing.T, h *vip.Holder, texts ...string) {
	t.Helper()
	must(t, h.Hold(ips(texts...), mustReadNetwork(t).View))
}

// Addresses of the network between the host and its neighbour.
const (
	host4, host6 = "192.0.2.1", "2001:db8:1::1"
	peer4, peer6 = "192.0.2.2", "2001:db8:1::2"
	near4, near6 = "192.0.2.100", "2001:db8:1::100"
	far4, far6   = "198.51.100.1", "2001:db8:9::1"
)

// forward sets whether the host forwards IPv6, until the test ends.
func forward(t *testing.T, value string) {
	t.Helper()
	setting(t, "/proc/sys/net/ipv6/conf/all/forwarding", value)
}

// setting writes a setting of the kernel, until the test ends.
func setting(t *testing.T, file, value string) {
	t.Helper()
	before, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, []byte(value), 0))
	t.Cleanup(func() { _ = os.WriteFile(file, before, 0) }) // it may have gone with its interface
}

// reach connects to port 80 of an address, within two seconds.
func reach(ip string) error {
	c, err := net.DialTimeout("tcp", net.JoinHostPort(ip, "80"), 2*time.Second)
	if err == nil {
		c.Close()
	}
	return err
}

func TestServedAddressIsWhereNeighboursFindIt(t *testing.T) {
	for forwarding, at := range map[string]string{"0": "eth0", "1": "lo"} {
		t.Run("forwarding="+forwarding, func(t *testing.T) {
			forward(t, forwarding)
			other := newNeighbour(t, peer4+"/24", peer6+"/64")
			assign(t, "eth0", host4+"/24", host6+"/64")
			hold(t, newHolder(t), near4, near6, far4, far6)

			have := map[string][]string{"eth0": {host4, host6, near4}, "lo": {far4, far6}}
			have[at] = append(have[at], near6)
			eventuallyHas(t, "eth0", have["eth0"]...)
			eventuallyHas(t, "lo", have["lo"]...)
			for _, ip := range []string{near4, near6} {
				listen(t, here, net.JoinHostPort(ip, "80"))
				must(t, other.do(func() error { return reach(ip) }))
			}
			for _, ip := range []string{far4, far6} { // from the host itself
				listen(t, here, net.JoinHostPort(ip, "80"))
				must(t, reach(ip))
			}
		})
	}
}

// TestHostMayAddAnAddressThatWeHave: whatever we have, the host's own "ip addr add" of
// the same address succeeds, with any prefix length, and is told from ours.
func TestHostMayAddAnAddressThatWeHave(t *testing.T) {
	forward(t, "1")
	veth(t, "eth0")
	veth(t, "eth1")
	assign(t, "eth0", host4+"/24", host6+"/64")
	h := newHolder(t)
	hold(t, h, near4, near6)
	if n := mustReadNetwork(t); !slices.Equal(n.HostAddresses(), ips(host4, host6)) {
		t.Errorf("addresses of the host are %v: ours are among them", n.HostAddresses())
	}
	for _, name := range []string{"eth0", "eth1"} {
		for _, prefix := range []string{near4 + "/32", near4 + "/24", near4 + "/25", near6 + "/128", near6 + "/64"} {
			assign(t, name, prefix)
			if n := mustReadNetwork(t); !slices.Contains(n.HostAddresses(), netip.MustParsePrefix(prefix).Addr()) {
				t.Errorf("%s of %s is not the host's: %v", prefix, name, n.HostAddresses())
			}
			must(t, netlink.AddrDel(byName(t, name), mustAddr(t, prefix)))
		}
	}
	// Ours goes without a trace, and leaves the host's.
	assign(t, "eth0", near4+"/24", near6+"/64")
	hold(t, h)
	want(t, "eth0", host4, host6, near4, near6)
	want(t, "lo")
	for _, ip := range []string{near4, near6} {
		listen(t, here, net.JoinHostPort(ip, "80"))
		eventually(t, func() error { return reach(ip) }) // the kernel makes its route a little later
	}
}

func TestServedAddressIsNeverTheSourceOfTheHost(t *testing.T) {
	other := newNeighbour(t, peer4+"/24", peer6+"/64")
	// Before the host's own are there, and lower than they: a kernel may prefer either.
	assign(t, "eth0", "192.0.2.201/24", "2001:db8:1::201/64")
	hold(t, newHolder(t), near4, "2001:db8:1::", near6, far4, far6)
	assign(t, "eth0", "192.0.2.3/24", "2001:db8:1::3/64")
	must(t, netlink.AddrDel(byName(t, "eth0"), mustAddr(t, "192.0.2.201/24")))
	must(t, netlink.AddrDel(byName(t, "eth0"), mustAddr(t, "2001:db8:1::201/64")))
	assign(t, "eth0", "192.0.2.3/24") // it went with the first of its network

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
	forward(t, "1")
	veth(t, "eth0")
	assign(t, "eth0", host4+"/24", host6+"/64")
	h := newHolder(t)
	hold(t, h, near4, near6, far4, far6)
	hold(t, h, near4, far6)
	want(t, "eth0", host4, host6, near4)
	want(t, "lo", far6)
	must(t, h.Remove())
	want(t, "eth0", host4, host6)
	want(t, "lo")
	for file, before := range map[string]string{"conf/eth0/proxy_ndp": "0\n", "neigh/eth0/proxy_delay": "80\n"} {
		now, err := os.ReadFile("/proc/sys/net/ipv6/" + file)
		must(t, err)
		if string(now) != before {
			t.Errorf("%s is %q, was %q", file, now, before)
		}
	}
	proxies, err := netlink.NeighProxyList(0, netlink.FAMILY_V6)
	must(t, err)
	if len(proxies) > 0 {
		t.Errorf("proxies are left: %v", proxies)
	}
}

// TestSuccessorOfAKilledProcessKnowsItsAddresses: a process that was killed has removed
// nothing. The next one tells its addresses from the host's own, and from those of
// another load balancer, without any file.
func TestSuccessorOfAKilledProcessKnowsItsAddresses(t *testing.T) {
	forward(t, "1")
	veth(t, "eth0")
	assign(t, "eth0", host4+"/24", host6+"/64")
	hold(t, newHolder(t), near4, near6, far4, "199.0.2.100")
	other := vip.New(vip.Options{Name: "other", Changed: func() {}})
	t.Cleanup(func() { must(t, other.Remove()) })
	// The same last bytes as ours: the kernel must not take one for secondary.
	hold(t, other, "192.0.2.200", "198.0.2.100", "2001:db8:1::200")

	if n := mustReadNetwork(t); !slices.Equal(n.HostAddresses(), ips(host4, host6)) {
		t.Errorf("own addresses are %v, want %s and %s alone", n.HostAddresses(), host4, host6)
	}
	h := newHolder(t)
	hold(t, h, far4, far6)
	want(t, "eth0", host4, host6, "192.0.2.200")
	want(t, "lo", "198.0.2.100", far4, far6, "2001:db8:1::200")
	must(t, h.Remove())
	want(t, "eth0", host4, host6, "192.0.2.200")
	want(t, "lo", "198.0.2.100", "2001:db8:1::200")
}

// TestAddressesOfAnEarlierVersionAreAdopted: that version kept a file, and did not mark
// what it added.
func TestAddressesOfAnEarlierVersionAreAdopted(t *testing.T) {
	veth(t, "eth0")
	assign(t, "eth0", host4+"/24", host6+"/64")
	for ip, name := range map[string]string{near4: "eth0", near6: "eth0", far4: "lo", far6: "lo"} {
		a := mustAddr(t, netip.PrefixFrom(netip.MustParseAddr(ip), netip.MustParseAddr(ip).BitLen()).String())
		a.Scope, a.Flags, a.ValidLft = unix.RT_SCOPE_HOST, unix.IFA_F_NODAD, math.MaxUint32
		if a.IP.To4() != nil {
			a.ValidLft, a.Flags = 0, 0
		}
		must(t, netlink.AddrAdd(byName(t, name), a))
	}
	file := filepath.Join(t.TempDir(), "addresses")
	text := fmt.Sprintf(`{"%[2]s":{"index":%[1]d},"%[3]s":{"index":%[1]d},"%[4]s":{"index":1},"%[5]s":{"index":1},"192.0.2.77":{"index":%[1]d}}`,
		byName(t, "eth0").Attrs().Index, near4, near6, far4, far6)
	must(t, os.WriteFile(file, []byte(text), 0o644))
	must(t, vip.AdoptNoted(file, "test"))
	want(t, "eth0", host4, host6, near4)
	want(t, "lo", far4, near6, far6)
	hold(t, newHolder(t))
	want(t, "eth0", host4, host6)
	want(t, "lo")
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the file is left: %v", err)
	}
}

func TestAddressGoesWithItsInterface(t *testing.T) {
	veth(t, "eth0")
	assign(t, "eth0", host4+"/24")
	h := newHolder(t)
	hold(t, h, near4)
	must(t, netlink.LinkDel(byName(t, "eth0")))
	hold(t, h, near4)
	want(t, "lo", near4)

	// And comes back with it, without having been away.
	veth(t, "eth0")
	assign(t, "eth0", host4+"/24")
	hold(t, h, near4)
	want(t, "eth0", host4, near4)
	want(t, "lo")
}

func TestAddressGoesToTheLongestNetworkThatIsUp(t *testing.T) {
	for _, name := range []string{"vpn0", "eth0", "eth1", "eth2"} {
		veth(t, name)
	}
	assign(t, "vpn0", "10.8.0.1/8")
	assign(t, "eth0", "10.1.0.1/16", "2001:db8::1/32")
	assign(t, "eth1", "10.1.2.1/24", "2001:db8:1::1/64")
	assign(t, "eth2", "10.1.2.2/25", "10.1.3.1/32")
	must(t, netlink.LinkSetDown(byName(t, "eth2")))
	hold(t, newHolder(t), "10.1.2.9", "10.1.4.9", "10.2.0.9", "10.1.3.2", "11.0.0.1", "2001:db8:1::9", "2001:db8:2::9")
	want(t, "vpn0", "10.8.0.1", "10.2.0.9")
	want(t, "eth0", "10.1.0.1", "2001:db8::1", "10.1.4.9", "10.1.3.2", "2001:db8:2::9")
	want(t, "eth1", "10.1.2.1", "2001:db8:1::1", "10.1.2.9", "2001:db8:1::9")
	want(t, "lo", "11.0.0.1")
}

// TestAddressStaysWhileItsInterfaceIsDownForAMoment: it goes to the network of a VPN only
// when the grace is over.
func TestAddressStaysWhileItsInterfaceIsDownForAMoment(t *testing.T) {
	veth(t, "vpn0")
	veth(t, "eth0")
	assign(t, "vpn0", "192.0.0.1/8")
	assign(t, "eth0", host4+"/24")
	changed := make(chan bool, 10)
	h := vip.New(vip.Options{Name: "test", Grace: 50 * time.Millisecond, Changed: func() { changed <- true }})
	t.Cleanup(func() { must(t, h.Remove()) })
	o := newObserver(nil, 0)
	t.Cleanup(o.watcher.Close)
	again := func() {
		t.Helper()
		n, err := o.look()
		must(t, err)
		must(t, h.Hold(ips(near4), n.View))
	}
	again()
	must(t, netlink.LinkSetDown(byName(t, "eth0")))
	again()
	want(t, "eth0", host4, near4)
	select {
	case <-changed:
	case <-time.After(patience):
		t.Fatal("nobody says that the grace is over")
	}
	again()
	want(t, "vpn0", "192.0.0.1", near4)
	up(t, "eth0")
	again()
	want(t, "eth0", host4, near4)
}

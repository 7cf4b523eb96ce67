// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// network is the state of the host's network at one moment.
type network struct {
	// interfaces are those to attach the program to.
	interfaces []string
	// addresses are the host's, without loopback and link-local ones.
	addresses []netip.Addr
	// primary are the addresses of interfaces with a default route.
	primary []netip.Addr
	// connected are the networks in which the interfaces reach neighbours.
	connected []connected
}

// connected is a network that an interface is in.
type connected struct {
	index  int
	name   string
	prefix netip.Prefix
}

// dumpTries is how often to ask for a list that changes while it is read.
const dumpTries = 20

// readNetwork reads the current network namespace. wanted are the interfaces to
// attach to; none: all that are up and do not hand their packets to a master.
func readNetwork(wanted []string) (n *network, err error) {
	for range dumpTries {
		if n, err = readOnce(wanted); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return n, err
		}
		time.Sleep(time.Millisecond)
	}
	return nil, err
}

// readOnce is readNetwork without retries. It returns netlink.ErrDumpInterrupted if
// something changed meanwhile.
func readOnce(wanted []string) (*network, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	names := map[int]string{}
	types := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		types[l.Attrs().Index] = l.Type()
	}
	n := &network{interfaces: slices.Clone(wanted)}
	for _, l := range links {
		a := l.Attrs()
		if len(wanted) == 0 && a.Flags&unix.IFF_UP != 0 && !isPort(types[a.MasterIndex]) {
			n.interfaces = append(n.interfaces, a.Name)
		}
	}
	slices.Sort(n.interfaces)

	defaults, err := defaultInterfaces()
	if err != nil {
		return nil, err
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || ip.Unmap().IsLoopback() || ip.Unmap().IsLinkLocalUnicast() {
			continue
		}
		ip = ip.Unmap()
		bits, _ := a.Mask.Size()
		n.addresses = append(n.addresses, ip)
		if defaults[a.LinkIndex] {
			n.primary = append(n.primary, ip)
		}
		if bits < ip.BitLen() {
			n.connected = append(n.connected, connected{a.LinkIndex, names[a.LinkIndex], netip.PrefixFrom(ip, bits).Masked()})
		}
	}
	slices.SortFunc(n.addresses, netip.Addr.Compare)
	slices.SortFunc(n.primary, netip.Addr.Compare)
	return n, nil
}

// isPort reports whether an interface with a master of this type hands its packets
// to the master. A program that is attached to the master receives them there.
func isPort(master string) bool {
	return slices.Contains([]string{"bridge", "bond", "team", "openvswitch"}, master)
}

// defaultInterfaces returns the indexes of the interfaces with a default route.
func defaultInterfaces() (map[int]bool, error) {
	found := map[int]bool{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if isDefault(r.Dst) {
				found[r.LinkIndex] = true
				for _, hop := range r.MultiPath {
					found[hop.LinkIndex] = true
				}
			}
		}
	}
	return found, nil
}

// isDefault reports whether a destination is that of a default route: netlink gives
// none, or a network of length 0.
func isDefault(dst *net.IPNet) bool {
	if dst == nil {
		return true
	}
	bits, _ := dst.Mask.Size()
	return bits == 0 && dst.IP.IsUnspecified()
}

// warnings returns a message for each setting of the host that would keep the load
// balancer from working. It forwards packets to backends on other machines as a
// router does.
func (n *network) warnings() []string {
	var w []string
	for _, s := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		value, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(s, ".", "/"))
		if err == nil && strings.TrimSpace(string(value)) == "0" {
			w = append(w, fmt.Sprintf("%s is 0: packets to backends on other machines will be dropped; run: sysctl -w %s=1", s, s))
		}
	}
	return w
}

// watchNetwork calls changed after each change of interfaces or addresses,
// until the context ends.
func watchNetwork(ctx context.Context, changed func()) error {
	links, addrs := make(chan netlink.LinkUpdate, 64), make(chan netlink.AddrUpdate, 64)
	lost := func(err error) {
		if ctx.Err() == nil {
			slog.Error("changes of the network are no longer seen", "error", err)
		}
	}
	if err := netlink.LinkSubscribeWithOptions(links, ctx.Done(), netlink.LinkSubscribeOptions{ErrorCallback: lost}); err != nil {
		return fmt.Errorf("watch interfaces: %w", err)
	}
	if err := netlink.AddrSubscribeWithOptions(addrs, ctx.Done(), netlink.AddrSubscribeOptions{ErrorCallback: lost}); err != nil {
		return fmt.Errorf("watch addresses: %w", err)
	}
	go func() {
		for {
			select {
			case _, open := <-links:
				if !open {
					return
				}
			case _, open := <-addrs:
				if !open {
					return
				}
			}
			changed()
		}
	}()
	return nil
}

// checkPorts returns an error if the host's own connections may use ports of the
// range. A reply could then belong to such a connection or to a flow of ours.
func checkPorts(r lb.PortRange) error {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return err
	}
	var low, high uint16
	if _, err := fmt.Sscan(string(text), &low, &high); err != nil {
		return fmt.Errorf("net.ipv4.ip_local_port_range is %q: %w", text, err)
	}
	if r.First > high || r.Last < low {
		return nil
	}
	return fmt.Errorf("SNAT ports %d-%d are used by connections of this host (net.ipv4.ip_local_port_range is %d-%d): choose others with --snat-ports",
		r.First, r.Last, low, high)
}

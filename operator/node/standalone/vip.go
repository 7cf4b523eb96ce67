// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/renameio/v2"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
)

// vips assigns the addresses that are served to this host. An address goes to the
// interface whose network it is in, so that neighbours find it (ARP, neighbour
// discovery), or else to lo, so that the host itself does. The host never chooses
// one as the source of its own connections.
type vips struct {
	// file records what was added, in case the process is killed.
	file string
	// added are the addresses that this host has because of us.
	added map[netip.Addr]vip
}

// loopbackIndex is the index of lo in every network namespace of Linux.
const loopbackIndex = 1

// vip is where an address was added.
type vip struct {
	Interface string `json:"interface"`
	Index     int    `json:"index"`
}

// readVIPs returns the addresses that an earlier process has added and not removed.
func readVIPs(file string) (*vips, error) {
	v := &vips{file: file, added: map[netip.Addr]vip{}}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return v, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &v.added); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return v, nil
}

// own returns the addresses without those that we have added.
func (v *vips) own(addresses []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(addresses), func(a netip.Addr) bool {
		_, ours := v.added[a]
		return ours
	})
}

// ours reports whether we have added an address.
func (v *vips) ours(a hostnet.Address) bool {
	_, ours := v.added[a.IP]
	return ours
}

// assign adds and removes addresses so that the host has exactly the exclusive
// ones. It returns the errors of those that fail, having done the others.
func (v *vips) assign(addresses []lb.Address, n *network) error {
	want := map[netip.Addr]vip{}
	for _, a := range addresses {
		if a.Exclusive {
			want[a.IP] = n.home(a.IP)
		}
	}
	moved := map[netip.Addr]bool{}
	var errs []error
	for ip, at := range v.added {
		if want[ip] != at {
			errs = append(errs, change(netlink.AddrDel, ip, at))
			delete(v.added, ip)
			moved[ip] = true
		}
	}
	// The file is written before an address is added: a process that is killed must
	// not leave an address that is not in it.
	for ip, at := range want {
		v.added[ip] = at
	}
	if err := v.write(); err != nil {
		return errors.Join(append(errs, err)...)
	}
	for ip, at := range want {
		if moved[ip] || !slices.Contains(n.addresses, ip) {
			errs = append(errs, change(netlink.AddrAdd, ip, at))
		}
	}
	return errors.Join(errs...)
}

// home returns the interface to which an address is to be added.
func (n *network) home(ip netip.Addr) vip {
	for _, c := range n.connected {
		if c.prefix.Contains(ip) {
			return vip{c.name, c.index}
		}
	}
	return vip{"lo", loopbackIndex}
}

// remove removes all addresses that we have added.
func (v *vips) remove() error {
	return v.assign(nil, &network{})
}

// change adds or removes an address on its interface. IPv6 needs no duplicate
// address detection: the administrator has given the address to us.
func change(do func(netlink.Link, *netlink.Addr) error, ip netip.Addr, at vip) error {
	link, err := netlink.LinkByIndex(at.Index)
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		return nil
	}
	if err != nil {
		return fmt.Errorf("interface %s: %w", at.Interface, err)
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}}
	if ip.Is6() {
		a.Flags = unix.IFA_F_NODAD
		a.ValidLft = math.MaxUint32 // valid for ever, but never preferred as a source
	} else {
		a.Scope = unix.RT_SCOPE_HOST // not a source of packets that leave the host
	}
	err = do(link, a)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("address %s of interface %s: %w", ip, at.Interface, err)
	}
	return nil
}

// write writes the file, or removes it if nothing is added.
func (v *vips) write() error {
	if len(v.added) == 0 {
		if err := os.Remove(v.file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := json.Marshal(v.added)
	if err != nil {
		return err
	}
	return renameio.WriteFile(v.file, text, 0o644, renameio.WithTempDir(filepath.Dir(v.file)), renameio.IgnoreUmask())
}

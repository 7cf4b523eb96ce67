// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
)

// Contested reports whether somebody else has an address that was to be ours.
func (h *Holder) Contested(ip netip.Addr) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.claims[ip]
	return h.others[ip] || c != nil && c.rival != "" && !c.assigned
}

// Problems returns a message for each address that is not ours, or not undisputed.
func (h *Holder) Problems() (lines []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ip := range slices.SortedFunc(maps.Keys(h.others), netip.Addr.Compare) {
		if h.wanted[ip] {
			lines = append(lines, fmt.Sprintf("address %s: another load balancer of this host (blixt run --name) has it, and keeps it: list another address in the Gateway, or remove what that one has left by blixt unload", ip))
		}
	}
	for _, ip := range h.sorted() {
		c := h.claims[ip]
		switch {
		case c.rival == "":
		case c.phase == held:
			lines = append(lines, fmt.Sprintf("address %s: the host with MAC %s on %s claims it as well: Blixt keeps and defends it, but clients may reach either. Take it from that host, list another address in the Gateway, or use --addresses leave if several hosts are to serve it", ip, net.HardwareAddr(c.rival), c.at.Name))
		case c.assigned: // it is being probed again
		default:
			lines = append(lines, fmt.Sprintf("address %s: the host with MAC %s on %s has it: Blixt leaves it to that host, and takes it when nobody answers for it any more. Take it from that host, list another address in the Gateway, or use --addresses leave if several hosts are to serve it", ip, net.HardwareAddr(c.rival), c.at.Name))
		}
	}
	if h.wireErr != nil {
		lines = append(lines, fmt.Sprintf("addresses are neither probed nor announced to neighbours, who may look for them elsewhere until their caches expire: %v: packet sockets need CAP_NET_RAW", h.wireErr))
	}
	return lines
}

// Notes returns a message for each address that neighbours may not find, or that the host
// itself could not get.
func (h *Holder) Notes() (lines []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ip := range h.sorted() {
		c := h.claims[ip]
		switch {
		case c.at.bits < 0:
			lines = append(lines, inNoNetwork(ip))
		case ip.Is6() && c.at.MAC != "" && !forwards(c.at.Name):
			lines = append(lines, fmt.Sprintf("address %s is on %s itself, where the host cannot add it then: with net.ipv6.conf.%s.forwarding=1 it is on lo, and the host can", ip, c.at.Name, c.at.Name))
		}
	}
	return lines
}

func inNoNetwork(ip netip.Addr) string {
	return fmt.Sprintf("address %s is in no network of this host: it is on lo, and only packets that a router sends here reach it", ip)
}

// InNoNetwork returns a message for each address that is in no network of a host.
func InNoNetwork(all []netip.Addr, n *hostnet.View) (lines []string) {
	for _, ip := range all {
		if choosePlace(ip, n, 0, func(i hostnet.Interface) bool { return i.Up }).bits < 0 {
			lines = append(lines, inNoNetwork(ip))
		}
	}
	return lines
}

func (h *Holder) sorted() []netip.Addr {
	return slices.SortedFunc(maps.Keys(h.claims), netip.Addr.Compare)
}

// SPDX-License-Identifier: Apache-2.0

package haproxy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// address is what stands behind bind or the name of a server.
type address struct {
	netip.Addr
	// port, and the last one of a range; 0, 0: none.
	port, end uint16
	// relative is what is added to the client's port, if offset.
	offset   bool
	relative int
}

// addressFamilies are prefixes of addresses, with the families that they allow. Others are
// no addresses of TCP: see foreignFamilies.
var addressFamilies = map[string]string{"ipv4": "4", "ipv6": "6", "tcp": "46", "tcp4": "4", "tcp6": "6", "ip": "46"}

// foreignFamilies are prefixes of what is no address of TCP, and what it is.
var foreignFamilies = map[string]string{
	"unix": "a UNIX socket", "uxst": "a UNIX socket", "abns": "a UNIX socket", "abnsz": "a UNIX socket", "fd": "an inherited socket",
	"sockpair": "an inherited socket", "udp": "UDP for logs", "udp4": "UDP for logs", "udp6": "UDP for logs", "uxdg": "a UNIX socket",
	"quic": "QUIC for HTTP/3", "quic4": "QUIC for HTTP/3", "quic6": "QUIC for HTTP/3", "rhttp": "HTTP that a server began",
	"rev": "HTTP that a server began", "mptcp": "Multipath TCP", "mptcp4": "Multipath TCP", "mptcp6": "Multipath TCP",
}

// parseAddress takes [FAMILY@][HOST][:PORT[-PORT]] apart. Without a port the port is 0. As
// in HAProxy the last colon is before the port, whether an IPv6 address has brackets or not.
func parseAddress(text string) (a address, err error) {
	families := "46"
	rest := strings.TrimPrefix(text, "stream+")
	if family, more, found := strings.Cut(rest, "@"); found {
		if what := foreignFamilies[family]; what != "" {
			return a, fmt.Errorf("it is %s, which has no address that clients on a network reach", what)
		}
		if families = addressFamilies[family]; families == "" {
			return a, fmt.Errorf("%s@ is no family of addresses that is known", family)
		}
		rest = more
	}
	if strings.HasPrefix(rest, "/") {
		return a, fmt.Errorf("it is a UNIX socket, which has no address that clients on a network reach")
	}
	host := rest
	if i := strings.LastIndexAny(rest, ":]"); i >= 0 && rest[i] == ':' {
		host = rest[:i]
		if err := a.ports(rest[i+1:]); err != nil {
			return a, err
		}
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	switch {
	case host == "" || host == "*":
		a.Addr = netip.IPv4Unspecified()
		if families == "6" {
			a.Addr = netip.IPv6Unspecified()
		}
		return a, nil
	case strings.Contains(host, "%"):
		return a, fmt.Errorf("%s has a zone: such addresses mean something on one interface only", host)
	}
	a.Addr, err = netip.ParseAddr(host)
	if err != nil {
		return a, fmt.Errorf("%s is a name: Blixt does not look up names: write the address in its place", quote(host))
	}
	if a.Is4() && families == "6" || a.Is6() && families == "4" {
		return a, fmt.Errorf("%s is an address of the other family", host)
	}
	a.Addr = a.Unmap()
	return a, nil
}

// ports takes what is behind the last colon.
func (a *address) ports(text string) error {
	if text == "" {
		return nil
	}
	if text[0] == '+' || text[0] == '-' {
		n, err := strconv.Atoi(text)
		if err != nil || n < -65535 || n > 65535 {
			return fmt.Errorf("%s is no number to add to a port", quote(text))
		}
		a.offset, a.relative = true, n
		return nil
	}
	first, last, isRange := strings.Cut(text, "-")
	port, err := strconv.ParseUint(first, 10, 16)
	if err != nil {
		return fmt.Errorf("%s is no port from 1 to 65535", quote(first))
	}
	a.port, a.end = uint16(port), uint16(port)
	if isRange {
		end, err := strconv.ParseUint(last, 10, 16)
		if err != nil || end < port {
			return fmt.Errorf("%s is no range of ports", quote(text))
		}
		a.end = uint16(end)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package advice

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Forwarding returns a message for each family that the host does not forward although
// backends need it. A host that forwards IPv6 ignores router advertisements, and loses
// the default route that it has by them, unless accept_ra is 2 (Linux,
// networking/ip-sysctl): that comes first.
func Forwarding(backends []Backend) (messages []string) {
	const message = "%s is 0: packets to backends on other machines will be dropped, as those to containers; run: sysctl -w %s"
	if some(backends, netip.Addr.Is4) && read("net/ipv4/ip_forward") == "0" {
		messages = append(messages, fmt.Sprintf(message, "net.ipv4.ip_forward", "net.ipv4.ip_forward=1"))
	}
	if some(backends, netip.Addr.Is6) && read("net/ipv6/conf/all/forwarding") == "0" {
		settings := "net.ipv6.conf.all.forwarding=1"
		advertised := advertisedDefaults()
		for _, name := range advertised {
			settings = fmt.Sprintf("net/ipv6/conf/%s/accept_ra=2 %s", name, settings)
		}
		m := fmt.Sprintf(message, "net.ipv6.conf.all.forwarding", settings)
		if len(advertised) > 0 {
			m += fmt.Sprintf(". With forwarding alone this host would lose the default route that routers advertise to %s", strings.Join(advertised, ", "))
		}
		messages = append(messages, m)
	}
	return messages
}

// advertisedDefaults returns the interfaces with a default route that the kernel has by
// router advertisements, and that it drops when it begins to forward.
func advertisedDefaults() (names []string) {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Protocol: unix.RTPROT_RA}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return nil
	}
	for _, r := range routes {
		if r.Dst != nil {
			if bits, _ := r.Dst.Mask.Size(); bits > 0 {
				continue
			}
		}
		link, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil { // it has gone
			continue
		}
		if name := link.Attrs().Name; read("net/ipv6/conf/"+name+"/accept_ra") == "1" {
			names = append(names, name)
		}
	}
	return names
}

// read returns a sysctl's value, "" if there is none: the kernel has no IPv6, for one.
func read(name string) string {
	text, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

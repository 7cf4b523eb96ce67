// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ndaProtocol is NDA_PROTOCOL, which package unix does not name.
const ndaProtocol = 12

// listProxies returns the entries that Blixt has added by which the kernel answers
// neighbour solicitations on an interface for an IPv6 address that the host has
// elsewhere.
func listProxies() (map[home]bool, error) {
	r := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
	r.AddData(&proxyHeader{Family: unix.AF_INET6, Flags: unix.NTF_PROXY})
	messages, err := r.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	if errors.Is(err, unix.EOPNOTSUPP) { // IPv6 is off
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list neighbour proxies: %w", err)
	}
	proxies := map[home]bool{}
	for _, m := range messages {
		attributes, err := nl.ParseRouteAttr(m[unix.SizeofNdMsg:])
		if err != nil {
			return nil, err
		}
		p := home{index: int(binary.NativeEndian.Uint32(m[4:]))}
		ours := false
		for _, a := range attributes {
			switch a.Attr.Type {
			case unix.NDA_DST:
				p.ip, _ = netip.AddrFromSlice(a.Value)
			case ndaProtocol:
				ours = a.Value[0] == Protocol
			}
		}
		if ours && p.ip.Is6() {
			proxies[p] = true
		}
	}
	return proxies, nil
}

func (p home) addProxy() error {
	return p.changeProxy(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
}

func (p home) removeProxy() error { return p.changeProxy(unix.RTM_DELNEIGH, 0) }

func (p home) changeProxy(request, flags int) error {
	r := nl.NewNetlinkRequest(request, flags|unix.NLM_F_ACK)
	r.AddData(&proxyHeader{Family: unix.AF_INET6, Ifindex: int32(p.index), Flags: unix.NTF_PROXY, State: unix.NUD_PERMANENT})
	r.AddData(nl.NewRtAttr(unix.NDA_DST, p.ip.AsSlice()))
	r.AddData(nl.NewRtAttr(ndaProtocol, []byte{Protocol}))
	_, err := r.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// proxyHeader is the header of a message about a neighbour.
type proxyHeader unix.NdMsg

func (h *proxyHeader) Len() int { return unix.SizeofNdMsg }

func (h *proxyHeader) Serialize() []byte {
	b := make([]byte, unix.SizeofNdMsg)
	b[0], b[10] = h.Family, h.Flags
	binary.NativeEndian.PutUint32(b[4:], uint32(h.Ifindex))
	binary.NativeEndian.PutUint16(b[8:], h.State)
	return b
}

// forwards reports whether an interface forwards IPv6. Only then the kernel answers for
// proxies there.
func forwards(name string) bool {
	text, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + name + "/forwarding")
	return err == nil && strings.TrimSpace(string(text)) != "0"
}

// setProxy makes the kernel answer for proxies of an interface, and without a random
// delay. It returns the settings that it changed, as they were before.
func setProxy(name string) (before map[string]string, err error) {
	before = map[string]string{}
	for file, value := range map[string]string{
		"/proc/sys/net/ipv6/conf/" + name + "/proxy_ndp":    "1",
		"/proc/sys/net/ipv6/neigh/" + name + "/proxy_delay": "0",
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			return before, err
		}
		if was := strings.TrimSpace(string(text)); was != value {
			if err := os.WriteFile(file, []byte(value), 0); err != nil {
				return before, err
			}
			before[file] = was
		}
	}
	return before, nil
}

// restore sets settings as they were. An interface may be gone.
func restore(before map[string]string) error {
	var errs []error
	for file, value := range before {
		if err := os.WriteFile(file, []byte(value), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

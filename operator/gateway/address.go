// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"net/netip"
	"slices"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// addresses are those that a Gateway is served on, and why not on others.
type addresses struct {
	usable []netip.Addr
	// unsupported refuses the Gateway as a whole.
	unsupported *fault
	// missing and unusable leave the other addresses working: adding a bad
	// address to a Gateway must not cut the clients of its good ones.
	missing, unusable *fault
}

func findAddresses(gw *gwv1.Gateway, o *Options) addresses {
	var a addresses
	if len(gw.Spec.Addresses) == 0 {
		a.assign(o)
	}
	for _, want := range gw.Spec.Addresses {
		kind := deref(want.Type, gwv1.IPAddressType)
		switch {
		case kind != gwv1.IPAddressType:
			a.unsupported = faultf(gwv1.GatewayReasonUnsupportedAddress,
				"Address type %s is not supported: use type IPAddress.", kind)
		case want.Value == "":
			a.assign(o)
		default:
			a.request(gw, want.Value, o)
		}
	}
	return a
}

// assign gives the Gateway the default addresses.
func (a *addresses) assign(o *Options) {
	if len(o.DefaultAddresses) == 0 {
		a.missing = faultf(gwv1.GatewayReasonAddressNotAssigned,
			"No address was asked for and no default is configured: name one in spec.addresses.")
	}
	for _, addr := range o.DefaultAddresses {
		a.add(addr)
	}
}

// request gives the Gateway an address that it names.
func (a *addresses) request(gw *gwv1.Gateway, value string, o *Options) {
	addr, err := netip.ParseAddr(value)
	if err != nil {
		a.refuse(value, "it is not an IP address")
		return
	}
	if !o.allowed(string(gw.Spec.GatewayClassName), gw.Namespace, addr.Unmap()) {
		a.refuse(value, fmt.Sprintf("the administrator does not allow it to Gateways of class %s in namespace %s",
			gw.Spec.GatewayClassName, gw.Namespace))
		return
	}
	a.add(addr)
}

func (a *addresses) add(addr netip.Addr) {
	addr = addr.Unmap()
	if why := unfit(addr); why != "" {
		a.refuse(addr.String(), why)
		return
	}
	if !slices.Contains(a.usable, addr) {
		a.usable = append(a.usable, addr)
	}
}

func (a *addresses) refuse(value, why string) {
	message := fmt.Sprintf("Address %s cannot be used: %s; use another one.", value, why)
	if a.unusable != nil {
		message = a.unusable.message + " " + message
	}
	a.unusable = faultf(gwv1.GatewayReasonAddressNotUsable, "%s", message)
}

// fault returns what to say of the addresses in Programmed.
func (a *addresses) fault() *fault {
	if a.unusable != nil {
		return a.unusable
	}
	return a.missing
}

// unfit says why no packet could be balanced to or from the address, or "".
func unfit(addr netip.Addr) string {
	switch {
	case !addr.IsValid():
		return "it is not an IP address"
	case addr.Is4In6():
		return "it is an IPv4 address written as IPv6"
	case addr.Zone() != "":
		return "it has a zone"
	case addr.IsUnspecified():
		return "it is the unspecified address"
	case addr.IsLoopback():
		return "it is a loopback address, which never leaves its host"
	case addr.IsMulticast():
		return "it is a multicast address"
	case addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "it is the broadcast address"
	case addr.Is6() && addr.IsLinkLocalUnicast():
		return "it is a link-local address, which means something on one interface only"
	}
	return ""
}

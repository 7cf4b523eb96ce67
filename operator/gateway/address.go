// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// addresses are those on which a Gateway is served, and why it is not served on
// others.
type addresses struct {
	// named are the addresses that the Gateway names. any is true if it also,
	// or only, takes what it is assigned.
	named []netip.Addr
	any   bool

	// usable may contain the unspecified addresses, which stand for every
	// address of each node.
	usable []netip.Addr
	// hostnames are the load balancer's. It delivers to nodePorts, by the
	// listener's port.
	hostnames []string
	nodePorts map[Port]uint16

	// unsupported refuses the Gateway as a whole.
	unsupported *fault
	// missing and unusable do not affect the other addresses: a bad address
	// that is added to a Gateway must not cut the clients of its good ones.
	missing, unusable, exhausted *fault
	// refusals are why each unusable address is.
	refusals []*fault
	// remark is appended to the message of Accepted.
	remark string
}

// newAddresses reads spec.addresses.
func newAddresses(spec []gwv1.GatewaySpecAddress) addresses {
	a := addresses{any: len(spec) == 0}
	for _, want := range spec {
		kind := deref(want.Type, gwv1.IPAddressType)
		addr, err := netip.ParseAddr(want.Value)
		switch {
		case kind != gwv1.IPAddressType:
			a.unsupported = faultf(gwv1.GatewayReasonUnsupportedAddress,
				"Address type %s is not supported: use type IPAddress.", kind)
		case want.Value == "":
			a.any = true
		case err != nil:
			a.refuse(want.Value, "it is not an IP address")
		case !slices.Contains(a.named, addr.Unmap()):
			a.named = append(a.named, addr.Unmap())
		}
	}
	return a
}

// assignStandalone assigns addresses without a cluster: those that the Gateway
// names, if they are allowed, and the default ones.
func (a *addresses) assignStandalone(gw *gwv1.Gateway, o *Options) {
	for _, addr := range a.named {
		if o.allowed(string(gw.Spec.GatewayClassName), gw.Namespace, addr) {
			a.add(addr)
			continue
		}
		a.refuse(addr.String(), fmt.Sprintf("the administrator does not allow it for Gateways of class %s in namespace %s",
			gw.Spec.GatewayClassName, gw.Namespace))
	}
	if !a.any {
		return
	}
	if len(o.DefaultAddresses) == 0 {
		a.miss("No address is named, and no default is configured: name one in spec.addresses.")
	}
	for _, addr := range o.DefaultAddresses {
		a.add(addr)
	}
}

// assignFromService assigns the addresses of the Gateway's Service. If the
// Gateway names addresses, it gets only those of them that the Service has. The
// status of the Service may be forged: it gives no address that another Gateway
// has.
func (h holders) assignFromService(g *gateway, given Assigned) {
	a := &g.addresses
	problem := strings.TrimSuffix(given.Problem, ".")
	if len(given.Addresses)+len(given.Hostnames) == 0 && (a.any || problem == "") {
		a.miss("No load balancer has assigned an address to the Gateway's Service yet: " + cmp.Or(problem,
			"that needs an implementation of Services of type LoadBalancer, such as a cloud's or MetalLB; without one, use address source Pool or Node") + ".")
		return
	}
	for _, addr := range given.Addresses {
		if addr = addr.Unmap(); g.isGiven(addr, given) {
			h.takeNamed(addr, g)
		}
	}
	slices.SortFunc(a.usable, netip.Addr.Compare)
	for _, addr := range a.named {
		switch {
		case slices.ContainsFunc(given.Addresses, func(g netip.Addr) bool { return g.Unmap() == addr }):
		case problem != "":
			a.refuse(addr.String(), "the load balancer did not assign it, and says: "+problem)
		default:
			a.refuse(addr.String(), "the load balancer did not assign it")
		}
	}
	if a.any {
		a.hostnames = slices.Sorted(slices.Values(given.Hostnames))
	}
	if len(a.usable)+len(a.hostnames) > 0 {
		a.nodePorts = given.NodePorts
	}
	if len(a.usable) == 0 && len(a.hostnames) > 0 && len(a.nodePorts) == 0 {
		a.miss(fmt.Sprintf("The load balancer is known by name only, %s, and the Gateway's Service has no node ports to which it could deliver.", phrase.Join(a.hostnames)))
	}
}

// assignNodes assigns all addresses of all selected nodes.
func (a *addresses) assignNodes(s *environment) {
	if len(s.nodes) == 0 {
		a.miss("None of the nodes that the data plane selects has an address: check the nodes, and spec.dataplane.nodes of the BlixtConfig.")
	}
	a.usable = append(a.usable, s.everywhere...)
}

func (a *addresses) add(addr netip.Addr) {
	addr = addr.Unmap()
	if why := InvalidAddress(addr); why != "" {
		a.refuse(addr.String(), why)
		return
	}
	if !slices.Contains(a.usable, addr) {
		a.usable = append(a.usable, addr)
	}
}

func (a *addresses) refuse(value, why string) {
	message := fmt.Sprintf("Address %s cannot be used: %s; use another one.", value, why)
	refusal := faultf(gwv1.GatewayReasonAddressNotUsable, "%s", message)
	refusal.value = "addresses/" + value
	a.refusals = append(a.refusals, refusal)
	if a.unusable != nil {
		message = a.unusable.message + " " + message
	}
	a.unusable = faultf(gwv1.GatewayReasonAddressNotUsable, "%s", message)
}

func (a *addresses) miss(message string) {
	if a.missing != nil {
		message = a.missing.message + " " + message
	}
	a.missing = faultf(gwv1.GatewayReasonAddressNotAssigned, "%s", message)
}

// fault returns why Programmed is False because of the addresses, or nil.
func (a *addresses) fault() *fault {
	return cmp.Or(a.unusable, a.missing, a.exhausted)
}

// maxAddresses is how many a status can list.
const maxAddresses = 16

// status returns status.addresses, and a remark that includes how many
// addresses it has no room for.
func (a *addresses) status(s *environment) (listed []gwv1.GatewayStatusAddress, remark string) {
	list := func(kind gwv1.AddressType, value string) {
		listed = append(listed, gwv1.GatewayStatusAddress{Type: &kind, Value: value})
	}
	var nodes []netip.Addr
	for _, addr := range a.usable {
		if !addr.IsUnspecified() {
			list(gwv1.IPAddressType, addr.String())
			continue
		}
		for _, node := range s.nodes {
			if node.Is6() == addr.Is6() && !slices.Contains(a.usable, node) {
				nodes = append(nodes, node)
			}
		}
	}
	for _, hostname := range a.hostnames {
		list(gwv1.HostnameAddressType, hostname)
	}
	for _, node := range nodes {
		list(gwv1.IPAddressType, node.String())
	}
	remark = a.remark
	if more := len(listed) - maxAddresses; more > 0 {
		listed = listed[:maxAddresses]
		remark += fmt.Sprintf(" It has %d more addresses than status.addresses can list.", more)
	}
	return listed, remark
}

// InvalidAddress returns why no packet can be balanced to or from the address,
// or "".
func InvalidAddress(addr netip.Addr) string {
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

// SPDX-License-Identifier: Apache-2.0

// Package ipsec tells which addresses the IPsec policies of this host cover (ip
// xfrm policy). What the data plane redirects passes none of them: a packet that
// they want encrypted, or blocked, would leave in clear text.
package ipsec

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Policies are those of one network namespace. Policies of sockets are none of
// them, nor are those of XFRM interfaces, to which a route leads.
type Policies struct {
	selectors []selector
	// all is true if what no policy allows is blocked.
	all bool
}

// All are policies that cover every address.
var All = Policies{all: true}

// selector is what a policy that blocks or encrypts applies to, apart from
// protocol, ports and marks.
type selector struct{ source, destination netip.Prefix }

// Covers reports whether a policy may apply to packets to or from the address.
// Only the host's stack knows which packets those are, since it depends on their
// ports and marks and on the priority of other policies.
func (p Policies) Covers(a netip.Addr) bool {
	return p.all || slices.ContainsFunc(p.selectors, func(s selector) bool {
		return s.source.Contains(a) || s.destination.Contains(a)
	})
}

// Equal reports whether both cover the same.
func (p Policies) Equal(o Policies) bool {
	return p.all == o.all && slices.Equal(p.selectors, o.selectors)
}

// None reports whether no address is covered.
func (p Policies) None() bool { return !p.all && len(p.selectors) == 0 }

const (
	getDefault  = 0x28 // XFRM_MSG_GETDEFAULT, which package nl does not have
	blockPolicy = 1    // XFRM_USERPOLICY_BLOCK
)

// Read returns the policies of the current network namespace, which needs
// CAP_NET_ADMIN. A kernel without IPsec has none.
func Read() (Policies, error) {
	var p Policies
	policies, err := dump()
	if unsupported(err) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("list IPsec policies: %w", err)
	}
	for _, m := range policies {
		s, protects, err := parse(m)
		if err != nil {
			return p, fmt.Errorf("read an IPsec policy: %w", err)
		}
		if protects && !slices.Contains(p.selectors, s) {
			p.selectors = append(p.selectors, s)
		}
	}
	if p.all, err = defaultBlocks(); err != nil {
		return p, fmt.Errorf("read the default IPsec policy: %w", err)
	}
	return p, nil
}

// dumpTries is how often to ask for a list that changes while it is read.
const dumpTries = 20

func dump() (policies [][]byte, err error) {
	for range dumpTries {
		request := nl.NewNetlinkRequest(nl.XFRM_MSG_GETPOLICY, unix.NLM_F_DUMP)
		request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		policies, err = request.Execute(unix.NETLINK_XFRM, nl.XFRM_MSG_NEWPOLICY)
		if err != netlink.ErrDumpInterrupted {
			break
		}
	}
	return policies, err
}

// parse returns the selector of a policy, and whether the policy blocks or encrypts
// what it selects. One that does neither lets packets pass as they are.
func parse(m []byte) (s selector, protects bool, err error) {
	if len(m) < nl.SizeofXfrmUserpolicyInfo {
		return s, false, fmt.Errorf("it has %d bytes", len(m))
	}
	info := nl.DeserializeXfrmUserpolicyInfo(m)
	attributes, err := nl.ParseRouteAttr(m[nl.SizeofXfrmUserpolicyInfo:])
	if err != nil {
		return s, false, err
	}
	protects = info.Action == uint8(netlink.XFRM_POLICY_BLOCK)
	for _, a := range attributes {
		switch a.Attr.Type {
		case nl.XFRMA_TMPL:
			protects = protects || len(a.Value) > 0
		case nl.XFRMA_IF_ID:
			if len(a.Value) >= 4 && nl.NativeEndian().Uint32(a.Value) != 0 {
				return s, false, nil
			}
		}
	}
	if s.source, err = prefix(info.Sel.Saddr, info.Sel.PrefixlenS, info.Sel.Family); err == nil {
		s.destination, err = prefix(info.Sel.Daddr, info.Sel.PrefixlenD, info.Sel.Family)
	}
	return s, protects, err
}

func prefix(a nl.XfrmAddress, bits uint8, family uint16) (netip.Prefix, error) {
	ip := netip.AddrFrom16(a)
	if family == unix.AF_INET {
		ip = netip.AddrFrom4([4]byte(a[:4]))
	}
	return ip.Prefix(int(bits))
}

// defaultBlocks reports whether packets that no policy names are not sent, or not
// forwarded. Kernels before 5.15 know no such setting.
func defaultBlocks() (bool, error) {
	request := nl.NewNetlinkRequest(getDefault, 0)
	request.AddRawData(make([]byte, 4)) // struct xfrm_userpolicy_default, aligned
	answer, err := request.Execute(unix.NETLINK_XFRM, getDefault)
	if err == unix.EINVAL || unsupported(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if len(answer) == 0 || len(answer[0]) < 3 {
		return false, fmt.Errorf("the kernel's answer is too short")
	}
	forward, out := answer[0][1], answer[0][2] // struct xfrm_userpolicy_default; the first is for input
	return forward == blockPolicy || out == blockPolicy, nil
}

// unsupported reports whether the kernel has no IPsec.
func unsupported(err error) bool {
	return err == unix.EPROTONOSUPPORT || err == unix.EAFNOSUPPORT
}

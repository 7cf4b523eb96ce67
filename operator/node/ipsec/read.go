// SPDX-License-Identifier: Apache-2.0

package ipsec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

const (
	// What package nl does not have, by the kernel's linux/xfrm.h.
	policyOut    = 1    // XFRM_POLICY_OUT
	policyBlock  = 1    // XFRM_POLICY_BLOCK
	getDefault   = 0x28 // XFRM_MSG_GETDEFAULT
	defaultBlock = 1    // XFRM_USERPOLICY_BLOCK
	// dumpTries is how often to ask for a list that changes while it is read.
	dumpTries = 20
)

// Read returns the policies of the current network namespace, which needs
// CAP_NET_ADMIN. A kernel without IPsec has none.
func Read() (Policies, error) {
	var p Policies
	messages, err := dump()
	if unsupported(err) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("list IPsec policies: %w", err)
	}
	for _, m := range messages {
		one, ordinary, err := parse(m)
		if err != nil {
			return p, fmt.Errorf("read an IPsec policy: %w", err)
		}
		if ordinary {
			p.list = append(p.list, one)
		}
	}
	if p.blocks, err = defaultBlocks(); err != nil {
		return p, fmt.Errorf("read the default IPsec policy: %w", err)
	}
	return p, nil
}

func dump() (messages [][]byte, err error) {
	for range dumpTries {
		request := nl.NewNetlinkRequest(nl.XFRM_MSG_GETPOLICY, unix.NLM_F_DUMP)
		request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		messages, err = request.Execute(unix.NETLINK_XFRM, nl.XFRM_MSG_NEWPOLICY)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return messages, err
}

// parse returns a policy from its message. It is not ordinary if only XFRM
// interfaces use it.
func parse(m []byte) (p policy, ordinary bool, err error) {
	if len(m) < nl.SizeofXfrmUserpolicyInfo {
		return p, false, fmt.Errorf("it has %d bytes", len(m))
	}
	info := nl.DeserializeXfrmUserpolicyInfo(m)
	attributes, err := nl.ParseRouteAttr(m[nl.SizeofXfrmUserpolicyInfo:])
	if err != nil {
		return p, false, err
	}
	s := info.Sel
	p = policy{
		out: info.Dir == policyOut, protects: info.Action == policyBlock, priority: info.Priority,
		protocol:        lb.Protocol(s.Proto),
		sourcePort:      ports{nl.Swap16(s.Sport), nl.Swap16(s.SportMask)},
		destinationPort: ports{nl.Swap16(s.Dport), nl.Swap16(s.DportMask)},
	}
	for _, a := range attributes {
		switch a.Attr.Type {
		case nl.XFRMA_TMPL:
			p.protects = p.protects || len(a.Value) > 0
		case nl.XFRMA_MARK:
			p.marked = len(a.Value) >= 8 && binary.NativeEndian.Uint32(a.Value[4:]) != 0 && binary.NativeEndian.Uint32(a.Value) != 0
		case nl.XFRMA_IF_ID:
			if len(a.Value) >= 4 && binary.NativeEndian.Uint32(a.Value) != 0 {
				return p, false, nil
			}
		}
	}
	if p.source, err = prefix(s.Saddr, s.PrefixlenS, s.Family); err != nil {
		return p, false, err
	}
	p.destination, err = prefix(s.Daddr, s.PrefixlenD, s.Family)
	return p, true, err
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
	if errors.Is(err, unix.EINVAL) || unsupported(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if len(answer) == 0 || len(answer[0]) < 3 {
		return false, errors.New("the kernel's answer is too short")
	}
	forward, out := answer[0][1], answer[0][2] // the first is for input
	return forward == defaultBlock || out == defaultBlock, nil
}

// unsupported reports whether the kernel has no IPsec.
func unsupported(err error) bool {
	return errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT)
}

// SPDX-License-Identifier: Apache-2.0

package advice

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// unknownMatch is a word that match does not know: a condition that may be true.
const unknownMatch = "--unknown"

// readNftables returns the rules of nftables for IPv4, or IPv6, in the words of
// iptables-save, and the chains that forwarded packets pass, and packets for the host. A table is called as nft
// calls it, such as "inet filter". It leaves out what iptables has made, and has printed, and what is not reached
// from these chains, as most of kube-proxy's are not.
func readNftables(v6 bool, iptables rules) (r rules, hooks, inputHooks [][2]string, err error) {
	c, err := nftables.New()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("nftables: %w", err)
	}
	family, name := nftables.TableFamilyIPv4, "ip"
	if v6 {
		family, name = nftables.TableFamilyIPv6, "ip6"
	}
	r = rules{}
	for _, f := range []struct {
		family nftables.TableFamily
		name   string
	}{{family, name}, {nftables.TableFamilyINet, "inet"}} {
		chains, err := c.ListChainsOfTableFamily(f.family)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("nftables: list chains: %w", err)
		}
		unread := map[[2]string]*nftables.Chain{}
		var next [][2]string
		for _, ch := range chains {
			if f.family == family && iptables[ch.Table.Name][ch.Name] != nil {
				continue
			}
			at := [2]string{f.name + " " + ch.Table.Name, ch.Name}
			unread[at] = ch
			if ch.Hooknum == nil || ch.Type != nftables.ChainTypeFilter {
				continue
			}
			switch *ch.Hooknum {
			case *nftables.ChainHookPrerouting, *nftables.ChainHookForward:
				hooks = append(hooks, at)
			case *nftables.ChainHookInput:
				inputHooks = append(inputHooks, at)
			default:
				continue
			}
			next = append(next, at)
		}
		for len(next) > 0 {
			at := next[0]
			next = next[1:]
			ch := unread[at]
			if ch == nil {
				continue // it was read, or is none
			}
			delete(unread, at)
			kept, err := readChain(c, ch, v6)
			if err != nil {
				return nil, nil, nil, err
			}
			if r[at[0]] == nil {
				r[at[0]] = map[string]*chain{}
			}
			r[at[0]][at[1]] = kept
			for _, words := range kept.rules {
				if n := len(words); n >= 2 && (words[n-2] == "-j" || words[n-2] == "-g") {
					next = append(next, [2]string{at[0], words[n-1]})
				}
			}
		}
	}
	return r, hooks, inputHooks, nil
}

func readChain(c *nftables.Conn, ch *nftables.Chain, v6 bool) (*chain, error) {
	kept := &chain{policy: "-"}
	if ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop {
		kept.policy = "DROP"
	}
	list, err := c.GetRules(ch.Table, ch)
	if err != nil {
		return nil, fmt.Errorf("nftables: list rules: %w", err)
	}
	for _, rule := range list {
		t := translation{v6: v6, registers: map[uint32]value{}, elements: func(set string) []nftables.SetElement {
			elements, _ := c.GetSetElements(&nftables.Set{Table: ch.Table, Name: set}) // without them it is unknown
			return elements
		}}
		kept.rules = append(kept.rules, t.rule(rule.Exprs)...)
	}
	return kept, nil
}

// value is what a register holds while a rule is evaluated.
type value struct {
	// what is -s, -d, -i, -o, -p, --dport, --ctstate, family, iif; "": unknown.
	what string
	mask []byte
}

// translation turns one rule of nftables into rules of iptables.
type translation struct {
	v6        bool
	registers map[uint32]value
	elements  func(set string) []nftables.SetElement
	words     []string
	never     bool // it is of the other family
}

func (t *translation) rule(exprs []expr.Any) (list [][]string) {
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Meta:
			t.registers[e.Register] = value{what: map[expr.MetaKey]string{
				expr.MetaKeyIIFNAME: "-i", expr.MetaKeyOIFNAME: "-o", expr.MetaKeyL4PROTO: "-p", expr.MetaKeyNFPROTO: "family", expr.MetaKeyIIF: "iif",
			}[e.Key]}
		case *expr.Payload:
			source, length := uint32(12), uint32(4)
			if t.v6 {
				source, length = 8, 16
			}
			switch {
			case e.Base == expr.PayloadBaseNetworkHeader && e.Offset == source && e.Len <= length:
				t.registers[e.DestRegister] = value{what: "-s"}
			case e.Base == expr.PayloadBaseNetworkHeader && e.Offset == source+length && e.Len <= length:
				t.registers[e.DestRegister] = value{what: "-d"}
			case e.Base == expr.PayloadBaseTransportHeader && e.Offset == 2 && e.Len == 2:
				t.registers[e.DestRegister] = value{what: "--dport"}
			default:
				t.registers[e.DestRegister] = value{}
			}
		case *expr.Ct:
			t.registers[e.Register] = value{}
			if e.Key == expr.CtKeySTATE {
				t.registers[e.Register] = value{what: "--ctstate"}
			}
		case *expr.Bitwise:
			v := t.registers[e.SourceRegister]
			if v.mask = e.Mask; bytes.ContainsFunc(e.Xor, func(r rune) bool { return r != 0 }) {
				v = value{}
			}
			t.registers[e.DestRegister] = v
		case *expr.Cmp:
			t.compare(t.registers[e.Register], e)
		case *expr.Lookup:
			v := t.registers[e.SourceRegister]
			if e.IsDestRegSet && e.DestRegister == unix.NFT_REG_VERDICT && v.what == "--ctstate" && !t.never {
				for _, element := range t.elements(e.SetName) {
					if element.VerdictData != nil && len(element.Key) == 4 {
						words := append(slices.Clone(t.words), "--ctstate", states(element.Key))
						list = append(list, append(words, target(element.VerdictData)...))
					}
				}
				continue
			}
			if e.IsDestRegSet && e.DestRegister == unix.NFT_REG_VERDICT { // it may accept
				return append(list, append(t.words, unknownMatch, "-j", "ACCEPT"))
			}
			t.lookUp(v, e)
		case *expr.Range:
			if v := t.registers[e.Register]; v.what == "--dport" && len(e.FromData) == 2 && len(e.ToData) == 2 {
				t.add(e.Op == expr.CmpOpNeq, "--dports", fmt.Sprintf("%d:%d", binary.BigEndian.Uint16(e.FromData), binary.BigEndian.Uint16(e.ToData)))
			} else {
				t.words = append(t.words, unknownMatch)
			}
		case *expr.Verdict:
			t.words = append(t.words, target(e)...)
		case *expr.Reject:
			t.words = append(t.words, "-j", "REJECT")
		case *expr.Counter, *expr.Log, *expr.Notrack:
		default:
			t.words = append(t.words, unknownMatch)
		}
	}
	if t.never {
		return list
	}
	return append(list, t.words)
}

// add adds a condition.
func (t *translation) add(negated bool, what, argument string) {
	if negated {
		t.words = append(t.words, "!")
	}
	t.words = append(t.words, what, argument)
}

// lookUp translates whether a set has what a register holds.
func (t *translation) lookUp(v value, e *expr.Lookup) {
	what, list := v.what, ""
	switch what {
	case "-s":
		list = "@" + e.SetName
	case "-p":
		list = protocolsOf(t.elements(e.SetName))
	case "--dport":
		what, list = "--dports", portsOf(t.elements(e.SetName))
	}
	if list == "" {
		t.words = append(t.words, unknownMatch)
		return
	}
	t.add(e.Invert, what, list)
}

// compare translates a comparison of a register with constant data.
func (t *translation) compare(v value, e *expr.Cmp) {
	if v.what == "--dport" && len(e.Data) == 2 && (e.Op == expr.CmpOpGte || e.Op == expr.CmpOpLte) {
		first, last := binary.BigEndian.Uint16(e.Data), uint16(65535)
		if e.Op == expr.CmpOpLte {
			first, last = 0, first
		}
		t.add(false, "--dports", fmt.Sprintf("%d:%d", first, last))
		return
	}
	negated, argument := e.Op == expr.CmpOpNeq, ""
	switch v.what {
	case "iif":
		if v.what = "-i"; len(e.Data) == 4 {
			if link, err := netlink.LinkByIndex(int(binary.NativeEndian.Uint32(e.Data))); err == nil {
				argument = link.Attrs().Name
			}
		}
	case "family":
		family := byte(unix.NFPROTO_IPV4)
		if t.v6 {
			family = unix.NFPROTO_IPV6
		}
		if len(e.Data) == 1 && (e.Data[0] == family) != (e.Op == expr.CmpOpEq) {
			t.never = true
		}
		return
	case "-i", "-o":
		if name, _, ended := bytes.Cut(e.Data, []byte{0}); ended {
			argument = string(name)
		} else {
			argument = string(name) + "+"
		}
	case "-p":
		if len(e.Data) != 1 {
			break
		}
		argument = protocol(e.Data[0])
	case "--dport":
		if len(e.Data) == 2 {
			argument = strconv.Itoa(int(binary.BigEndian.Uint16(e.Data)))
		}
	case "-s", "-d":
		argument = network(e.Data, v.mask, t.v6)
	case "--ctstate":
		// state & mask != 0 is true for the states of the mask.
		if e.Op == expr.CmpOpNeq && len(v.mask) == 4 && !bytes.ContainsFunc(e.Data, func(r rune) bool { return r != 0 }) {
			negated, argument = false, states(v.mask)
		}
	}
	if argument == "" || e.Op != expr.CmpOpEq && e.Op != expr.CmpOpNeq {
		t.words = append(t.words, unknownMatch)
		return
	}
	t.add(negated, v.what, argument)
}

func protocol(number byte) string {
	return cmp.Or(map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[number], strconv.Itoa(int(number)))
}

// protocolsOf returns the protocols of a set, "": there is none.
func protocolsOf(set []nftables.SetElement) string {
	var names []string
	for _, e := range set {
		if len(e.Key) == 1 {
			names = append(names, protocol(e.Key[0]))
		}
	}
	return strings.Join(names, ",")
}

// portsOf returns the ports and ranges of a set, "": there are none.
func portsOf(set []nftables.SetElement) string {
	set = slices.DeleteFunc(set, func(e nftables.SetElement) bool { return len(e.Key) != 2 })
	slices.SortFunc(set, func(a, b nftables.SetElement) int { return bytes.Compare(a.Key, b.Key) })
	intervals := slices.ContainsFunc(set, func(e nftables.SetElement) bool { return e.IntervalEnd })
	var list []string
	for i, e := range set {
		port := binary.BigEndian.Uint16(e.Key)
		switch {
		case e.IntervalEnd:
		case !intervals:
			list = append(list, strconv.Itoa(int(port)))
		case i+1 < len(set): // where the interval ends, or another begins behind it
			list = append(list, fmt.Sprintf("%d:%d", port, binary.BigEndian.Uint16(set[i+1].Key)-1))
		default:
			list = append(list, fmt.Sprintf("%d:65535", port))
		}
	}
	return strings.Join(list, ",")
}

// network returns a prefix of addresses, "" if it is none.
func network(data, mask []byte, v6 bool) string {
	size := 4
	if v6 {
		size = 16
	}
	length := 8 * len(data) // a prefix of whole bytes has no mask
	if mask != nil {
		length = 0
		for _, b := range mask {
			length += bits.OnesCount8(b)
		}
	}
	addr, ok := netip.AddrFromSlice(append(slices.Clone(data), make([]byte, max(0, size-len(data)))...))
	if !ok {
		return ""
	}
	return netip.PrefixFrom(addr, length).String()
}

// states returns names of conntrack's states.
func states(mask []byte) string {
	names := []string{"-"} // none
	for _, s := range []struct {
		bit  uint32
		name string
	}{{expr.CtStateBitNEW, "NEW"}, {expr.CtStateBitESTABLISHED, "ESTABLISHED"}, {expr.CtStateBitRELATED, "RELATED"}, {expr.CtStateBitINVALID, "INVALID"}} {
		if binary.NativeEndian.Uint32(mask)&s.bit != 0 {
			names = append(names, s.name)
		}
	}
	return strings.Join(names, ",")
}

// target translates a verdict.
func target(v *expr.Verdict) []string {
	switch v.Kind {
	case expr.VerdictAccept:
		return []string{"-j", "ACCEPT"}
	case expr.VerdictDrop:
		return []string{"-j", "DROP"}
	case expr.VerdictReturn:
		return []string{"-j", "RETURN"}
	case expr.VerdictJump:
		return []string{"-j", v.Chain}
	case expr.VerdictGoto:
		return []string{"-g", v.Chain}
	case expr.VerdictContinue:
		return nil
	}
	return []string{unknownMatch, "-j", "ACCEPT"} // queue: a program decides
}

// SPDX-License-Identifier: Apache-2.0

package advice

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// rules are the tables of iptables-save: chains of rules by table and chain.
type rules map[string]map[string]*chain

// chain is a list of rules, in the words of iptables-save.
type chain struct {
	policy string // ACCEPT, DROP; "-": the chain was made by somebody
	rules  [][]string
}

// parseRules parses the output of iptables-save. It takes no notice of what it does not
// understand.
func parseRules(text string) rules {
	r := rules{}
	table := ""
	for line := range strings.Lines(text) {
		words := split(line)
		switch {
		case len(words) == 0:
		case strings.HasPrefix(words[0], "*"):
			table = words[0][1:]
			if table != "nat" { // it drops nothing, and kube-proxy's has thousands of rules
				r[table] = map[string]*chain{}
			}
		case r[table] == nil:
		case strings.HasPrefix(words[0], ":") && len(words) > 1:
			r[table][words[0][1:]] = &chain{policy: words[1]}
		case words[0] == "-A" && len(words) > 2 && r[table][words[1]] != nil:
			c := r[table][words[1]]
			c.rules = append(c.rules, words[2:])
		}
	}
	return r
}

// split returns the words of a line. A word in quotes may have spaces.
func split(line string) (words []string) {
	for i, part := range strings.Split(strings.ReplaceAll(line, `\"`, ""), `"`) {
		if i%2 == 1 {
			words = append(words, part)
		} else {
			words = append(words, strings.Fields(part)...)
		}
	}
	return words
}

// packet is the first one of a new connection that comes in by any interface but lo, and the one
// that it leaves by. Its source is unknown.
type packet struct {
	to       netip.AddrPort
	last     uint16 // port, if it may have any from that of to on; 0: it has that one
	protocol string // tcp or udp
	out      string // interface; "": it is for the host
	dst      string // type of the address: UNICAST, or LOCAL
}

// iptablesHooks are the tables and chains that such a packet passes. In each the first
// rule that decides counts.
var iptablesHooks = [][2]string{{"raw", "PREROUTING"}, {"mangle", "PREROUTING"}, {"mangle", "FORWARD"}, {"filter", "FORWARD"}}

// drop is a rule that drops a packet, and the table and the chain where that begins.
type drop struct{ table, chain, rule string }

// drops returns the rules that surely drop a packet: each of them must be overcome. What
// depends on something unknown is left out.
func (r rules) drops(hooks [][2]string, p packet) (list []drop) {
	for _, h := range hooks {
		c := r[h[0]][h[1]]
		if c == nil {
			continue
		}
		v, rule := r.walk(h[0], h[1], p, 0)
		if v == undecided && c.policy == "DROP" {
			v, rule = drops, "-P "+h[1]+" DROP"
		}
		if v == drops {
			list = append(list, drop{h[0], h[1], rule})
		}
	}
	return list
}

// verdict is what becomes of a packet in a chain.
type verdict int

const (
	undecided verdict = iota // it reaches the end of the chain
	accepts
	drops
	unknown // it depends
)

// deepest is how deep chains may call each other.
const deepest = 32

// walk follows a packet through a chain. The rule is the one that drops it.
func (r rules) walk(table, name string, p packet, depth int) (v verdict, rule string) {
	c := r[table][name]
	if c == nil || depth > deepest {
		return unknown, ""
	}
	sure := true // that the packet reaches this rule
	for _, words := range c.rules {
		m, target, jumps := match(words, p)
		if m == no || target == "" {
			continue
		}
		var v verdict
		rule := "-A " + name + " " + strings.Join(words, " ")
		ends := false // the chain, where nothing was decided
		switch target {
		case "ACCEPT":
			v = accepts
		case "DROP", "REJECT":
			v = drops
		case "RETURN":
			ends = true
		default:
			if r[table][target] == nil {
				continue // LOG, MARK and the like decide nothing
			}
			v, rule = r.walk(table, target, p, depth+1)
			ends = !jumps
		}
		switch {
		case m == yes && sure && v != undecided:
			return v, rule
		case v == accepts || v == unknown:
			return unknown, ""
		case v == drops && m == yes: // if the packet reaches it
			return unknown, ""
		case ends && m == yes && sure:
			return undecided, ""
		case ends:
			sure = false
		}
	}
	if !sure {
		return unknown, ""
	}
	return undecided, ""
}

// answer is whether a rule matches a packet.
type answer int

const (
	no answer = iota
	yes
	maybe
)

// match reports whether a rule matches a packet, and where it leads. jumps is false if
// the packet does not come back from there (-g).
func match(words []string, p packet) (m answer, target string, jumps bool) {
	m = yes
	and := func(a answer, negated bool) {
		if negated && a != maybe {
			a = yes - a // no and yes
		}
		if a == no || m != no && a == maybe {
			m = a
		}
	}
	is := func(b bool) answer {
		if b {
			return yes
		}
		return no
	}
	negated := false
	for i := 0; i < len(words); i++ {
		argument := func() string {
			if i++; i < len(words) {
				return words[i]
			}
			return ""
		}
		switch words[i] {
		case "!":
			negated = true
			continue
		case "-d":
			and(is(contains(argument(), p.to.Addr())), negated)
		case "-o":
			and(is(interfaceIs(argument(), p.out)), negated)
		case "-i":
			if name := argument(); name == "lo" || interfaceIs(name, p.out) {
				and(no, negated)
			} else {
				and(maybe, negated)
			}
		case "-p":
			protocols := strings.Split(argument(), ",")
			and(is(slices.Contains(protocols, p.protocol) || slices.Contains(protocols, "all")), negated)
		case "--dport", "--dports":
			and(is(ports(argument(), p.to.Port(), max(p.last, p.to.Port()))), negated)
		case "--ctstate", "--state":
			and(is(slices.Contains(strings.Split(argument(), ","), "NEW")), negated)
		case "--dst-type":
			and(is(slices.Contains(strings.Split(argument(), ","), p.dst)), negated)
		case "--tcp-flags":
			mask, set := argument(), argument()
			and(is(set == "SYN" && slices.Contains(strings.Split(mask, ","), "SYN")), negated)
		case "--comment", "-m": // options of -m follow
			argument()
		case "-j":
			return m, argument(), true
		case "-g":
			return m, argument(), false
		default:
			if strings.HasPrefix(words[i], "-") { // its argument changes nothing
				and(maybe, false)
			}
		}
		negated = false
	}
	return m, "", true
}

func contains(network string, ip netip.Addr) bool {
	if !strings.Contains(network, "/") {
		return network == ip.String()
	}
	prefix, err := netip.ParsePrefix(network)
	return err == nil && prefix.Contains(ip)
}

// interfaceIs reports whether a pattern of iptables, such as br-+, is the name.
func interfaceIs(pattern, name string) bool {
	if prefix, any := strings.CutSuffix(pattern, "+"); any {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}

// ports reports whether a list of ports and ranges, such as 80,8000:8080, has one of these ports.
func ports(list string, from, to uint16) bool {
	for item := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(item, ":")
		if !isRange {
			last = first
		}
		low, err1 := strconv.ParseUint(first, 10, 16)
		high, err2 := strconv.ParseUint(last, 10, 16)
		if err1 == nil && err2 == nil && low <= uint64(to) && uint64(from) <= high {
			return true
		}
	}
	return false
}

// SPDX-License-Identifier: Apache-2.0

package advice

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// Open is a frontend that serves every client.
type Open struct {
	Addr        netip.Addr
	Protocol    lb.Protocol
	First, Last uint16 // port
}

// Opens returns the frontends of a state of which no policy says who may connect, and for which
// rules of the host's input hook do not hold. They do where the only backends are servers of
// the host at the same port.
func Opens(s lb.State, host []netip.Addr) (list []Open) {
	for i := range s.Frontends {
		f := &s.Frontends[i]
		restricted := slices.ContainsFunc(f.Restrictions, func(r lb.Restriction) bool { return r.Sources && !r.DryRun })
		past := slices.ContainsFunc(f.Backends, func(b lb.Backend) bool {
			return b.Addr.Port() != f.Port || !slices.Contains(host, b.Addr.Addr())
		})
		if restricted || !past || f.Refused != "" {
			continue
		}
		o := Open{f.Addr, f.Protocol, f.Port, f.Port}
		if f.Ports != nil {
			o.First, o.Last = cmp.Or(f.Ports.First, f.Port), f.Ports.Last
		}
		list = append(list, o)
	}
	return list
}

// Input returns messages that name rules of the host's input hook which restrict who may use
// the port of such a frontend: they were written for a server of the host, or in the belief that
// they hold for Blixt. It returns an error if it could not read the rules this time.
func Input(ctx context.Context, frontends []Open) (messages []string, err error) {
	read, named := families{}, map[string][]string{} // frontends by rules
	for _, o := range frontends[:min(len(frontends), most)] {
		f, err := read.of(ctx, o.Addr)
		if err != nil {
			return nil, err
		}
		if rules := f.restricting(o); rules != "" {
			frontend := fmt.Sprintf("%s/%s", netip.AddrPortFrom(o.Addr, o.First), strings.ToLower(o.Protocol.String()))
			named[rules] = append(named[rules], frontend)
		}
	}
	for rules, list := range named {
		messages = append(messages, fmt.Sprintf("the host's firewall restricts who may connect to frontend %s (%s), but rules of the input hook do not hold for what Blixt serves: every client may connect", phrase.Sample(list), rules))
	}
	slices.Sort(messages)
	return messages, nil
}

// InputRemedy is what to do about a message of Input.
const InputRemedy = "Write who may connect into sources.allow of a BlixtPolicy: see docs/firewall.md. Delete rules that were for another server."

// mostRules is how many rules a message tells.
const mostRules = 3

// restricting tells the rules that restrict who may use the port of a frontend, "": none does.
func (f *firewall) restricting(o Open) string {
	p := packet{to: netip.AddrPortFrom(o.Addr, o.First), last: o.Last, protocol: strings.ToLower(o.Protocol.String()), dst: "LOCAL"}
	var rules []string
	for _, d := range f.iptables.restricting([][2]string{{"mangle", "INPUT"}, {"filter", "INPUT"}}, p) {
		rules = append(rules, fmt.Sprintf("table %s: %s", d.table, d.rule))
	}
	for _, d := range f.nftables.restricting(f.inputHooks, p) {
		rules = append(rules, fmt.Sprintf("nft table %s: %s", d.table, d.rule))
	}
	if n := len(rules) - mostRules; n > 0 {
		rules = append(rules[:mostRules], fmt.Sprintf("and %d more", n))
	}
	return strings.Join(rules, "; ")
}

// restricting returns the rules that name the packet's port, and drop what some clients send, or accept it
// from some clients where others are dropped.
func (r rules) restricting(hooks [][2]string, p packet) (list []drop) {
	for _, h := range hooks {
		c := r[h[0]][h[1]]
		if c == nil {
			continue
		}
		s := search{rules: r[h[0]], packet: p, closed: c.policy == "DROP", seen: map[visit]bool{}}
		s.visit(visit{chain: h[1]})
		found := s.drops
		if s.closed && !s.open {
			found = append(found, s.accepts...)
		}
		for _, rule := range found {
			list = append(list, drop{h[0], h[1], rule})
		}
	}
	return list
}

// search collects rules that name a packet's port.
type search struct {
	rules   map[string]*chain
	packet  packet
	drops   []string
	accepts []string // from some clients
	open    bool     // one accepts from all clients
	closed  bool     // clients are dropped whom no rule accepts
	seen    map[visit]bool
}

// visit is how a chain is reached: by rules that name the port already, by rules that only some clients match.
type visit struct {
	chain       string
	named, some bool
}

// visit searches a chain, once.
func (s *search) visit(v visit) {
	c := s.rules[v.chain]
	if c == nil || s.seen[v] {
		return
	}
	s.seen[v] = true
	for _, words := range c.rules {
		m, target, _ := match(words, s.packet)
		if m == no {
			continue
		}
		rule := "-A " + v.chain + " " + strings.Join(words, " ")
		names := namesPort(words)
		switch target {
		case "DROP", "REJECT":
			s.closed = s.closed || m == yes && !v.some
			if v.named || names {
				s.drops = append(s.drops, rule)
			}
		case "ACCEPT":
			switch {
			case !v.named && !names:
			case m == maybe || v.some:
				s.accepts = append(s.accepts, rule)
			default:
				s.open = true
			}
		default:
			drops, accepts := len(s.drops), len(s.accepts)
			s.visit(visit{target, v.named || names, v.some || m == maybe})
			if !names {
				continue
			}
			// Bans come and go in such a chain. The rule that leads there stays.
			if len(s.drops) > drops {
				s.drops = append(s.drops[:drops], rule)
			}
			if len(s.accepts) > accepts {
				s.accepts = append(s.accepts[:accepts], rule)
			}
		}
	}
}

// namesPort reports whether a rule is one for certain ports.
func namesPort(words []string) bool {
	for i, w := range words {
		if (w == "--dport" || w == "--dports") && (i == 0 || words[i-1] != "!") {
			return true
		}
	}
	return false
}

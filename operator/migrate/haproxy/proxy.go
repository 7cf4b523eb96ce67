// SPDX-License-Identifier: Apache-2.0

package haproxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// proxy is a frontend, a backend, or a listen section, with what it inherits.
type proxy struct {
	*section
	roles role
	mode  string
	// lists are files with addresses that were given, by their names in the configuration.
	lists map[string][]byte
	notes []migrate.Note

	binds           []bind
	servers         []server
	missing         []string // addresses of servers that get no connections of Blixt, as they are written
	defaultSettings settings
	acls            map[string][]test
	rules           []rule
	uses            []rule
	defaultBackend  string
	balance         string
	table           *table
	trackers        map[string]tracker // by the number of the counter
	// bars are rules that are not understood: whom they keep out is not known.
	bars         []migrate.Note
	stickiness   *stickiness
	checks       checks
	idle         map[string]time.Duration // timeouts that are carried over
	maxconn      int
	newPerSecond int
	allBackups   bool
	backupTurns  int // in which backup servers are asked
	disabled     bool
}

// table is a stick-table.
type table struct {
	expire time.Duration
	rate   time.Duration // the period of conn_rate
}

// stickiness has a client stay with its server.
type stickiness struct{ bits4, bits6 int }

// newProxy reads a section with what it inherits.
func newProxy(s *section, lists map[string][]byte) *proxy {
	p := &proxy{
		section: s, lists: lists, mode: "tcp", balance: "roundrobin", defaultSettings: newSettings(), acls: map[string][]test{}, idle: map[string]time.Duration{}, trackers: map[string]tracker{},
	}
	p.roles = map[string]role{"frontend": frontend, "backend": backend, "listen": frontend | backend}[s.kind()]
	all := effective(s)
	for _, v := range all {
		if v.words[0] == "mode" && len(v.words) > 1 {
			p.mode = v.words[1]
		}
	}
	if s.kind() == "listen" && len(s.words) > 2 && s.words[2] != "from" {
		p.bind(s.statement, s.words[2], nil) // as before version 1.6
	}
	isACL := func(v statement) bool { return v.words[0] == "acl" }
	for _, v := range all { // all lines of an ACL count, also those behind a rule
		if isACL(v) {
			p.statement(v)
		}
	}
	for _, v := range all {
		if !isACL(v) {
			p.statement(v)
		}
	}
	p.readChecks()
	p.backupTurns = p.turns()
	return p
}

// turns has backup servers wait for each other, in their order, without option allbackups. It
// returns how many turns there are.
func (p *proxy) turns() (n int) {
	for i := range p.servers {
		s := &p.servers[i]
		if !s.backup || s.disabled || s.weight == 0 || s.unserved != "" {
			continue
		}
		if s.turn = n; !p.allBackups {
			n++
		}
	}
	if p.allBackups {
		return 1
	}
	return n
}

// weigh returns how many statements a section has and inherits.
func (s *section) weigh() int {
	if s.weight == 0 {
		s.weight = len(s.body) + 1
		if s.defaults != nil {
			s.weight += s.defaults.weigh()
		}
	}
	return s.weight
}

// effective returns what a section inherits, and its own statements.
func effective(s *section) []statement {
	if s.defaults == nil {
		return s.body
	}
	return slices.Concat(effective(s.defaults), s.body)
}

// note notes something about a statement, but not about a proxy for HTTP: of all that is in
// it only one thing is to be said.
func (p *proxy) note(s statement, effect migrate.Effect, format string, args ...any) {
	if p.mode == "tcp" {
		p.notes = append(p.notes, migrate.Note{Place: s.Place, Effect: effect, Text: fmt.Sprintf(format, args...)})
	}
}

// negated reports whether the statement began with "no".
func (s *statement) negated() bool {
	return strings.HasPrefix(s.text, "no ") || strings.HasPrefix(s.text, "no\t")
}

func (p *proxy) statement(s statement) {
	if (s.words[0] == "no" || s.words[0] == "default") && len(s.words) > 1 {
		s.words = s.words[1:]
	}
	p.checks.choose(s)
	k, ok := find(s.words)
	switch {
	case !ok:
		p.note(s, migrate.Lost, "%s is no keyword that is known: see what it does", quote(s.text))
	case k.roles&p.roles == 0: // inherited, or HAProxy ignores it with a warning
	case s.negated() && k.take == nil:
	case k.take == nil:
		p.note(s, k.effect, "%s: %s", quote(s.text), k.say)
	case s.unknown != "":
		p.note(s, migrate.Lost, "%s: the value of variable %s is not known: write it in the place of the variable, or set it by setenv in section global", quote(s.text), s.unknown)
		if s.words[0] == "acl" || s.words[0] == "tcp-request" { // they may be about who is kept out
			k.take(p, s)
		}
		if s.words[0] == "server" && len(s.words) > 2 {
			p.missing = append(p.missing, migrate.Clip(s.words[2]))
		}
	default:
		if s.assumed != "" {
			p.note(s, migrate.Changed, "%s: variable %s counts as not set: if HAProxy's environment has it, write its value in the place of the variable", quote(s.text), s.assumed)
		}
		k.take(p, s)
	}
}

func (p *proxy) bindLine(s statement) {
	if len(s.words) < 2 {
		p.note(s, migrate.Lost, "%s has no address: write bind ADDRESS:PORT", quote(s.text))
		return
	}
	p.bind(s, s.words[1], s.words[2:])
}

// dispatch is a single server without a name.
func (p *proxy) dispatch(s statement) {
	if len(s.words) > 1 {
		p.addServer(s, "dispatch", s.words[1], nil)
	}
}

func (p *proxy) setDefaultBackend(s statement) {
	if len(s.words) > 1 {
		p.defaultBackend = s.words[1]
	}
}

// setBalance takes how servers are chosen.
func (p *proxy) setBalance(s statement) {
	if len(s.words) < 2 {
		return
	}
	p.balance = strings.Join(s.words[1:], " ")
	algorithm, _, _ := strings.Cut(s.words[1], "(")
	switch {
	case algorithm == "roundrobin", algorithm == "static-rr", algorithm == "random":
	case algorithm == "source", algorithm == "hash" && len(s.words) == 3 && s.words[2] == "src":
		p.stickiness = &stickiness{32, 128}
		return
	case algorithm == "leastconn":
		p.note(s, migrate.Changed, "%s: each server gets new connections by its weight, not by how many it has", quote(s.text))
	case algorithm == "first":
		p.note(s, migrate.Changed, "%s: all servers share the connections by weight: make all but the first a backup if they are to stand by", quote(s.text))
	default:
		p.note(s, migrate.Lost, "%s: Blixt does not look into connections: servers share them by weight; affinity of the policy goes by the client's address", quote(s.text))
	}
	p.stickiness = nil
}

// stickTable takes "stick-table type TYPE size SIZE expire TIME store TYPES".
func (p *proxy) stickTable(s statement) {
	p.table = &table{}
	for i, word := range s.words[:len(s.words)-1] {
		value := s.words[i+1]
		switch word {
		case "expire":
			d, err := duration(value)
			if err != nil {
				p.note(s, migrate.Lost, "%s: %v", quote(s.text), err)
			}
			p.table.expire = d
		case "store":
			for what := range strings.SplitSeq(value, ",") {
				if period, found := strings.CutPrefix(what, "conn_rate("); found {
					p.table.rate, _ = duration(strings.TrimSuffix(period, ")"))
				}
			}
		case "type":
			if value != "ip" && value != "ipv6" {
				p.note(s, migrate.Unneeded, "%s: Blixt remembers clients by their addresses alone", quote(s.text))
			}
		}
	}
}

// stick takes "stick on src": the client stays with its server.
func (p *proxy) stick(s statement) {
	if len(s.words) < 3 || s.words[1] == "store-response" {
		p.note(s, migrate.Lost, "%s: Blixt does not look into connections: affinity of the policy goes by the client's address", quote(s.text))
		return
	}
	bits4, bits6, ok := clientKey(s.words[2])
	if !ok {
		p.note(s, migrate.Lost, "%s: Blixt knows clients by their addresses, or the first 8 to 32 bits of these, and 32 to 128 of IPv6", quote(s.text))
		return
	}
	if i := slices.IndexFunc(s.words, func(w string) bool { return w == "if" || w == "unless" }); i > 0 {
		p.note(s, migrate.Changed, "%s: affinity holds for all clients", quote(s.text))
	}
	p.stickiness = &stickiness{bits4, bits6}
}

// timeout takes "timeout NAME TIME".
func (p *proxy) timeout(s statement) {
	if len(s.words) < 3 {
		p.note(s, migrate.Lost, "%s: write timeout NAME TIME", quote(s.text))
		return
	}
	name := s.words[1]
	if name == "connect" || name == "check" || name == "client" || name == "server" || name == "tunnel" {
		d, err := duration(s.words[2])
		if err != nil {
			p.note(s, migrate.Lost, "%s: %v", quote(s.text), err)
			return
		}
		p.idle[name] = d
		if name != "connect" {
			return
		}
	}
	known, ok := timeouts[name]
	if !ok {
		p.note(s, migrate.Lost, "%s is no time-out that is known: see what it does", quote(s.text))
		return
	}
	p.note(s, known.effect, "%s: %s", quote(s.text), known.say)
}

// oldTimeout takes the names that time-outs had before version 2.1.
func (p *proxy) oldTimeout(s statement) {
	name := map[string]string{"clitimeout": "client", "srvtimeout": "server", "contimeout": "connect"}[s.words[0]]
	s.words = append([]string{"timeout", name}, s.words[1:]...)
	p.timeout(s)
}

func (p *proxy) setMaxconn(s statement) {
	if len(s.words) > 1 {
		p.limit(s, &p.maxconn, s.words[1])
	}
}

// rateLimit takes "rate-limit sessions NUMBER".
func (p *proxy) rateLimit(s statement) {
	if len(s.words) > 2 {
		p.limit(s, &p.newPerSecond, s.words[2])
	}
}

func (p *proxy) limit(s statement, to *int, text string) {
	if err := setNumber(to, text, 0, 10_000_000); err != nil {
		p.note(s, migrate.Lost, "%s: %v", quote(s.text), err)
	} else if *to > 0 {
		p.note(s, migrate.Changed, "%s: connections above it do not wait for a place: their SYNs are dropped, and clients repeat them. Each node counts for itself, and so does each listener", quote(s.text))
	}
}

// sourceLine takes "source ADDRESS", for all servers.
func (p *proxy) sourceLine(s statement) { p.source(s, s.words) }

// places returns the addresses of the proxy by their ports, in order.
func (p *proxy) places() []place {
	var all []place
	apart := p.asksFor(destination)
	byPort := map[[2]uint16]int{}
	for _, b := range p.divided() {
		key := [2]uint16{b.port, b.end}
		i, ok := byPort[key]
		if !ok || apart || b.unserved != "" || all[i].unserved != "" || all[i].takesProxy != b.takesProxy {
			i = len(all)
			byPort[key] = i
			all = append(all, place{bind: b})
		}
		all[i].everywhere = all[i].everywhere || b.both
		all[i].addresses = append(all[i].addresses, b.Addr)
	}
	for i := range all {
		at := &all[i]
		slices.SortFunc(at.addresses, netip.Addr.Compare)
		at.addresses = slices.Compact(at.addresses)
		if at.everywhere || slices.Contains(at.addresses, netip.IPv4Unspecified()) && slices.Contains(at.addresses, netip.IPv6Unspecified()) {
			at.addresses = nil
		}
	}
	return all
}

// divided returns the binds. A range of which rules ask for some ports is several, so that it is
// known of each whether a rule holds.
func (p *proxy) divided() (all []bind) {
	var firsts []int // ports at which an answer may become another one
	for _, r := range slices.Concat(p.rules, p.uses) {
		r.all(func(t *test) {
			for _, b := range t.bounds {
				if t.kind == port {
					firsts = append(firsts, b.from, b.to+1)
				}
			}
		})
	}
	slices.Sort(firsts)
	firsts = slices.Compact(firsts)
	for _, b := range p.binds {
		from, _ := slices.BinarySearch(firsts, int(b.port)+1)
		to, _ := slices.BinarySearch(firsts, int(b.end)+1)
		if parts := to - from + 1; b.unserved == "" && parts <= maxListeners && len(all)+parts <= maxParts {
			for _, first := range firsts[from:to] {
				part := b
				part.end, b.port = uint16(first-1), uint16(first)
				all = append(all, part)
			}
		}
		all = append(all, b)
	}
	return all
}

// maxParts bounds the binds of a proxy that ranges become.
const maxParts = 10_000

// place is a port, or a range, with its addresses. None: all of the host.
type place struct {
	bind
	addresses  []netip.Addr
	everywhere bool
}

// SPDX-License-Identifier: Apache-2.0

package haproxy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// answer is what is known of a condition.
type answer int

const (
	no answer = iota
	maybe
	yes
)

func (a answer) not() answer { return yes - a }

// kind is what a test looks at.
type kind int

const (
	other       kind = iota // anything that Blixt does not look at, or that is not understood
	constantly              // the value itself
	source                  // the client's address
	destination             // the address that it connects to
	port                    // and the port
	alive                   // how many servers of a backend are up
	concurrent              // how many connections the client has
	rate                    // how many it has begun within the period of the stick table
)

// test is a criterion of an ACL with its values.
type test struct {
	kind  kind
	value bool // of constantly
	// networks of source and destination.
	networks map[netip.Prefix]bool
	// missing is a file with networks that was not given, or "".
	missing string
	// bounds of a number: that of port, alive, concurrent or rate.
	bounds []bounds
	// backend whose servers alive counts, or the table of rate and concurrent; "": the proxy's own.
	backend string
	counter string // of rate and concurrent: the number of the sticky counter, or ""
	text    string // as it was written
}

// bounds are both inside.
type bounds struct{ from, to int }

// term is one ACL of a condition. It holds if any of its tests does.
type term struct {
	not   bool
	tests []test
}

// condition is what stands behind if or unless: terms of which all must hold, or all of
// another row.
type condition struct {
	not  bool
	rows [][]term
}

// about is what a condition is asked about.
type about struct {
	source      netip.Prefix // a network whose addresses are all alike
	destination netip.Addr   // invalid or unspecified: any
	port        uint16
	end         uint16
	hidden      [port + 1]bool // source, destination and port: what is asked about is not what is known
}

// holds returns whether the condition holds.
func (c *condition) holds(a about) answer {
	result := no
	for _, row := range c.rows {
		all := yes
		for _, t := range row {
			all = min(all, t.holds(a))
		}
		result = max(result, all)
	}
	if c.not {
		return result.not()
	}
	return result
}

func (t *term) holds(a about) answer {
	result := no
	for i := range t.tests {
		result = max(result, t.tests[i].holds(a))
	}
	if t.not {
		return result.not()
	}
	return result
}

func (t *test) holds(a about) answer {
	if t.kind <= port && a.hidden[t.kind] {
		return maybe
	}
	switch t.kind {
	case constantly:
		if t.value {
			return yes
		}
		return no
	case source:
		if !a.source.IsValid() {
			return maybe
		}
		if within(t.networks, a.source) {
			return yes
		}
		if t.missing != "" {
			return maybe
		}
		return no
	case destination:
		if !a.destination.IsValid() || a.destination.IsUnspecified() || t.missing != "" {
			return maybe
		}
		if within(t.networks, netip.PrefixFrom(a.destination, a.destination.BitLen())) {
			return yes
		}
		return no
	case port:
		return t.holdsForPorts(int(a.port), int(a.end))
	}
	return maybe
}

func (t *test) holdsForPorts(from, to int) answer {
	result := no
	for _, b := range t.bounds {
		switch {
		case b.from <= from && to <= b.to:
			return yes
		case b.from <= to && from <= b.to:
			result = maybe // a part of the range
		}
	}
	return result
}

// within reports whether one of the networks contains the network.
func within(networks map[netip.Prefix]bool, network netip.Prefix) bool {
	if len(networks) == 0 {
		return false
	}
	for bits := network.Bits(); bits >= 0; bits-- {
		if networks[netip.PrefixFrom(network.Addr(), bits).Masked()] {
			return true
		}
	}
	return false
}

// all calls f with each test of the condition.
func (c *condition) all(f func(*test)) {
	for _, row := range c.rows {
		for _, t := range row {
			for i := range t.tests {
				f(&t.tests[i])
			}
		}
	}
}

// single returns the only test of the condition, if it has but one that must hold.
func (c *condition) single() *test {
	if c.not || len(c.rows) != 1 || len(c.rows[0]) != 1 || c.rows[0][0].not || len(c.rows[0][0].tests) != 1 {
		return nil
	}
	return &c.rows[0][0].tests[0]
}

// predefined are ACLs that every proxy has; section 7.4 of the manual. All others are about HTTP.
var predefined = map[string]test{
	"TRUE":      {kind: constantly, value: true},
	"FALSE":     {kind: constantly},
	"WAIT_END":  {kind: constantly, value: true}, // nothing is waited for
	"LOCALHOST": {kind: source, networks: map[netip.Prefix]bool{netip.MustParsePrefix("127.0.0.0/8"): true, netip.MustParsePrefix("::1/128"): true}},
}

// condition takes the words from "if" or "unless" on. None: it always holds.
func (p *proxy) condition(s statement, words []string) condition {
	c := condition{rows: [][]term{{}}}
	if len(words) == 0 {
		return c
	}
	c.not = words[0] == "unless"
	last := 0
	for i := 1; i < len(words); i++ {
		word := words[i]
		if word == "or" || word == "||" {
			c.rows = append(c.rows, nil)
			last++
			continue
		}
		not := false
		for strings.HasPrefix(word, "!") {
			not = !not
			word = word[1:]
		}
		if word == "" && not { // "!" stands alone: what follows is negated
			if i+1 < len(words) {
				words[i+1] = "!" + words[i+1]
				continue
			}
			word = "!"
		}
		t := term{not: not}
		if word == "{" {
			end := slices.Index(words[i:], "}")
			if end < 0 {
				end = len(words) - i
			}
			t.tests = []test{p.test(s, words[i+1:i+end])}
			i += end
		} else {
			t.tests = p.named(word)
		}
		c.rows[last] = append(c.rows[last], t)
	}
	return c
}

// named returns the tests of the ACLs with the name.
func (p *proxy) named(name string) []test {
	if tests := p.acls[name]; tests != nil {
		return tests
	}
	if t, ok := predefined[name]; ok {
		return []test{t}
	}
	return []test{{text: name}}
}

// acl takes "acl NAME CRITERION FLAGS VALUES".
func (p *proxy) acl(s statement) {
	if len(s.words) < 3 {
		p.note(s, migrate.Lost, "%s: write acl NAME CRITERION VALUE", quote(s.text))
		return
	}
	all, t := p.acls[s.words[1]], p.test(s, s.words[2:])
	if last := len(all) - 1; last >= 0 && t.kind == source && all[last].kind == source && t.missing+all[last].missing == "" {
		for n := range t.networks { // lists are long
			all[last].networks[n] = true
		}
		return
	}
	p.acls[s.words[1]] = append(all, t)
}

// test takes a criterion with its flags and values.
func (p *proxy) test(s statement, words []string) test {
	t := test{text: strings.Join(words, " ")}
	if len(words) == 0 {
		return t
	}
	criterion, argument := words[0], ""
	if open := strings.IndexByte(criterion, '('); open >= 0 && strings.HasSuffix(criterion, ")") {
		criterion, argument = criterion[:open], criterion[open+1:len(criterion)-1]
	}
	if s.unknown != "" { // whom it names is not known
		if criterion, _, _ = strings.Cut(criterion, ","); criterion == "src" {
			t.kind, t.missing = source, "$"+s.unknown
		}
		return t
	}
	switch criterion {
	case "always_true", "always_false", "wait_end":
		return test{kind: constantly, value: criterion != "always_false", text: t.text}
	case "src":
		t.kind = source
	case "dst":
		t.kind = destination
	case "dst_port":
		t.kind = port
	case "nbsrv":
		t.kind, t.backend = alive, argument
	case "src_conn_cur", "sc0_conn_cur", "sc1_conn_cur", "sc2_conn_cur", "sc_conn_cur":
		t.kind = concurrent
		t.counter, t.backend = counterOf(criterion, argument)
	case "src_conn_rate", "sc0_conn_rate", "sc1_conn_rate", "sc2_conn_rate", "sc_conn_rate":
		t.kind = rate
		t.counter, t.backend = counterOf(criterion, argument)
	default:
		if strings.HasPrefix(criterion, "src,") { // such as src,map_ip(FILE): whom it names is not known
			t.kind, t.missing = source, t.text
		}
		return t
	}
	values, files, ok := flags(words[1:])
	if !ok {
		if t.kind == source {
			t.missing = t.text
		} else {
			t.kind = other
		}
		return t
	}
	if t.kind == source || t.kind == destination {
		p.networks(&t, values, files)
	} else if t.bounds, ok = numbers(values); !ok || len(files) > 0 {
		t.kind = other
	}
	return t
}

// counterOf returns the sticky counter that sc0_conn_cur(TABLE) or sc_conn_cur(0,TABLE) asks for,
// and the stick table that they or src_conn_cur(TABLE) name.
func counterOf(criterion, argument string) (counter, table string) {
	if rest, found := strings.CutPrefix(criterion, "sc_"); found && rest != "" {
		counter, table, _ = strings.Cut(argument, ",")
		return counter, table
	}
	if rest, found := strings.CutPrefix(criterion, "sc"); found {
		counter, _, _ = strings.Cut(rest, "_")
	}
	return counter, argument
}

// flags takes the flags before values. ok: all of them are understood.
func flags(words []string) (values, files []string, ok bool) {
	for i := 0; i < len(words); i++ {
		switch words[i] {
		case "-i", "-n":
		case "--":
			return words[i+1:], files, true
		case "-f":
			if i++; i == len(words) {
				return nil, nil, false
			}
			files = append(files, words[i])
		case "-u":
			i++
		case "-m":
			if i++; i == len(words) || words[i] != "ip" && words[i] != "int" {
				return nil, nil, false
			}
		default:
			return words[i:], files, !strings.HasPrefix(words[i], "-")
		}
	}
	return nil, files, true
}

// networks takes addresses and networks, and those of files that were given.
func (p *proxy) networks(t *test, values, files []string) {
	t.networks = map[netip.Prefix]bool{}
	for _, v := range values {
		network, ok := parseNetwork(v)
		if !ok {
			t.missing = v
			continue
		}
		t.networks[network] = true
	}
	for _, f := range files {
		text, given := p.lists[f]
		if !given {
			t.missing = f
			continue
		}
		for line := range strings.Lines(string(text)) {
			value, _, _ := strings.Cut(line, "#")
			if value = strings.TrimSpace(value); value == "" {
				continue
			}
			if network, ok := parseNetwork(value); ok {
				t.networks[network] = true
			} else {
				t.missing = f + ": " + value
			}
		}
	}
}

// parseNetwork returns an address, or a network with a prefix length or mask.
func parseNetwork(text string) (netip.Prefix, bool) {
	host, mask, found := strings.Cut(text, "/")
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" {
		return netip.Prefix{}, false
	}
	bits := addr.BitLen()
	if found {
		if bits, err = strconv.Atoi(mask); err != nil {
			if bits = maskBits(mask); !addr.Is4() || bits < 0 {
				return netip.Prefix{}, false
			}
		}
	}
	if addr.Is4In6() {
		addr, bits = addr.Unmap(), bits-96
	}
	network, err := addr.Prefix(bits)
	return network, err == nil
}

// maskBits returns the length of a mask such as 255.255.0.0, or -1.
func maskBits(text string) int {
	mask, err := netip.ParseAddr(text)
	if err != nil || !mask.Is4() {
		return -1
	}
	for bits := 0; bits <= 32; bits++ {
		if netip.PrefixFrom(netip.MustParseAddr("255.255.255.255"), bits).Masked().Addr() == mask {
			return bits
		}
	}
	return -1
}

// numbers takes "gt 5", "22" or "1024:65535", or several.
func numbers(values []string) ([]bounds, bool) {
	const most = 1<<31 - 1
	operator := "eq"
	var all []bounds
	for _, v := range values {
		if slices.Contains([]string{"eq", "gt", "ge", "lt", "le"}, v) {
			operator = v
			continue
		}
		from, to, isRange := strings.Cut(v, ":")
		least, most := 0, most
		var err1, err2 error
		if from != "" || !isRange {
			least, err1 = strconv.Atoi(from)
		}
		if isRange && to != "" {
			most, err2 = strconv.Atoi(to)
		}
		if err1 != nil || err2 != nil || isRange && operator != "eq" || least < 0 || least >= 1<<31-1 {
			return nil, false
		}
		if !isRange {
			most = least
		}
		switch operator {
		case "gt":
			least, most = least+1, 1<<31-1
		case "ge":
			most = 1<<31 - 1
		case "lt":
			least, most = 0, least-1
		case "le":
			least = 0
		}
		all = append(all, bounds{least, most})
	}
	return all, len(all) > 0
}

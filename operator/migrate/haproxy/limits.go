// SPDX-License-Identifier: Apache-2.0

package haproxy

import (
	"strconv"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// tracker is what a sticky counter such as sc0 counts, and in which stick table.
type tracker struct {
	key   string // "": several things
	table string // "": the proxy's own
}

// track takes "track-sc0 KEY table TABLE".
func (p *proxy) track(words []string) {
	counter := strings.TrimPrefix(words[0], "track-sc")
	var t tracker
	if len(words) > 1 {
		t.key = words[1]
	}
	if len(words) > 3 && words[2] == "table" {
		t.table = words[3]
	}
	if was, again := p.trackers[counter]; again && was != t {
		t = tracker{}
	}
	p.trackers[counter] = t
}

// clientKey returns how many bits of the client's address an expression such as
// src,ipmask(24,64) has. ok: it is an address of the client, with bits that a policy may have.
func clientKey(expression string) (bits4, bits6 int, ok bool) {
	key, converter, _ := strings.Cut(expression, ",")
	bits4, bits6 = 32, 128
	if masks, found := strings.CutPrefix(converter, "ipmask("); found {
		four, six, _ := strings.Cut(strings.TrimSuffix(masks, ")"), ",")
		n, err := strconv.Atoi(four)
		if err != nil {
			n = maskBits(four)
		}
		bits4, converter = n, ""
		if n, err := strconv.Atoi(six); err == nil {
			bits6 = n
		}
	}
	return bits4, bits6, key == "src" && converter == "" && bits4 >= 8 && bits4 <= 32 && bits6 >= 32 && bits6 <= 128
}

// limit is what a rule lets each client have.
type limit struct {
	concurrent       int // 0: any
	perSecond, burst int // 0: any
	bits4, bits6     int
}

// limits returns those of maxconn, rate-limit and of rules that refuse above a number, and which
// rules these are. A rule that cannot be kept as strictly is none of them.
func (b *builder) limits(f *migrate.Frontend, front *proxy, behind []*proxy, at *place, ask about) (*v1alpha1.PolicyLimits, map[*rule]bool) {
	var l v1alpha1.PolicyLimits
	most := front.maxconn
	if at.maxconn > 0 && (most == 0 || at.maxconn < most) {
		most = at.maxconn
	}
	if most > 0 || front.newPerSecond > 0 {
		l.Total = &v1alpha1.TotalLimit{}
	}
	if most > 0 {
		l.Total.Concurrent = pointer(most)
	}
	if front.newPerSecond > 0 {
		l.Total.NewPerSecond = pointer(front.newPerSecond)
	}
	limited := map[*rule]bool{}
	take := func(p *proxy, rules []rule, stage string) {
		excused := false
		for i := range rules {
			r := &rules[i]
			if stage != "" && r.stage != stage || r.holds(ask) == no {
				continue
			}
			excused = excused || r.action == "accept"
			if one, ok := b.limit(front, p, r); ok {
				limited[r] = true
				one.note(f, r, excused)
				one.add(&l, r)
			}
		}
	}
	take(front, front.rules, "")
	for _, p := range behind {
		take(p, front.rulesBehind(p), "content")
	}
	if l.PerSource == nil && l.Total == nil {
		return nil, limited
	}
	return &l, limited
}

// counted returns the tests of a rule that refuses clients with too many connections: one of them
// is enough. What else the rule asks for would only let more in.
func (r *rule) counted() []test {
	if r.not || actions[r.action] != refuses || len(r.rows) != 1 {
		return nil
	}
	for _, t := range r.rows[0] {
		all := !t.not
		for i := range t.tests {
			x := &t.tests[i]
			all = all && (x.kind == concurrent || x.kind == rate) && len(x.bounds) == 1 && x.bounds[0].to == 1<<31-1
		}
		if all {
			return t.tests
		}
	}
	return nil
}

// limit returns what a rule lets each client have. ok: a policy lets no client have more.
func (b *builder) limit(front, owner *proxy, r *rule) (l limit, ok bool) {
	l.bits4, l.bits6 = 32, 64
	tests := r.counted()
	for i := range tests {
		t := &tests[i]
		table := t.backend
		if t.counter != "" {
			tracked, is := front.trackers[t.counter]
			if !is {
				tracked = owner.trackers[t.counter]
			}
			bits4, bits6, known := clientKey(tracked.key)
			if !known {
				return l, false
			}
			l.bits4, l.bits6 = min(l.bits4, bits4), min(l.bits6, bits6)
			if table == "" {
				table = tracked.table
			}
		}
		most := t.bounds[0].from - 1 // the connection that is judged counts
		if most < 1 || most > 10_000_000 {
			return l, false
		}
		if t.kind == concurrent {
			l.concurrent = least(l.concurrent, most)
			continue
		}
		seconds := int((b.period(owner, table) + time.Second - 1) / time.Second)
		if seconds < 1 || most <= seconds {
			return l, false
		}
		// Within the period at most a burst begins, and what may begin each second.
		each := max(1, most/2/seconds)
		l.perSecond, l.burst = least(l.perSecond, each), least(l.burst, most-each*seconds)
	}
	return l, len(tests) > 0
}

// period returns for how long a stick table counts new connections.
func (b *builder) period(p *proxy, name string) time.Duration {
	if name != "" {
		p = b.tables[name]
	}
	if p == nil || p.table == nil {
		return 0
	}
	return p.table.rate
}

// least returns the smaller one of two limits, of which 0 is none.
func least(a, b int) int {
	if a == 0 {
		return b
	}
	return min(a, b)
}

// add makes the limits of a policy as strict as this one.
func (l *limit) add(to *v1alpha1.PolicyLimits, r *rule) {
	if to.PerSource == nil {
		to.PerSource = &v1alpha1.SourceLimit{}
	}
	s := to.PerSource
	if r.action == "reject" {
		to.Action = v1alpha1.ActionReset
	}
	lower := func(field **int32, n int) {
		if n > 0 && (*field == nil || int(**field) > n) {
			*field = pointer(n)
		}
	}
	lower(&s.Concurrent, l.concurrent)
	lower(&s.NewPerSecond, l.perSecond)
	lower(&s.Burst, l.burst)
	if l.bits4 != 32 || l.bits6 != 64 {
		if s.PrefixLength == nil {
			s.PrefixLength = &v1alpha1.PrefixLength{}
		}
		lower(&s.PrefixLength.IPv4, l.bits4)
		lower(&s.PrefixLength.IPv6, l.bits6)
	}
}

// note says what a rule became.
func (l *limit) note(f *migrate.Frontend, r *rule, excused bool) {
	all := ""
	if excused || len(r.rows[0]) > 1 {
		all = ". It holds for all clients"
	}
	if l.concurrent > 0 {
		f.Note(r.Place, migrate.Changed, "%s: limits.perSource.concurrent %d: each node counts the established connections of a client for itself, and so does each listener%s", quote(r.text), l.concurrent, all)
	}
	if l.perSecond > 0 {
		f.Note(r.Place, migrate.Changed, "%s: limits.perSource: %d at once and %d more each second, which are never more than HAProxy lets in at one port: each node counts for itself, and so does each listener%s", quote(r.text), l.burst, l.perSecond, all)
	}
}

// SPDX-License-Identifier: Apache-2.0

package haproxy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// policy returns what a frontend and its backend say about connections.
func (b *builder) policy(f *migrate.Frontend, front, back *proxy, at *place) (spec v1alpha1.BlixtPolicySpec) {
	rules := slices.Clone(front.rules)
	if back != front {
		back.noteRulesIn(f)
		for _, r := range back.rules {
			if r.stage == "content" {
				rules = append(rules, r)
			}
		}
	}
	ask := about{destination: at.Addr, port: at.port, end: at.end}
	if len(at.addresses) != 1 {
		ask.destination = netip.Addr{}
	}
	networks := named(rules)
	if b.asked += len(networks) * tests(rules); b.asked > maxQuestions {
		f.Unserved = true
		f.Note(at.Place, migrate.Lost, "%s is not served, as nobody would keep out whom it keeps out: rules and networks are too many: put the networks into one ACL", quote(at.text))
		return spec
	}
	spec.Sources = sources(rules, networks, ask)
	for i := range rules {
		if r := &rules[i]; r.foreign() == "" && r.missing() == "" && r.partly(ask) {
			f.Note(r.Place, migrate.Lost, "%s asks for an address or a port, and %s has others, too: who is refused at one of them is refused at all: write a bind with an address and a port for it alone", quote(r.text), quote(at.text))
		}
	}
	spec.Limits = b.limits(f, front, at, rules)
	spec.IdleTimeout = idleTimeout(f, front, back)
	if s := back.stickiness; s != nil {
		spec.Affinity = &v1alpha1.PolicyAffinity{Type: v1alpha1.AffinityClientAddress}
		if s.bits4 != 32 || s.bits6 != 64 {
			spec.Affinity.PrefixLength = &v1alpha1.PrefixLength{IPv4: pointer(s.bits4), IPv6: pointer(s.bits6)}
		}
		if t := back.table; t != nil {
			// A table without expire remembers as long as it has room.
			spec.Affinity.Timeout = &metav1.Duration{Duration: cmp.Or(t.expire, 24*time.Hour)}
		}
	}
	spec.Health = back.health(f)
	return spec
}

func pointer(n int) *int32 {
	v := int32(n)
	return &v
}

// limits returns those of maxconn, rate-limit and of rules that reject above a number.
func (b *builder) limits(f *migrate.Frontend, p *proxy, at *place, rules []rule) *v1alpha1.PolicyLimits {
	var l v1alpha1.PolicyLimits
	most := p.maxconn
	if at.maxconn > 0 && (most == 0 || at.maxconn < most) {
		most = at.maxconn
	}
	if most > 0 || p.newPerSecond > 0 {
		l.Total = &v1alpha1.TotalLimit{}
	}
	if most > 0 {
		l.Total.Concurrent = pointer(most)
	}
	if p.newPerSecond > 0 {
		l.Total.NewPerSecond = pointer(p.newPerSecond)
	}
	for i := range rules {
		r := &rules[i]
		t := r.isLimit()
		if t == nil {
			continue
		}
		allowed := t.bounds[0].from - 1 // the connection that is judged counts
		period := b.period(p, t)
		if allowed < 1 || allowed > 10_000_000 || t.kind == rate && period < time.Second {
			f.Note(r.Place, migrate.Lost, "%s: what is counted is not known here, or is no limit from 1 to 10000000: set limits.perSource of the policy", quote(r.text))
			continue
		}
		if l.PerSource == nil {
			l.PerSource = &v1alpha1.SourceLimit{}
		}
		if r.action == "reject" {
			l.Action = v1alpha1.ActionReset
		}
		if t.kind == concurrent {
			l.PerSource.Concurrent = pointer(allowed)
			f.Note(r.Place, migrate.Changed, "%s: limits.perSource.concurrent %d: each node counts the established connections of a client for itself", quote(r.text), allowed)
			continue
		}
		perSecond := max(1, allowed/int(period/time.Second))
		l.PerSource.NewPerSecond, l.PerSource.Burst = pointer(perSecond), pointer(allowed)
		f.Note(r.Place, migrate.Changed, "%s: limits.perSource: %d at once and %d more each second: each node counts for itself", quote(r.text), allowed, perSecond)
	}
	if l.PerSource == nil && l.Total == nil {
		return nil
	}
	return &l
}

// period returns that of the rate that a test counts.
func (b *builder) period(p *proxy, t *test) time.Duration {
	if t.backend != "" {
		p = b.proxies[t.backend]
	}
	if p == nil || p.table == nil {
		return 0
	}
	return p.table.rate
}

// idleTimeout returns how long connections without packets last: timeout tunnel, else the
// shorter one of timeout client and timeout server.
func idleTimeout(f *migrate.Frontend, front, back *proxy) *v1alpha1.PolicyIdleTimeout {
	client, server := front.idle["client"], back.idle["server"]
	idle := min(client, server)
	switch tunnel := back.idle["tunnel"]; {
	case tunnel > 0:
		idle = tunnel
	case client == 0 || server == 0:
		idle = client + server
	case client != server:
		f.Note(front.statementOf("timeout").Place, migrate.Changed, "timeout client is %s, timeout server is %s: the shorter one holds for both ends", short(client), short(server))
	}
	if idle == 0 {
		return nil
	}
	return &v1alpha1.PolicyIdleTimeout{TCP: &metav1.Duration{Duration: idle}}
}

// short returns a duration without parts that are zero, such as 5m.
func short(d time.Duration) string {
	text := strings.Replace(d.String(), "m0s", "m", 1)
	return strings.Replace(text, "h0m", "h", 1)
}

// health returns the checks of a backend. There is one for all of its servers.
func (p *proxy) health(f *migrate.Frontend) *v1alpha1.PolicyHealth {
	var h v1alpha1.PolicyHealth
	var first *server
	unchecked := false
	for i := range p.servers {
		s := &p.servers[i]
		switch {
		case s.unserved != "":
			continue
		case !s.check:
			unchecked = true
			continue
		case first == nil:
			first = s
		case s.inter != first.inter || s.rise != first.rise || s.fall != first.fall || s.checkPort != first.checkPort || s.checkTLS != first.checkTLS:
			f.Note(s.Place, migrate.Changed, "%s is checked like the first server that is checked: a policy has one check", quote(s.text))
		}
		if s.observe {
			h.Passive = &v1alpha1.PassiveHealth{Consecutive: pointer(s.errorLimit)}
		}
	}
	if first == nil {
		return nil
	}
	if unchecked {
		f.Note(first.Place, migrate.Changed, "%s is checked, and other servers of %s are not: a policy checks all", quote(first.text), quote(p.section.text))
	}
	timeout := first.inter
	if connect := p.idle["connect"]; connect > 0 {
		timeout = min(timeout, connect)
	}
	if check := p.idle["check"]; check > 0 {
		timeout = min(first.inter, check)
	}
	h.Active = &v1alpha1.ActiveHealth{
		Type: v1alpha1.CheckTCP, Interval: &metav1.Duration{Duration: first.inter}, Timeout: &metav1.Duration{Duration: timeout},
		Rise: pointer(first.rise), Fall: pointer(first.fall),
	}
	if first.checkPort > 0 {
		h.Active.Port = pointer(first.checkPort)
	}
	switch {
	case first.checkTLS:
		f.Note(first.Place, migrate.Changed, "%s is checked by a TCP connect: checks speak no TLS", quote(first.text))
	case p.http != nil:
		h.Active.Type, h.Active.HTTP = v1alpha1.CheckHTTP, p.http
	}
	return &h
}

// noteRulesIn says in a frontend what its backend's rules do not become.
func (p *proxy) noteRulesIn(f *migrate.Frontend) {
	before := len(p.notes)
	p.noteRules()
	f.Notes = append(f.Notes, p.notes[before:]...)
	p.notes = p.notes[:before]
}

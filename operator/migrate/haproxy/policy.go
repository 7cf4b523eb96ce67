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

// policy returns what a frontend and its backends say about connections. It marks the frontend as
// not served if that would let in whom HAProxy keeps out.
func (b *builder) policy(f *migrate.Frontend, front, back, standby *proxy, at *place) (spec v1alpha1.BlixtPolicySpec) {
	ask := about{destination: at.Addr, port: at.port, end: at.end}
	if len(at.addresses) != 1 {
		ask.destination = netip.Addr{}
	}
	var behind []*proxy
	for _, p := range []*proxy{back, standby} {
		if p != nil && p != front && !slices.Contains(behind, p) {
			behind = append(behind, p)
		}
	}
	tooMany := func(cost int) bool {
		if b.asked += cost; b.asked <= maxQuestions {
			return false
		}
		f.Unserved = true
		f.Note(at.Place, migrate.Lost, "%s is not served, as nobody would keep out whom it keeps out: rules and networks are too many: put the networks into one ACL", quote(at.text))
		return true
	}
	if tooMany(b.rules(front, behind)) {
		return spec
	}
	var limited map[*rule]bool
	spec.Limits, limited = b.limits(f, front, behind, at, ask)
	g := b.newGate(front, back, standby, at, limited)
	networks := g.networks()
	if tooMany(len(networks) * g.tests()) {
		return spec
	}
	spec.Sources = g.guard(b, f, front, at, networks, ask)
	b.remember(g)
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

// rules returns how many may be asked about a connection to a frontend.
func (b *builder) rules(front *proxy, behind []*proxy) int {
	n := len(front.rules)
	for i := range front.uses {
		if p := b.proxies[front.uses[i].action]; p != nil {
			n += len(p.rules)
		}
		n++
	}
	for _, p := range behind {
		n += len(p.rules)
	}
	return n
}

func pointer(n int) *int32 {
	v := int32(n)
	return &v
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

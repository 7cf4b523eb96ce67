// SPDX-License-Identifier: Apache-2.0

package nginx

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// target carries proxy_pass over. It reports whether the server can be served.
func (c settings) target(f *migrate.Frontend) bool {
	d := c.one("proxy_pass")
	if d == nil {
		if c.one("return") == nil && c.one("pass") == nil {
			f.Note(c.server.Place, migrate.Lost, "%s is not served: it has no proxy_pass", c.title())
		}
		return false
	}
	if len(d.args) != 1 {
		f.Note(d.Place, migrate.Lost, "%s: it names one server or upstream: %s is not served", d, c.title())
		return false
	}
	parts, why := c.resolve(d.args[0], f)
	if why != "" {
		f.Note(d.Place, migrate.Lost, "%s: %s: %s is not served", d, why, c.title())
		return false
	}
	return c.join(f, d, parts)
}

// part is a share of the connections of a server.
type part struct {
	to      string
	percent float64
	// keyed is true if the client's address chooses the part.
	keyed bool
}

// resolve returns where a proxy_pass leads, or why that cannot be told.
func (c settings) resolve(to string, f *migrate.Frontend) ([]part, string) {
	name := plainVariable(to)
	if !strings.Contains(strings.TrimSuffix(name, ":$server_port"), "$") {
		return []part{{to: to, percent: 100}}, ""
	}
	for _, d := range c.own("set") {
		if len(d.args) == 2 && d.args[0] == name && !strings.Contains(d.args[1], "$") {
			return []part{{to: d.args[1], percent: 100}}, ""
		}
	}
	if value, is := c.sets[name]; is {
		return []part{{to: value, percent: 100}}, ""
	}
	v := c.variables[name]
	switch {
	case strings.Contains(name, "$ssl_preread") || v != nil && v.name == "map" && strings.Contains(v.args[0], "$ssl_preread"):
		return nil, "the name, or the protocol, that a TLS client asks for chooses the server. That is a TLSRoute, which Blixt does not serve: leave it with nginx, and have Blixt balance nginx by a TCPRoute"
	case v == nil:
		return nil, fmt.Sprintf("%s is not known before a client connects: name an address or an upstream", clip(name))
	case v.name == "split_clients":
		return split(v), ""
	case v.name == "map" && plainVariable(v.args[0]) == "$server_port" && f.EndPort <= f.Port:
		return byPort(v, f.Port)
	case v.name == "map" || v.name == "geo":
		return nil, fmt.Sprintf("%s (%s) chooses the server by %s, and Blixt by address, port and protocol alone: give each choice a port or an address of its own", v.name, v.Place, clip(v.args[0]))
	}
	return nil, fmt.Sprintf("%s (%s) chooses the server by a script or a table that changes: give each choice a port or an address of its own", v.name, v.Place)
}

// split returns the parts of split_clients: percentages, of which * is what is left.
func split(d *directive) (parts []part) {
	left, keyed := 100.0, strings.Contains(plainVariable(d.args[0]), "$remote_addr") && !strings.Contains(d.args[0], "port")
	for _, in := range d.block {
		if len(in.args) != 1 {
			continue
		}
		percent, err := strconv.ParseFloat(strings.TrimSuffix(in.name, "%"), 64)
		if in.name == "*" {
			percent, err = left, nil
		}
		if err == nil && percent > 0 && percent <= left+0.001 {
			parts = append(parts, part{in.args[0], percent, keyed})
			left -= percent
		}
	}
	return parts
}

// byPort returns what a map of $server_port has for a port.
func byPort(d *directive, port uint16) ([]part, string) {
	value := ""
	for _, in := range d.block {
		switch {
		case len(in.args) != 1 || strings.HasPrefix(in.name, "~"):
			return nil, fmt.Sprintf("map (%s) has patterns, which Blixt does not follow: name the server", in.Place)
		case in.name == strconv.Itoa(int(port)):
			return []part{{to: in.args[0], percent: 100}}, ""
		case in.name == "default":
			value = in.args[0]
		}
	}
	if value == "" {
		return nil, fmt.Sprintf("map (%s) has nothing for port %d", d.Place, port)
	}
	return []part{{to: value, percent: 100}}, ""
}

// join takes the servers of all parts over, each with its part.
func (c settings) join(f *migrate.Frontend, d *directive, parts []part) bool {
	if len(parts) == 0 {
		f.Note(d.Place, migrate.Lost, "%s: it leads nowhere: %s is not served", d, c.title())
		return false
	}
	var groups [][]migrate.Backend
	for _, p := range parts {
		u := c.upstreams[p.to]
		if u == nil {
			b, why := parseServer(p.to)
			if why != "" {
				if !strings.Contains(p.to, ":") {
					why = fmt.Sprintf("there is no upstream %s", clip(p.to))
				}
				f.Note(d.Place, migrate.Lost, "%s: server %s: %s", d, clip(p.to), why)
				f.Missing = append(f.Missing, clip(p.to))
				continue
			}
			b.Place, b.Weight = d.Place, 1
			groups = append(groups, []migrate.Backend{b})
			continue
		}
		c.use(f, u)
		groups = append(groups, u.backends)
	}
	if len(parts) == 1 && len(groups) == 1 {
		f.Backends = groups[0]
	} else if len(groups) == len(parts) {
		f.Backends = weighted(parts, groups)
		f.Was = "split_clients"
		if parts[0].keyed && f.Policy.Affinity == nil {
			f.Policy.Affinity = &v1alpha1.PolicyAffinity{Type: v1alpha1.AffinityClientAddress}
		}
		f.Note(d.Place, migrate.Changed, "%s: split_clients becomes weights of the servers: as many connections, but other clients than nginx chooses", d)
	}
	if len(f.Backends) == 0 {
		f.Note(d.Place, migrate.Lost, "%s: none of its servers can be carried over: %s is not served", d, c.title())
		return false
	}
	return true
}

// use takes over what an upstream says besides its servers.
func (c settings) use(f *migrate.Frontend, u *upstream) {
	u.used = true
	f.Notes = append(f.Notes, u.notes...)
	f.Was = u.was
	f.Missing = append(f.Missing, u.missing...)
	if f.Pool == "" {
		f.Name, f.Pool = u.name, u.name
	}
	if u.affinity {
		f.Policy.Affinity = &v1alpha1.PolicyAffinity{Type: v1alpha1.AffinityClientAddress}
	}
	if u.health != nil {
		c.judge(f, u)
	}
	if u.connections > 0 {
		n := int32(min(u.connections, 10_000_000))
		f.Policy.Limits = &v1alpha1.PolicyLimits{Total: &v1alpha1.TotalLimit{Limit: v1alpha1.Limit{Concurrent: &n}}, Action: v1alpha1.ActionReset}
	}
}

// weighted returns the servers of several groups with weights by which each group has its part.
func weighted(parts []part, groups [][]migrate.Backend) (all []migrate.Backend) {
	for i, g := range groups {
		sum := 0
		for _, b := range g {
			if !b.Backup {
				sum += b.Weight
			}
		}
		for _, b := range g {
			if sum > 0 && b.Weight > 0 {
				b.Weight = max(1, int(math.Round(parts[i].percent*1000*float64(b.Weight)/float64(sum))))
			}
			all = append(all, b)
		}
	}
	return lessened(all)
}

// lessened divides weights by what divides all.
func lessened(all []migrate.Backend) []migrate.Backend {
	d := 0
	for _, b := range all {
		for x, y := d, b.Weight; ; x, y = y, x%y {
			if y == 0 {
				d = x
				break
			}
		}
	}
	for i := range all {
		if d > 1 {
			all[i].Weight /= d
		}
	}
	return all
}

// timeouts carries proxy_timeout and health_check over.
func (c settings) timeouts(f *migrate.Frontend) {
	if d := c.one("proxy_timeout"); d != nil {
		t, ok := time.Duration(0), len(d.args) == 1
		if ok {
			t, ok = parseTime(d.args[0])
		}
		switch {
		case !ok:
			f.Note(d.Place, migrate.Lost, "%s: that is no time: it counts as if it were not there", d)
		case f.Protocol == corev1.ProtocolUDP:
			f.Policy.IdleTimeout = &v1alpha1.PolicyIdleTimeout{UDP: &metav1.Duration{Duration: t}}
		default:
			f.Policy.IdleTimeout = &v1alpha1.PolicyIdleTimeout{TCP: &metav1.Duration{Duration: t}}
		}
	}
	if d := c.one("proxy_connect_timeout"); d != nil && len(d.args) == 1 && f.Policy.Health != nil && f.Policy.Health.Passive != nil {
		if t, ok := parseTime(d.args[0]); ok && t <= time.Minute {
			f.Policy.Health.Passive.AnswerWithin = &metav1.Duration{Duration: t}
		}
	}
	if d := c.one("health_check"); d != nil && !slices.Contains(d.args, "off") {
		c.check(f, d)
	}
}

// check carries health_check over, of nginx's commercial version.
func (c settings) check(f *migrate.Frontend, d *directive) {
	a := &v1alpha1.ActiveHealth{Type: v1alpha1.CheckTCP}
	rise, fall, interval, timeout := int32(1), int32(1), 5*time.Second, 5*time.Second
	a.Rise, a.Fall = &rise, &fall
	if t := c.one("health_check_timeout"); t != nil && len(t.args) == 1 {
		if is, ok := parseTime(t.args[0]); ok {
			timeout = is
		}
	}
	match := ""
	for _, p := range d.args {
		name, value, _ := strings.Cut(p, "=")
		n, isNumber := number(value)
		switch {
		case name == "interval":
			if t, ok := parseTime(value); ok {
				interval = t
			}
		case name == "fails" && isNumber && n > 0:
			fall = int32(min(n, 100))
		case name == "passes" && isNumber && n > 0:
			rise = int32(min(n, 100))
		case name == "port" && isNumber && n <= 65535:
			port := int32(n)
			a.Port = &port
		case name == "match":
			match = value
		case name == "udp":
			a.Type = v1alpha1.CheckUDP
		case name == "jitter", name == "mandatory", name == "persistent":
		default:
			f.Note(d.Place, migrate.Lost, "%s: Blixt does not know the parameter %s", d, clip(p))
		}
	}
	if interval < time.Second {
		interval = time.Second
	}
	timeout = min(timeout, interval, time.Minute)
	a.Interval, a.Timeout = &metav1.Duration{Duration: interval}, &metav1.Duration{Duration: timeout}
	c.payload(f, d, a, match)
	if f.Policy.Health == nil {
		f.Policy.Health = &v1alpha1.PolicyHealth{}
	}
	f.Policy.Health.Active = a
}

// payload has a UDP check send what a match block says, and nginx's own text without one.
func (c settings) payload(f *migrate.Frontend, d *directive, a *v1alpha1.ActiveHealth, match string) {
	send := "nginx health check"
	for _, m := range c.shared["match"] {
		if len(m.args) != 1 || m.args[0] != match {
			continue
		}
		for _, in := range m.block {
			if in.name == "send" && len(in.args) == 1 {
				send = unescape(in.args[0])
			}
		}
		if a.Type == v1alpha1.CheckTCP || slices.ContainsFunc(m.block, func(in *directive) bool { return in.name == "expect" }) {
			f.Note(d.Place, migrate.Changed, "%s: what match %s sends and expects is not looked at: a server is healthy if it accepts a connection or, by UDP, answers. See health.active of a BlixtPolicy", d, clip(match))
		}
	}
	if a.Type == v1alpha1.CheckUDP {
		if len(send) > 512 {
			f.Note(d.Place, migrate.Changed, "%s: 512 bytes of what match %s sends are sent", d, clip(match))
			send = send[:512]
		}
		a.UDP = &v1alpha1.UDPCheck{Payload: []byte(send)}
	}
}

// unescape reads \xHH.
func unescape(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if strings.HasPrefix(text[i:], `\x`) && i+4 <= len(text) {
			if n, err := strconv.ParseUint(text[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

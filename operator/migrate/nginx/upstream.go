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
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// clip returns a text that is short enough for a note.
func clip(text string) string { return phrase.Clip(text, 100) }

// upstream is a group of servers.
type upstream struct {
	migrate.Place
	name     string
	backends []migrate.Backend
	missing  []string // servers that cannot be carried over
	notes    []migrate.Note
	was      string
	affinity bool
	health   *v1alpha1.PassiveHealth
	// fails is how many failures take a server out, if health does.
	fails int32
	// connections are all that the servers may have together; 0: there is no such limit.
	connections int
	used        bool
}

func (u *upstream) note(d *directive, effect migrate.Effect, format string, args ...any) {
	u.notes = append(u.notes, migrate.Note{Place: d.Place, Effect: effect, Text: fmt.Sprintf(format, args...)})
}

// member is a server of an upstream.
type member struct {
	migrate.Backend
	maxConns, maxFails int
	failTimeout        time.Duration
}

// upstream reads upstream NAME { ... }.
func (s *stream) upstream(d *directive) {
	if len(d.args) != 1 || !d.blocky {
		s.plan.Note(d.Place, migrate.Lost, "%s: an upstream has a name and a block", d)
		return
	}
	u := &upstream{Place: d.Place, name: d.args[0], was: "round robin"}
	if first := s.upstreams[u.name]; first != nil {
		s.plan.Note(d.Place, migrate.Lost, "%s: %s has an upstream of this name: this one is left out", d, first.Place)
		return
	}
	s.upstreams[u.name] = u
	var members []member
	var method *directive // one that has no backup servers
	servers := 0
	for _, in := range d.block {
		switch in.name {
		case "server":
			servers++
			if method != nil && slices.Contains(in.args, "backup") {
				s.refuse(in, "%s, at %s, has no backup servers", method.name, method.Place)
				return
			}
			if m, ok := u.member(in); ok {
				members = append(members, m)
			} else if len(in.args) > 0 {
				u.missing = append(u.missing, clip(in.args[0]))
			}
		case "hash":
			method = in
			u.hash(in)
		case "least_conn", "least_time", "random":
			u.was = in.String()
			if in.name == "random" {
				method = in
			}
			if in.name == "random" && len(in.args) == 0 {
				u.note(in, migrate.Unneeded, "%s: Blixt chooses by a hash of the connection, which divides them as chance does", in)
			} else {
				u.note(in, migrate.Changed, "%s: Blixt does not count connections to choose: each new one goes to a server by its hash, so that all get as many, by their weights", in)
			}
		case "state":
			u.note(in, migrate.Lost, "%s: the servers are in that file: write them into the upstream", in)
		default:
			if k := lookup(in.name); k != nil {
				u.note(in, k.effect, "%s: %s", in, k.text)
			} else {
				u.note(in, migrate.Lost, "%s: Blixt does not know this directive: see what it does for your clients", in)
			}
		}
	}
	u.weigh(d, members, servers)
}

func (u *upstream) hash(d *directive) {
	u.was = d.String()
	key := ""
	if len(d.args) > 0 {
		key = plainVariable(d.args[0])
	}
	switch {
	case isClient(key):
		u.affinity = true
	case strings.Contains(key, "$remote_port"):
		u.note(d, migrate.Unneeded, "%s: Blixt's hash is of the client's address and port, too", d)
	default:
		u.note(d, migrate.Changed, "%s: Blixt's hash is of the connection's addresses and ports, or by affinity of the client's address: not of %s", d, clip(key))
	}
}

// member reads server ADDRESS[:PORT] [PARAMETER...].
func (u *upstream) member(d *directive) (member, bool) {
	m := member{Backend: migrate.Backend{Place: d.Place, Weight: 1}, maxFails: 1, failTimeout: 10 * time.Second}
	if len(d.args) == 0 {
		u.note(d, migrate.Lost, "%s: it names no address", d)
		return m, false
	}
	ok := true
	for _, p := range d.args[1:] {
		name, value, hasValue := strings.Cut(p, "=")
		good := true
		switch {
		case name == "weight" && hasValue:
			m.Weight, good = number(value)
			good = good && m.Weight > 0
		case name == "max_conns" && hasValue:
			m.maxConns, good = number(value)
		case name == "max_fails" && hasValue:
			m.maxFails, good = number(value)
		case name == "fail_timeout" && hasValue:
			m.failTimeout, good = parseTime(value)
		case p == "backup":
			m.Backup = true
		case p == "down", p == "drain":
			m.Weight = 0
		case name == "slow_start":
			u.note(d, migrate.Changed, "%s: a server gets its whole part as soon as it is there: there is no slow_start", d)
		case p == "resolve":
			u.note(d, migrate.Lost, "%s: %s", d, lookUp(hostOf(d.args[0]), ", and change them when they change"))
			ok = false
		case name == "service":
			u.note(d, migrate.Lost, "%s: %s", d, lookUpService(hostOf(d.args[0]), value))
			ok = false
		default:
			u.note(d, migrate.Lost, "%s: Blixt does not know the parameter %s", d, clip(p))
		}
		if !good {
			u.note(d, migrate.Lost, "%s: %s has no value that nginx would take: it counts as if it were not there", d, clip(p))
		}
	}
	if m.Weight < 0 || m.Weight == 0 && !strings.Contains(" "+strings.Join(d.args, " ")+" ", " down ") && !strings.Contains(" "+strings.Join(d.args, " ")+" ", " drain ") {
		m.Weight = 1
	}
	if !ok {
		return m, false
	}
	b, why := parseServer(d.args[0])
	if why != "" {
		u.note(d, migrate.Lost, "%s: %s", d, why)
		return m, false
	}
	m.Addr, m.Port = b.Addr, b.Port
	return m, true
}

// hostOf returns the host of host:port.
func hostOf(text string) string {
	if i := strings.LastIndexByte(text, ':'); i >= 0 && !strings.HasSuffix(text, "]") {
		return text[:i]
	}
	return text
}

func lookUpService(host, service string) string {
	if !isHostName(service) || !isHostName(host) {
		return fmt.Sprintf("Blixt looks no names up, and %q of %q is no name of a service: write addresses", clip(service), clip(host))
	}
	if !strings.Contains(service, ".") && !strings.HasPrefix(service, "_") {
		service = "_" + service + "._tcp"
	}
	return fmt.Sprintf("Blixt looks no names up: write the addresses and ports that dig SRV %s.%s tells, and change them when they change", clip(service), clip(host))
}

// parseServer reads ADDRESS:PORT, or ADDRESS:$server_port, which is the client's. It returns
// why there is no such server.
func parseServer(text string) (b migrate.Backend, why string) {
	if strings.HasPrefix(text, "unix:") {
		return b, "no packet reaches a socket file: have the server listen on an address"
	}
	i := strings.LastIndexByte(text, ':')
	if i < 0 || strings.HasSuffix(text, "]") {
		return b, "it has no port"
	}
	host, port := text[:i], text[i+1:]
	addr, is := parseHost(host)
	if strings.Contains(host, "$") {
		return b, fmt.Sprintf("%s is not known before a client connects", clip(host))
	}
	if !is {
		return b, lookUp(host, "")
	}
	b.Addr = addr
	if plainVariable(port) == "$server_port" {
		return b, ""
	}
	n, ok := number(port)
	if !ok || n < 1 || n > 65535 {
		return b, fmt.Sprintf("%q is no port from 1 to 65535", clip(port))
	}
	b.Port = uint16(n)
	return b, ""
}

// weigh takes over the servers with what their parameters say together.
func (u *upstream) weigh(d *directive, members []member, servers int) {
	for _, m := range members {
		u.backends = append(u.backends, m.Backend)
	}
	if len(members) == 0 {
		return
	}
	limited, sum := 0, 0
	for _, m := range members {
		if m.maxConns > 0 {
			limited++
			sum = min(sum+m.maxConns, math.MaxInt32)
		}
	}
	switch {
	case limited == len(members) && len(members) == 1:
		u.connections = sum
	case limited == len(members):
		u.connections = sum
		u.note(d, migrate.Changed, "max_conns of its servers: Blixt limits connections of all servers together, on each host that serves them: to %s", phrase.Number(sum))
	case limited > 0:
		u.note(d, migrate.Lost, "max_conns of some of its servers: Blixt limits connections of all servers together: give all of them one, or use limits of a BlixtPolicy")
	}
	u.passive(d, members, servers)
}

// passive carries max_fails and fail_timeout over, which nginx ignores of a single server.
func (u *upstream) passive(d *directive, members []member, servers int) {
	if servers < 2 {
		return
	}
	fails, timeout, differ := 0, time.Duration(0), false
	for _, m := range members {
		switch {
		case m.maxFails == 0:
		case fails == 0:
			fails, timeout = m.maxFails, m.failTimeout
		default:
			differ = differ || fails != m.maxFails || timeout != m.failTimeout
			fails, timeout = max(fails, m.maxFails), max(timeout, m.failTimeout)
		}
	}
	if fails == 0 {
		return
	}
	if differ {
		u.note(d, migrate.Changed, "max_fails and fail_timeout differ among its servers: the largest count for all: %d and %s", fails, timeout)
	}
	count, all := int32(min(fails, 1000)), int32(100)
	u.fails = count
	d1, d2, d3 := metav1.Duration{Duration: timeout}, metav1.Duration{Duration: timeout}, metav1.Duration{Duration: timeout}
	u.health = &v1alpha1.PassiveHealth{Consecutive: &count, Window: &d1, BaseEjection: &d2, MaxEjection: &d3, MaxEjectedPercent: &all}
}

// judge has the servers judged by clients' connections, as nginx does; if there are backup servers
// for TCP, by checks: nginx tries a backup server with the very connection that has failed, and
// Blixt with the next one.
func (c settings) judge(f *migrate.Frontend, u *upstream) {
	f.Policy.Health = &v1alpha1.PolicyHealth{Passive: u.health.DeepCopy()}
	backup := slices.ContainsFunc(u.backends, func(b migrate.Backend) bool { return b.Backup })
	if !backup || f.Protocol == corev1.ProtocolUDP {
		return
	}
	rise, fall := int32(1), min(u.fails, 100)
	f.Policy.Health = &v1alpha1.PolicyHealth{Active: &v1alpha1.ActiveHealth{Type: v1alpha1.CheckTCP, Rise: &rise, Fall: &fall,
		Interval: &metav1.Duration{Duration: time.Second}, Timeout: &metav1.Duration{Duration: time.Second}}}
	f.Note(u.Place, migrate.Changed, "upstream %s: it has backup servers, and so Blixt asks each server every second whether it accepts a connection, instead of max_fails and fail_timeout of clients' connections", clip(u.name))
}

// units are those of times in nginx; one without a unit is in seconds.
var units = []struct {
	name string
	is   time.Duration
}{{"ms", time.Millisecond}, {"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}, {"d", 24 * time.Hour}, {"w", 7 * 24 * time.Hour}, {"M", 30 * 24 * time.Hour}, {"y", 365 * 24 * time.Hour}}

// parseTime reads a time such as 10s, 1h30m or 500ms.
func parseTime(text string) (time.Duration, bool) {
	var sum time.Duration
	for text = strings.ReplaceAll(text, " ", ""); text != ""; {
		digits := len(text) - len(strings.TrimLeft(text, "0123456789"))
		n, err := strconv.ParseInt(text[:digits], 10, 32)
		if err != nil {
			return 0, false
		}
		text = text[digits:]
		unit := time.Second
		if text != "" {
			found := false
			for _, u := range units {
				if strings.HasPrefix(text, u.name) {
					text, unit, found = text[len(u.name):], u.is, true
					break
				}
			}
			if !found {
				return 0, false
			}
		}
		if n > int64(math.MaxInt64/unit) || sum > math.MaxInt64-time.Duration(n)*unit {
			return 0, false
		}
		sum += time.Duration(n) * unit
	}
	return sum, true
}

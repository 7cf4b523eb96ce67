// SPDX-License-Identifier: Apache-2.0

package nginx

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// stream is a block of that name.
type stream struct {
	*reader
	shared    map[string][]*directive // what servers inherit, by name
	rules     []*directive            // allow and deny that they inherit, in order
	ending    []*directive            // with which no server can be served
	upstreams map[string]*upstream
	// variables are those that map, split_clients and others define, by name with the $.
	variables map[string]*directive
	sets      map[string]string // those with one value
}

func (r *reader) stream(block []*directive) {
	s := &stream{reader: r, shared: map[string][]*directive{}, upstreams: map[string]*upstream{}, variables: map[string]*directive{}, sets: map[string]string{}}
	var servers []*directive
	s.once(block)
	for _, d := range block {
		switch d.name {
		case "server":
			servers = append(servers, d)
		case "upstream":
			s.upstream(d)
		case "set":
			s.set(d)
		default:
			s.share(d)
		}
	}
	named := s.byName(servers)
	for _, d := range servers {
		s.server(d, named)
	}
	for _, u := range s.upstreams {
		if !u.used {
			s.plan.Note(u.Place, migrate.Unneeded, "upstream %s: no proxy_pass that is carried over leads to it", phrase.Clip(u.name, 64))
		}
	}
}

// share takes a directive that servers inherit.
func (s *stream) share(d *directive) {
	s.define(d)
	s.noteShared(d)
	s.shared[d.name] = append(s.shared[d.name], d)
	switch {
	case d.name == "allow" || d.name == "deny":
		s.rules = append(s.rules, d)
	case d.name == "include", d.name == "js_access", d.name == "js_preread", d.name == "js_filter",
		strings.Contains(d.name, "_by_lua") && !strings.HasPrefix(d.name, "init"):
		s.ending = append(s.ending, d)
	}
}

// define remembers a variable that a directive makes.
func (s *stream) define(d *directive) {
	switch {
	case d.name == "geo" && len(d.args) > 0, d.name == "map" && len(d.args) == 2, d.name == "split_clients" && len(d.args) == 2:
		s.variables[d.args[len(d.args)-1]] = d
	case strings.HasPrefix(d.name, "js_") || strings.HasPrefix(d.name, "keyval"):
		for _, a := range d.args {
			if strings.HasPrefix(a, "$") {
				s.variables[a] = d
			}
		}
	}
}

func (s *stream) set(d *directive) {
	if len(d.args) == 2 && !strings.Contains(d.args[1], "$") {
		s.sets[d.args[0]] = d.args[1]
	}
}

// settings are directives that a server has or inherits: those of the server replace those of
// the same name of stream {}.
type settings struct {
	*stream
	server *directive
}

// own returns the directives of the server's own that have one of the names.
func (c settings) own(names ...string) (all []*directive) {
	for _, d := range c.server.block {
		if slices.Contains(names, d.name) {
			all = append(all, d)
		}
	}
	return all
}

// of returns the directives of a name.
func (c settings) of(name string) []*directive {
	if own := c.own(name); own != nil {
		return own
	}
	return c.shared[name]
}

// one returns the last directive of a name; nil: there is none.
func (c settings) one(name string) *directive {
	if all := c.of(name); len(all) > 0 {
		return all[len(all)-1]
	}
	return nil
}

// on returns a directive that is on; nil: it is off, or not there.
func (c settings) on(name string) *directive {
	if d := c.one(name); d != nil && len(d.args) == 1 && d.args[0] == "on" {
		return d
	}
	return nil
}

// off reports whether a directive's argument says that it does nothing.
func off(d *directive) bool {
	return len(d.args) > 0 && (d.args[0] == "off" || d.args[0] == "0")
}

// read are directives of servers that are carried over, or judged, by themselves.
var read = []string{"listen", "server_name", "proxy_pass", "allow", "deny", "limit_conn", "limit_conn_dry_run", "proxy_timeout", "proxy_protocol", "proxy_bind",
	"health_check", "health_check_timeout", "set", "server", "upstream", "include"} // an include of a file that is not there

// isRead reports whether a directive needs no answer of its own.
func isRead(name string) bool {
	return slices.Contains(read, name) || strings.HasPrefix(name, "ssl_") && name != "ssl_preread" || strings.HasPrefix(name, "proxy_ssl")
}

// noteShared says what becomes of a directive of stream {}, once.
func (s *stream) noteShared(d *directive) {
	if isRead(d.name) {
		return
	}
	k := lookup(d.name)
	switch {
	case k == nil:
		s.plan.Note(d.Place, migrate.Lost, "%s: Blixt does not know this directive: see what it does for your clients", d)
	case !off(d):
		s.plan.Note(d.Place, k.effect, "%s: %s", d, k.text)
	}
}

// noteOwn says what becomes of the directives of the server's own. It reports whether the
// server can be served with them.
func (c settings) noteOwn(f *migrate.Frontend) bool {
	served := true
	for _, d := range c.server.block {
		k := lookup(d.name)
		switch {
		case isRead(d.name):
		case k == nil:
			f.Note(d.Place, migrate.Lost, "%s: Blixt does not know this directive: see what it does for your clients", d)
		case off(d):
		case k.ends:
			f.Note(d.Place, k.effect, "%s: %s: %s is not served", d, k.text, c.title())
			served = false
		default:
			f.Note(d.Place, k.effect, "%s: %s", d, k.text)
		}
	}
	for _, d := range slices.Concat(c.own("include"), c.ending) {
		served = false
		if d.name == "include" {
			f.Note(d.Place, migrate.Lost, "%s: the file is not here, and may say who is kept out: %s is not served", d, c.title())
		} else {
			f.Note(d.Place, migrate.Lost, "%s: Blixt runs no scripts: %s is not served", d, c.title())
		}
	}
	return served
}

// title names the server in notes.
func (c settings) title() string { return fmt.Sprintf("the server at %s", c.server.Place) }

// byName returns the servers that share a listener, which server_name chooses among.
func (s *stream) byName(servers []*directive) map[*directive]bool {
	by := map[string][]*directive{}
	for _, d := range servers {
		for _, l := range d.block {
			if l.name == "listen" && len(l.args) > 0 {
				where := strings.TrimPrefix(strings.TrimPrefix(l.args[0], "*:"), "0.0.0.0:") // 443 is the same
				key := where + " " + fmt.Sprint(slices.Contains(l.args, "udp"))
				if n := len(by[key]); n == 0 || by[key][n-1] != d {
					by[key] = append(by[key], d)
				}
			}
		}
	}
	named := map[*directive]bool{}
	for _, all := range by {
		if len(all) > 1 && slices.ContainsFunc(all, func(d *directive) bool {
			return slices.ContainsFunc(d.block, func(in *directive) bool { return in.name == "server_name" })
		}) {
			for _, d := range all {
				named[d] = true
			}
		}
	}
	return named
}

// server adds the frontends of a server.
func (s *stream) server(d *directive, named map[*directive]bool) {
	if !d.blocky {
		s.plan.Note(d.Place, migrate.Lost, "%s: a server of stream {} has a block", d)
		return
	}
	s.once(d.block)
	c := settings{s, d}
	listens := c.listens()
	if s.plan.Broken {
		return
	}
	if len(listens) == 0 {
		s.plan.Note(d.Place, migrate.Lost, "%s is not served: it has no listen that Blixt can serve", c.title())
		return
	}
	for _, l := range listens {
		s.plan.Frontends = append(s.plan.Frontends, c.frontends(l, named[d])...)
	}
}

// frontends returns those of one port: several, if a range leads to one port of the servers.
func (c settings) frontends(l listen, named bool) []migrate.Frontend {
	f := migrate.Frontend{Place: l.Place, Protocol: l.protocol, Addresses: l.addresses, Port: l.port, EndPort: l.endPort, Notes: l.notes}
	f.Name = fmt.Sprintf("%s-%d", strings.ToLower(string(l.protocol)), l.port)
	served := c.noteOwn(&f)
	served = c.noteTLS(&f, l) && served
	served = c.noteProxyProtocol(&f, l) && served
	if named {
		f.Note(c.server.Place, migrate.Lost, "%s is not served: server_name chooses among several servers of the same listen, by the name that TLS clients ask for. That is a TLSRoute, which Blixt does not serve: leave it with nginx, and have Blixt balance nginx by a TCPRoute", c.title())
		served = false
	} else if n := c.one("server_name"); n != nil {
		f.Note(n.Place, migrate.Unneeded, "%s: no other server has the same listen", n)
	}
	served = c.sources(&f) && served
	served = c.target(&f) && served
	c.limits(&f)
	c.timeouts(&f)
	c.bind(&f)
	f.Unserved = !served
	if f.Unserved || f.EndPort <= f.Port || !c.onePort(&f) {
		return []migrate.Frontend{f}
	}
	return c.expand(f)
}

// onePort reports whether connections to all ports of a range go to the same port.
func (c settings) onePort(f *migrate.Frontend) bool {
	return slices.ContainsFunc(f.Backends, func(b migrate.Backend) bool { return b.Port != 0 })
}

// maxExpanded is how many ports of a range become listeners.
const maxExpanded = 64

// expand makes a frontend of each port: a range keeps ports apart, and so cannot lead to one.
func (c settings) expand(f migrate.Frontend) []migrate.Frontend {
	n := int(f.EndPort) - int(f.Port) + 1
	if n > maxExpanded {
		f.Note(f.Place, migrate.Lost, "ports %d-%d are not served: all lead to one port of the servers, which takes a listener for each, and they would be %d: use proxy_pass ADDRESS:$server_port, or up to %d ports", f.Port, f.EndPort, n, maxExpanded)
		f.Unserved = true
		return []migrate.Frontend{f}
	}
	f.Note(f.Place, migrate.Changed, "ports %d-%d lead to one port of the servers: each becomes a listener", f.Port, f.EndPort)
	first := f.Port
	var all []migrate.Frontend
	for i := range n {
		one := f
		one.Port, one.EndPort = first+uint16(i), 0
		one.Name = fmt.Sprintf("%s-%d", f.Name, one.Port)
		one.Pool = f.Pool
		if one.Pool == "" {
			one.Pool = f.Name
		}
		all = append(all, one)
	}
	return all
}

// noteTLS reports whether a server can be served although TLS ends, or begins, at nginx.
func (c settings) noteTLS(f *migrate.Frontend, l listen) bool {
	served := true
	if l.ssl {
		f.Note(l.Place, migrate.Lost, "%s is not served: TLS ends at nginx, and Blixt has no certificates: have the servers speak TLS, and take ssl away from listen; or leave it with nginx, and have Blixt balance nginx", c.title())
		served = false
	}
	if d := c.on("proxy_ssl"); d != nil {
		f.Note(d.Place, migrate.Lost, "%s is not served: nginx speaks TLS with the servers, and Blixt does not: leave it with nginx, or have clients speak TLS with the servers", c.title())
		served = false
	}
	if served {
		for _, d := range c.server.block {
			if strings.HasPrefix(d.name, "proxy_ssl") || strings.HasPrefix(d.name, "ssl_") && d.name != "ssl_preread" {
				f.Note(d.Place, migrate.Unneeded, "%s: no TLS begins or ends at nginx here", d)
			}
		}
	}
	return served
}

// noteProxyProtocol reports whether a server can be served although nginx reads, or writes, the
// PROXY protocol.
func (c settings) noteProxyProtocol(f *migrate.Frontend, l listen) bool {
	to := c.on("proxy_protocol")
	switch {
	case l.proxyProtocol && to != nil:
		f.Note(to.Place, migrate.Changed, "proxy_protocol on: the servers get the PROXY header that came in, as it was written, as Blixt does not touch it")
	case l.proxyProtocol:
		f.Note(l.Place, migrate.Lost, "%s is not served: clients begin with a PROXY header (listen ... proxy_protocol), which Blixt does not take away: switch it off where it is written, or on at the servers", c.title())
		return false
	case to != nil:
		f.Note(to.Place, migrate.Lost, "proxy_protocol on: Blixt adds no PROXY header: servers see who connects, see docs/client-address.md. Switch the PROXY protocol off at the servers when you move clients, or they refuse every connection")
	}
	return true
}

// bind says what becomes of the address that nginx connects from.
func (c settings) bind(f *migrate.Frontend) {
	d := c.one("proxy_bind")
	switch {
	case d == nil || off(d):
	case slices.Contains(d.args, "transparent"):
		f.Note(d.Place, migrate.Changed, "%s: with Blixt servers on this host see the client's address, those on other machines that of this host, or with --peer the client's: see docs/client-address.md. The servers need no route back through this host", d)
	default:
		f.Note(d.Place, migrate.Changed, "%s: servers on other machines see the address that this host's routes choose: see docs/client-address.md", d)
	}
}

// protocolOf returns that of a listen.
func protocolOf(udp bool) corev1.Protocol {
	if udp {
		return corev1.ProtocolUDP
	}
	return corev1.ProtocolTCP
}

// parseHost reads an address as nginx writes it, with or without brackets.
func parseHost(host string) (netip.Addr, bool) {
	if inside, is := strings.CutPrefix(host, "["); is {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inside, "]"))
		return addr.Unmap(), err == nil && addr.Is6() && strings.HasSuffix(host, "]")
	}
	addr, err := netip.ParseAddr(host)
	return addr, err == nil && addr.Is4()
}

// SPDX-License-Identifier: Apache-2.0

package haproxy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// builder makes frontends of proxies.
type builder struct {
	plan     *migrate.Plan
	proxies  map[string]*proxy // those with servers
	used     map[*proxy]bool
	gateways map[string]bool // names that are taken
	// tables are proxies with a stick table, which all may ask.
	tables map[string]*proxy
	// open are rules of which it is not known whether they hold, and whether one of them decides.
	open    map[migrate.Place]*rule
	decides map[migrate.Place]bool
	// spent and asked are what maxServers and maxQuestions bound.
	spent, asked int
}

// maxListeners is how many a Gateway has.
const maxListeners = 64

// frontends adds those of a proxy that clients connect to.
func (b *builder) frontends(p *proxy) {
	b.used[p] = true
	places := p.places()
	switch {
	case p.mode != "tcp":
		b.use(p)
		text := "%s has mode %s: HTTP is routed by HTTPRoutes, which are not Blixt's: leave it to HAProxy, which Blixt can stand before, or let Blixt balance the port as TCP, by mode tcp"
		if p.statistics() {
			text = "%s has mode %s, for HAProxy's statistics: blixt status, its metrics and its page for browsers take their place"
		}
		effect := migrate.Lost
		if p.statistics() {
			effect = migrate.Unneeded
		}
		b.plan.Note(p.Place, effect, text, quote(p.section.text), p.mode)
	case p.disabled:
		b.plan.Note(p.Place, migrate.Unneeded, "%s is disabled: nobody serves it now either", quote(p.section.text))
	case len(places) == 0:
		b.plan.Note(p.Place, migrate.Lost, "%s has no bind with an address: nothing is served", quote(p.section.text))
		b.plan.Notes = append(append(b.plan.Notes, p.notes...), p.bars...)
	}
	gateway := ""
	if p.sharesAddresses(places) && !b.gateways[p.name()] {
		gateway = p.name()
		b.gateways[gateway] = true
	}
	for i := range places {
		for _, f := range b.frontend(p, &places[i]) {
			f.Gateway = gateway
			if len(places) > 1 || f.Name != p.name() {
				f.Name = fmt.Sprintf("%s-%d", p.name(), f.Port)
			}
			f.Unserved = f.Unserved || p.mode != "tcp" || p.disabled
			if p.mode != "tcp" || p.disabled {
				f.Notes = nil
			}
			b.plan.Frontends = append(b.plan.Frontends, f)
		}
	}
}

// use marks the backends of a proxy for HTTP, of which the proxy's own note says all.
func (b *builder) use(p *proxy) {
	b.used[b.proxies[p.defaultBackend]] = true
	for i := range p.uses {
		b.used[b.proxies[p.uses[i].action]] = true
	}
}

// statistics reports whether a proxy is there for HAProxy's own pages.
func (p *proxy) statistics() bool {
	return len(p.servers) == 0 && p.defaultBackend == "" && len(p.uses) == 0 &&
		slices.ContainsFunc(p.body, func(s statement) bool {
			return s.words[0] == "stats" || strings.Contains(s.text, "prometheus-exporter")
		})
}

// sharesAddresses reports whether one Gateway can have all ports of a proxy.
func (p *proxy) sharesAddresses(places []place) bool {
	ports := 0
	for i := range places {
		if places[i].unserved == "" {
			ports += int(places[i].end-places[i].port) + 1
		}
		if !slices.Equal(places[i].addresses, places[0].addresses) {
			return false
		}
	}
	return ports > 1 && (ports <= maxListeners || len(places) <= maxListeners)
}

// frontend returns those of a place: one, or one for each port of a range whose ports all
// lead to the same port of a server.
func (b *builder) frontend(p *proxy, at *place) []migrate.Frontend {
	f := migrate.Frontend{
		Place: at.Place, Name: p.name(), Protocol: corev1.ProtocolTCP, Addresses: at.addresses, Port: at.port, EndPort: at.end,
		Notes: slices.Clip(p.notes),
	}
	if f.Place.Line == 0 {
		f.Place = p.Place
	}
	refuse := func(at migrate.Place, format string, args ...any) {
		f.Unserved = true
		f.Note(at, migrate.Lost, format, args...)
	}
	if at.unserved != "" {
		refuse(at.Place, "%s is not served: %s", quote(at.text), at.unserved)
	}
	if rule := p.unreadRule(); rule != "" {
		refuse(at.Place, "%s is not served, lest it is open to whom %s refuses: whether that holds is known to HAProxy alone", quote(at.text), quote(rule))
	}
	b.bar(&f, p, p.bars)
	main, standby := b.choose(p, &f, at)
	slices.Sort(f.Missing) // several rules may choose a backend
	f.Missing = slices.Compact(f.Missing)
	if main == nil {
		refuse(p.Place, "%s is not served at port %d: it has no backend that gets all connections: add default_backend", quote(p.section.text), at.port)
		return []migrate.Frontend{f}
	}
	if b.spent += len(main.servers) + len(main.notes) + len(p.notes); b.spent > maxServers {
		refuse(at.Place, "%s is not served: all frontends together have more than %s servers: give fewer files", quote(at.text), phrase.Number(maxServers))
		f.Notes = f.Notes[len(f.Notes)-1:]
		return []migrate.Frontend{f}
	}
	for _, back := range []*proxy{main, standby} {
		if back == nil || back == p {
			continue
		}
		if rule := back.unreadRule(); rule != "" {
			refuse(at.Place, "%s is not served, lest it is open to whom %s refuses: whether that holds is known to HAProxy alone", quote(at.text), quote(rule))
		}
		b.bar(&f, p, back.bars)
	}
	f.Pool, f.Was = main.name(), main.balance
	f.Missing = append(f.Missing, main.missing...)
	if main != p {
		f.Notes = append(f.Notes, main.notes...)
	}
	if main.mode != "tcp" && p.mode == "tcp" {
		refuse(main.Place, "%s has mode %s, and its frontend mode tcp: HAProxy would not start: write mode tcp", quote(main.section.text), main.mode)
	}
	servers := main.served()
	if standby != nil && standby != main {
		f.Pool += "-" + standby.name()
		f.Missing = append(f.Missing, standby.missing...)
		f.Notes = append(f.Notes, standby.notes...)
		for _, s := range standby.served() {
			if s.turn += main.backupTurns; s.backup {
				s.turn++ // behind those of its own backend that are none
			}
			s.backup = true
			servers = append(servers, s)
		}
	}
	for _, s := range servers {
		if f.Pool == p.name() && s.offset {
			f.Pool = fmt.Sprintf("%s-%d", p.name(), at.port)
		}
	}
	for _, back := range []*proxy{main, standby} {
		if back != nil && !back.noteChosen(&f, p, servers) {
			f.Unserved = true
		}
	}
	b.proxyProtocol(&f, at, servers)
	f.Policy = b.policy(&f, p, main, standby, at)
	return b.ports(f, p, servers)
}

// served are the servers of a backend that can be backends.
func (p *proxy) served() (all []server) {
	for _, s := range p.servers {
		if s.unserved == "" {
			all = append(all, s)
		}
	}
	return all
}

// ports gives the frontend its servers, by the ports that they have.
func (b *builder) ports(f migrate.Frontend, p *proxy, servers []server) []migrate.Frontend {
	fixed := func(s server) bool { return s.port != 0 && !s.offset }
	if f.EndPort == f.Port || !slices.ContainsFunc(servers, fixed) {
		f.Backends = b.backends(&f, servers)
		return []migrate.Frontend{f}
	}
	count := int(f.EndPort-f.Port) + 1
	if count > maxListeners {
		f.Backends = b.backends(&f, servers)
		f.Note(f.Place, migrate.Lost, "ports %d-%d of %s are not served: a server with a port of its own gets connections to all of them, which takes a listener for each, and a Gateway has %d: serve fewer, or leave the port of the server away, so that it is the client's", f.Port, f.EndPort, quote(p.section.text), maxListeners)
		f.Unserved = true
		return []migrate.Frontend{f}
	}
	var all []migrate.Frontend
	for port := int(f.Port); port <= int(f.EndPort); port++ {
		one := f
		one.Name, one.Port, one.EndPort, one.Notes = f.Name+"-", uint16(port), uint16(port), slices.Clone(f.Notes)
		one.Backends = b.backends(&one, servers)
		all = append(all, one)
	}
	return all
}

func (b *builder) backends(f *migrate.Frontend, servers []server) (all []migrate.Backend) {
	for i := range servers {
		s := &servers[i]
		one, ok := s.backend(f.Port)
		if ok && f.EndPort > f.Port {
			_, ok = s.backend(f.EndPort)
		}
		if !ok {
			f.Note(s.Place, migrate.Lost, "%s is left out: port %d%+d is none", quote(s.text), f.EndPort, s.relative)
			continue
		}
		all = append(all, one)
	}
	return all
}

// choose returns the backend of a place, and the one that stands by for it.
func (b *builder) choose(p *proxy, f *migrate.Frontend, at *place) (main, standby *proxy) {
	ask := about{destination: at.Addr, port: at.port, end: at.end}
	if len(at.addresses) != 1 {
		ask.destination = netip.Addr{}
	}
	var pending *rule // a backend that is asked first while its servers, or those of the default, are up
	for i := range p.uses {
		r := &p.uses[i]
		switch r.holds(ask) {
		case no:
			continue
		case yes:
			return b.both(p, f, r.statement, r.action, pending)
		}
		if t := r.single(); t != nil && t.kind == alive && pending == nil {
			pending = r
			continue
		}
		b.noteUse(f, r)
	}
	if p.defaultBackend != "" {
		return b.both(p, f, p.statementOf("default_backend"), p.defaultBackend, pending)
	}
	if p.roles&backend != 0 && len(p.servers) > 0 {
		return p, nil
	}
	return nil, nil
}

// both returns the backend that gets connections, and the other one of "use_backend STANDBY if
// { nbsrv(MAIN) lt N }", where they are two.
func (b *builder) both(p *proxy, f *migrate.Frontend, s statement, name string, pending *rule) (main, standby *proxy) {
	main = b.find(f, s, name)
	if pending == nil || main == nil {
		return main, nil
	}
	t := pending.single()
	other := b.find(f, pending.statement, pending.action)
	counted := cmp.Or(t.backend, p.name())
	low, high := t.bounds[0].from, t.bounds[0].to
	switch {
	case other == nil:
	case len(t.bounds) == 1 && low == 0 && counted == name: // the default's servers are down
		if high > 0 {
			f.Note(pending.Place, migrate.Changed, "%s: these servers get connections once none of %s is left: set minAvailablePercent of failover for more", quote(pending.text), quote(name))
		}
		return main, other
	case len(t.bounds) == 1 && high == 1<<31-1 && counted == pending.action:
		if low > 1 {
			f.Note(pending.Place, migrate.Changed, "%s: the servers of %s get connections once none of these is left: set minAvailablePercent of failover for more", quote(pending.text), quote(name))
		}
		return other, main
	}
	b.noteUse(f, pending)
	return main, nil
}

func (b *builder) find(f *migrate.Frontend, s statement, name string) *proxy {
	found := b.proxies[name]
	if found == nil {
		why := "there is no such backend: HAProxy would not start: correct the name"
		if strings.Contains(name, "%[") {
			why = "Blixt does not look into connections: name one backend"
		}
		f.Note(s.Place, migrate.Lost, "%s: %s", quote(s.text), why)
		return nil
	}
	b.used[found] = true
	return found
}

// noteUse says why a backend gets no connections.
func (b *builder) noteUse(f *migrate.Frontend, r *rule) {
	if found := b.proxies[r.action]; found != nil {
		b.used[found] = true
		if found.servesNobody() {
			f.Note(r.Place, migrate.Changed, "%s: who gets no server there is refused at once", quote(r.text))
			return
		}
	}
	why := "a listener has one route, and all its connections go there: make a frontend with another address or port for these"
	if strings.Contains(r.foreign(), "ssl") {
		why = "names of TLS are routed by TLSRoutes, which are not Blixt's: leave it to HAProxy, which Blixt can stand before, or give each name an address"
	}
	f.Note(r.Place, migrate.Lost, "%s: %s", quote(r.text), why)
	f.Missing = append(f.Missing, "backend "+migrate.Clip(r.action))
}

// statementOf returns the last statement with a keyword, for its place.
func (p *proxy) statementOf(keyword string) statement {
	all := effective(p.section)
	for i := range slices.Backward(all) {
		if all[i].words[0] == keyword {
			return all[i]
		}
	}
	return p.section.statement
}

// bar has a frontend not be served for rules that are not understood.
func (b *builder) bar(f *migrate.Frontend, p *proxy, rules []migrate.Note) {
	for _, n := range rules {
		f.Unserved = true
		f.Note(n.Place, n.Effect, "%s. %s is not served until then", n.Text, quote(p.section.text))
	}
}

// remember remembers which rules of a gate were open, and which of these decide.
func (b *builder) remember(g *gate) {
	g.each(func(r *rule) {
		if r.stage != "" && (r.foreign() != "" || r.missing() != "") {
			b.open[r.Place] = r
		}
	})
	for r := range g.doubts {
		b.decides[r.Place] = true
	}
}

// noteIdle says which rules that Blixt does not know decide nothing.
func (b *builder) noteIdle() {
	for at, r := range b.open {
		switch {
		case b.decides[at]:
		case r.action == "accept":
			b.plan.Note(at, migrate.Unneeded, "%s accepts what nothing behind it refuses", quote(r.text))
		default:
			b.plan.Note(at, migrate.Unneeded, "%s: rules before it decide about all connections that it may be about", quote(r.text))
		}
	}
}

// proxyProtocol says what becomes of headers of the PROXY protocol.
func (b *builder) proxyProtocol(f *migrate.Frontend, at *place, servers []server) {
	var sends []server
	for _, s := range servers {
		if s.sendsProxy {
			sends = append(sends, s)
		}
	}
	switch {
	case at.takesProxy && len(sends) == len(servers):
		f.Note(at.Place, migrate.Changed, "%s: the header of the PROXY protocol that clients send reaches the servers as it is, in the version that the client chose", quote(at.text))
	case at.takesProxy:
		f.Unserved = true
		f.Note(at.Place, migrate.Lost, "%s is not served: clients begin with a header of the PROXY protocol, which Blixt passes on, and some servers expect none: switch it off at the clients, or on at all servers", quote(at.text))
	default:
		for _, s := range sends {
			f.Note(s.Place, migrate.Lost, "%s: Blixt sends no header of the PROXY protocol, and connections fail while the server expects one: switch it off there; it sees the client's address itself, as docs/client-address.md says", quote(s.text))
		}
	}
}

// unused adds notes of proxies that no frontend has.
func (b *builder) unused(all []*proxy) {
	for _, p := range all {
		if b.used[p] {
			continue
		}
		if p.mode == "tcp" {
			b.plan.Note(p.Place, migrate.Unneeded, "%s: no frontend that is served uses it", quote(p.section.text))
		} else {
			b.plan.Note(p.Place, migrate.Unneeded, "%s has mode %s: it belongs to frontends for HTTP", quote(p.section.text), p.mode)
		}
	}
}

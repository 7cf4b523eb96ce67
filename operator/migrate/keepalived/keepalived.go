// SPDX-License-Identifier: Apache-2.0

// Package keepalived reads configurations of keepalived: its virtual servers, which it gives
// to IPVS, and their checks. Of VRRP it reads which addresses a host takes.
//
// The words are those of keepalived.conf(5), of versions 2.2 and 2.3.
package keepalived

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/ipvs"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// Read returns what the files serve. A file that another one includes is read there, and once.
func Read(files []migrate.File) *migrate.Plan {
	p := &parser{plan: &migrate.Plan{}, files: files, read: map[string]bool{}, definitions: map[string]string{"_HASH": "#", "_BANG": "!"}}
	included := map[string]bool{}
	for _, f := range files {
		for _, pattern := range Includes(f) {
			for _, g := range matching(files, f.Name, pattern) {
				included[g.Name] = included[g.Name] || g.Name != f.Name
			}
		}
	}
	for _, f := range files {
		if !included[f.Name] {
			p.top(f)
		}
	}
	for _, f := range files { // those that include each other, and nobody else does
		if !p.read[f.Name] {
			p.top(f)
		}
	}
	r := reader{plan: p.plan, groups: map[string]*node{}}
	for _, n := range p.root.body {
		r.before(n)
	}
	for _, n := range p.root.body {
		r.top(n)
	}
	return r.plan
}

// top takes a file that no other one includes.
func (p *parser) top(f migrate.File) {
	p.file(f)
	for _, n := range p.open {
		p.plan.Note(n.Place, migrate.Lost, "%s has no } that closes it: correct the braces", n.head(3))
	}
	p.open, p.last = nil, nil
}

// maxBackends is how many servers all frontends may have together.
const maxBackends = 1_000_000

// reader makes frontends of the tree.
type reader struct {
	backends int
	plan     *migrate.Plan
	groups   map[string]*node // virtual_server_group by name
	idle     v1alpha1.PolicyIdleTimeout
}

// before takes what virtual servers need, wherever it stands.
func (r *reader) before(n *node) {
	switch n.words[0] {
	case "virtual_server_group":
		if r.groups[n.word(1)] == nil {
			r.groups[n.word(1)] = n
		}
	case "global_defs":
		for _, s := range n.body {
			if s.words[0] == "lvs_timeouts" {
				r.timeouts(s)
			}
		}
	}
}

// timeouts takes "lvs_timeouts tcp SECONDS tcpfin SECONDS udp SECONDS".
func (r *reader) timeouts(n *node) {
	for i := 1; i+1 < len(n.words); i += 2 {
		d, err := seconds(n.words[i+1])
		switch {
		case err != nil || d < time.Second:
			r.plan.Note(n.Place, migrate.Lost, "%s: %s is no number of seconds", n.head(7), migrate.Quote(n.words[i+1]))
		case n.words[i] == "tcp":
			r.idle.TCP = &metav1.Duration{Duration: d}
		case n.words[i] == "udp":
			r.idle.UDP = &metav1.Duration{Duration: d}
		}
	}
}

// tops are blocks that belong to no virtual server.
var tops = map[string]string{
	"vrrp_sync_group": vrrp, "vrrp_script": vrrp, "vrrp_track_process": vrrp, "vrrp_track_file": vrrp, "track_process": vrrp, "track_file": vrrp,
	"static_ipaddress": network, "static_routes": network, "static_rules": network, "static_track_group": network,
	"bfd_instance": vrrp, "garp_group": vrrp, "interface_up_down_delays": vrrp, "linkbeat_use_polling": vrrp, "linkbeat_interfaces": vrrp,
	"net_namespace": process, "net_namespace_ipvs": process, "namespace_with_ipsets": process, "instance": process, "use_pid_dir": process,
	"reload_file": process, "include_check": process, "config_save_dir": process, "tmp_config_directory": process, "process_name": process,
	"SSL": "checks speak no TLS",
}

const (
	vrrp    = "it belongs to VRRP: keep it, with vrrp_instance"
	network = "addresses and routes of the host stay as they are: have the system set them, or keep this"
	process = "it is about keepalived's process"
)

// top takes a block, or a statement outside of blocks.
func (r *reader) top(n *node) {
	if n.only != "" && (n.words[0] == "virtual_server" || n.words[0] == "virtual_server_group") {
		r.conditional(n)
		return
	}
	switch name := n.words[0]; name {
	case "virtual_server":
		r.virtualServer(n)
	case "virtual_server_group":
		// It is read where it is used.
	case "vrrp_instance":
		r.instance(n)
	case "global_defs":
		r.global(n)
	default:
		say, ok := tops[name]
		if !ok {
			r.plan.Note(n.Place, migrate.Lost, "%s is no keyword that is known: see what it does", n.head(3))
			return
		}
		r.plan.Note(n.Place, migrate.Unneeded, "%s: %s", n.head(2), say)
	}
}

// conditional says that a line with @ is left out.
func (r *reader) conditional(n *node) {
	r.plan.Note(n.Place, migrate.Lost, "%s is left out: it holds where keepalived's config-id, or the name of the host, is %s: on that host remove the word, elsewhere the line", migrate.Quote(n.only+" "+strings.Join(n.words, " ")), migrate.Clip(strings.TrimLeft(n.only, "@^")))
}

// global says what becomes of global_defs.
func (r *reader) global(n *node) {
	for _, s := range n.body {
		switch s.words[0] {
		case "notification_email":
			r.plan.Note(s.Place, migrate.Lost, "%s: no mails are sent: alert on Blixt's metrics; the chart and docs/observability.md have rules for Prometheus", s.head(1))
		case "lvs_sync_daemon":
			r.plan.Note(s.Place, migrate.Changed, "%s: nodes announce clients to each other where they are peers: give blixt run the flag --peer for each of the others", s.head(1))
		}
	}
	r.plan.Note(n.Place, migrate.Unneeded, "%s: the rest of it is about keepalived's process", n.head(1))
}

// instance says who holds the addresses of a vrrp_instance.
func (r *reader) instance(n *node) {
	var addresses []string
	for _, s := range n.body {
		if s.words[0] == "virtual_ipaddress" || s.words[0] == "virtual_ipaddress_excluded" {
			for _, a := range s.body {
				addresses = append(addresses, migrate.Clip(a.words[0]))
			}
		}
	}
	what := "its addresses"
	if len(addresses) > 0 {
		what = phrase.SampleOf(addresses, 0)
	}
	r.plan.Note(n.Place, migrate.Changed, "%s decides which host has %s: keep it, and run Blixt with the same files and --addresses leave on each of these hosts, or without it on one host; docs/addresses.md has both", n.head(2), what)
}

// virtualServer takes "virtual_server ADDRESS PORT", "fwmark N" or "group NAME".
func (r *reader) virtualServer(n *node) {
	v := virtual{reader: r, node: n, text: n.head(3)}
	v.defaults()
	for _, s := range n.body {
		if s.only != "" {
			r.conditional(s)
			continue
		}
		v.statement(s)
	}
	v.lateDefaults()
	switch n.word(1) {
	case "fwmark":
		r.plan.Notes = append(r.plan.Notes, v.notes...)
		v.mark(n)
	case "group":
		group := r.groups[n.word(2)]
		if group == nil {
			r.plan.Note(n.Place, migrate.Lost, "%s is not served: there is no virtual_server_group of that name", v.text)
			return
		}
		v.group(group)
	default:
		v.one(n, n.words[1:])
	}
}

// mark says what a service of a firewall mark takes.
func (v *virtual) mark(n *node) {
	var servers []string
	for i := range v.servers {
		servers = append(servers, netip.AddrPortFrom(v.servers[i].Address, v.servers[i].Port).String())
	}
	v.plan.Note(n.Place, migrate.Lost, "%s is not served: its addresses and ports are in the rules of the firewall that set the mark, such as nft list ruleset or iptables -t mangle -S show them: write a Gateway with a listener for each; its servers are %s", n.head(3), phrase.SampleOf(servers, 0))
}

// maxRange is how many addresses a range may have.
const maxRange = 1024

// group serves all addresses of a virtual_server_group.
func (v *virtual) group(group *node) {
	for _, a := range group.body {
		switch {
		case a.only != "":
			v.conditional(a)
		case a.words[0] == "fwmark":
			v.mark(a)
		default:
			v.one(a, a.words)
		}
	}
}

// one serves "ADDRESS PORT" or "RANGE PORT".
func (v *virtual) one(n *node, words []string) {
	if len(words) == 0 {
		v.plan.Note(n.Place, migrate.Lost, "%s has no address", n.head(3))
		return
	}
	port := uint64(0)
	if len(words) > 1 {
		var err error
		if port, err = strconv.ParseUint(words[1], 10, 16); err != nil {
			v.plan.Note(n.Place, migrate.Lost, "%s is left out: %s is no port from 1 to 65535", n.head(3), migrate.Quote(words[1]))
			return
		}
	}
	addresses, err := addressRange(words[0])
	if err != nil {
		v.plan.Note(n.Place, migrate.Lost, "%s is left out: %v", n.head(3), err)
		return
	}
	if v.protocol == corev1.ProtocolSCTP {
		v.plan.Note(n.Place, migrate.Lost, "%s is left out: Blixt serves TCP and UDP, not SCTP: leave it to IPVS", n.head(3))
		return
	}
	for _, addr := range addresses {
		v.serve(n, addr, uint16(port))
	}
}

// serve adds a frontend.
func (v *virtual) serve(n *node, addr netip.Addr, port uint16) {
	if v.backends += len(v.servers) + len(v.notes) + 1; v.backends > maxBackends {
		v.plan.Broken = true
		v.plan.Note(n.Place, migrate.Lost, "%s: all services together have more than %s servers: write fewer", n.head(3), phrase.Number(maxBackends))
		return
	}
	s := ipvs.Service{
		Place: n.Place, Text: v.text, Protocol: v.protocol, Address: addr, Port: port, Scheduler: v.scheduler, Flags: v.flags,
		Persistence: v.persistence, Bits: v.bits, OnePacket: v.onePacket, Engine: v.engine,
	}
	for _, server := range v.servers {
		s.Servers = append(s.Servers, server.Server)
	}
	if v.sorry != nil {
		s.Servers = append(s.Servers, *v.sorry)
	}
	f := s.Frontend()
	f.Notes = append(f.Notes, v.notes...)
	f.Policy.Health = v.health(&f)
	idle := v1alpha1.PolicyIdleTimeout{TCP: v.idle.TCP}
	if v.protocol == corev1.ProtocolUDP {
		idle = v1alpha1.PolicyIdleTimeout{UDP: v.idle.UDP}
	}
	if idle.TCP != nil || idle.UDP != nil {
		f.Policy.IdleTimeout = &idle
	}
	v.plan.Frontends = append(v.plan.Frontends, f)
}

// addressRange returns the addresses of 192.0.2.1, 192.0.2.1-10, 192.0.2.250-192.0.3.10 or
// 192.0.2.8/29.
func addressRange(text string) (all []netip.Addr, err error) {
	first, last, isRange := strings.Cut(text, "-")
	if network, bits, found := strings.Cut(text, "/"); found {
		prefix, err := netip.ParsePrefix(network + "/" + bits)
		if err != nil {
			return nil, fmt.Errorf("%s is no network", migrate.Quote(text))
		}
		for a := prefix.Masked().Addr(); prefix.Contains(a) && len(all) <= maxRange; a = a.Next() {
			all = append(all, a)
		}
		return all, tooLong(text, all)
	}
	from, err := netip.ParseAddr(first)
	if err != nil || from.Zone() != "" {
		return nil, fmt.Errorf("%s is no address: Blixt does not look up names: write the address in its place", migrate.Quote(text))
	}
	if !isRange {
		return []netip.Addr{from}, nil
	}
	if !strings.ContainsAny(last, ".:") { // the last part of the address alone
		i := strings.LastIndexAny(first, ".:")
		last = first[:i+1] + last
	}
	to, err := netip.ParseAddr(last)
	if err != nil || to.Less(from) || to.Is4() != from.Is4() {
		return nil, fmt.Errorf("%s is no range of addresses", migrate.Quote(text))
	}
	for a := from; a.IsValid() && !to.Less(a) && len(all) <= maxRange; a = a.Next() {
		all = append(all, a)
	}
	return all, tooLong(text, all)
}

func tooLong(text string, all []netip.Addr) error {
	if len(all) > maxRange {
		return fmt.Errorf("%s has more than %d addresses: write fewer", migrate.Quote(text), maxRange)
	}
	return nil
}

// seconds takes a number of seconds, with a fraction.
func seconds(text string) (time.Duration, error) {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= 0 && n <= 1e8) {
		return 0, fmt.Errorf("%s is no number of seconds", migrate.Quote(text))
	}
	return time.Duration(n * float64(time.Second)), nil
}

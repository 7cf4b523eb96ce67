// SPDX-License-Identifier: Apache-2.0

package keepalived

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/ipvs"
)

// virtual is a virtual_server.
type virtual struct {
	*reader
	node  *node
	text  string
	notes []migrate.Note

	protocol    corev1.Protocol
	scheduler   string
	flags       []string
	persistence time.Duration
	bits        int
	onePacket   bool
	engine      string
	method      ipvs.Method
	weight      int
	timing      timing
	host        string // Host of HTTP checks
	servers     []real
	sorry       *ipvs.Server
}

// real is a real_server with its checks.
type real struct {
	ipvs.Server
	checks []check
}

// timing says when checks are made; 0: as the virtual server, or keepalived, says.
type timing struct {
	loop, timeout time.Duration
	retry         int // -1: not said
}

func (v *virtual) defaults() {
	v.protocol, v.scheduler, v.method, v.weight = corev1.ProtocolTCP, "wlc", ipvs.NAT, 1
	v.timing = timing{loop: 60 * time.Second, timeout: 5 * time.Second, retry: -1}
}

// lateDefaults sets what servers have of the virtual server, wherever that was said.
func (v *virtual) lateDefaults() {
	for i := range v.servers {
		s := &v.servers[i]
		if s.Method == "" {
			s.Method = v.method
		}
		if s.Weight < 0 {
			s.Weight = v.weight
		}
		for j := range s.checks {
			s.checks[j].timing = s.checks[j].timing.or(v.timing)
			s.checks[j].host = cmp.Or(s.checks[j].host, v.host)
		}
	}
	if v.sorry != nil && v.sorry.Method == "" {
		v.sorry.Method = v.method
	}
}

// or returns the timing, and of what it does not say that of another.
func (t timing) or(o timing) timing {
	t.loop, t.timeout = cmp.Or(t.loop, o.loop), cmp.Or(t.timeout, o.timeout)
	if t.retry < 0 {
		t.retry = o.retry
	}
	return t
}

// note notes something about the virtual server.
func (v *virtual) note(n *node, effect migrate.Effect, format string, args ...any) {
	v.notes = append(v.notes, migrate.Note{Place: n.Place, Effect: effect, Text: fmt.Sprintf(format, args...)})
}

// scripts are keywords with programs that keepalived runs.
var scripts = []string{"quorum_up", "quorum_down", "notify_up", "notify_down"}

// silent are keywords that make no difference.
var silent = map[string]string{
	"omega": "no scripts are run at the end", "ha_suspend": "checks go on, whoever has the address",
	"hysteresis": "the next group takes over as soon as nobody is left", "snmp_name": "it is a name for SNMP", "smtp_alert": "no mails are sent",
	"nat_mask": "it has no meaning any more", "ip_family": "it is for firewall marks", "warmup": "checks begin one after the other",
	"delay_before_retry": "checks have one interval", "log_all_failures": "blixt run logs when a server is taken out", "sorry_server_inhibit": "a server that is taken out keeps its connections",
	"inhibit_on_failure": "a server that is taken out keeps its connections", "virtualhost": "", "bindto": "checks have the host's address", "bind_if": "checks leave by the host's routes",
	"bind_port": "checks have any port", "fwmark": "checks have no mark", "fast_recovery": "checks have one interval",
}

// statement takes a line of the virtual server.
func (v *virtual) statement(n *node) {
	switch name, value := n.words[0], n.word(1); name {
	case "lb_algo", "lvs_sched":
		v.scheduler = value
	case "lb_kind", "lvs_method":
		v.method = v.methodOf(n, value)
	case "flag-1", "flag-2", "flag-3", "sh-port", "sh-fallback", "mh-port", "mh-fallback":
		v.flags = append(v.flags, name)
	case "ops":
		v.onePacket = true
	case "persistence_engine":
		v.engine = value
	case "persistence_timeout":
		v.seconds(n, &v.persistence, cmp.Or(value, "360"))
	case "persistence_granularity":
		v.granularity(n, value)
	case "protocol":
		v.protocol = corev1.Protocol(strings.ToUpper(value))
		if !slices.Contains([]corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}, v.protocol) {
			v.note(n, migrate.Lost, "%s is no protocol of keepalived: TCP is served", n.head(2))
			v.protocol = corev1.ProtocolTCP
		}
	case "weight":
		v.number(n, &v.weight, value, 0, 1<<31-1)
	case "quorum":
		if value != "1" {
			v.note(n, migrate.Changed, "%s: the sorry server gets connections once no server is left: set minAvailablePercent of failover for more", n.head(2))
		}
	case "alpha":
		v.note(n, migrate.Changed, "%s: a server counts as healthy until its checks fail", n.head(1))
	case "sorry_server":
		v.sorryServer(n)
	case "sorry_server_lvs_method":
		if v.sorry != nil {
			v.sorry.Method = v.methodOf(n, value)
		}
	case "real_server":
		v.realServer(n)
	case "virtualhost":
		v.host = value
	default:
		v.common(n, &v.timing)
	}
}

// common takes what virtual servers, real servers and checks may say alike.
func (v *virtual) common(n *node, t *timing) {
	name, value := n.words[0], n.word(1)
	switch name {
	case "delay_loop":
		v.seconds(n, &t.loop, value)
		return
	case "connect_timeout":
		v.seconds(n, &t.timeout, value)
		return
	case "retry", "nb_get_retry":
		v.number(n, &t.retry, value, 0, 99)
		return
	case "alpha":
		return // said for the virtual server
	}
	switch say, ok := silent[name]; {
	case ok && say == "":
	case ok:
		v.note(n, migrate.Unneeded, "%s: %s", n.head(1), say)
	case slices.Contains(scripts, name):
		v.note(n, migrate.Lost, "%s: no scripts are run: alert on Blixt's metrics, or follow blixt flows and the log", n.head(1))
	default:
		v.note(n, migrate.Lost, "%s is no keyword that is known here: see what it does", n.head(2))
	}
}

func (v *virtual) seconds(n *node, to *time.Duration, text string) {
	d, err := seconds(text)
	if err != nil {
		v.note(n, migrate.Lost, "%s: %v", n.head(2), err)
		return
	}
	*to = d
}

func (v *virtual) number(n *node, to *int, text string, least, most int) {
	number, err := strconv.Atoi(text)
	if err != nil || number < least || number > most {
		v.note(n, migrate.Lost, "%s: %s is no number from %d to %d", n.head(2), migrate.Quote(text), least, most)
		return
	}
	*to = number
}

func (v *virtual) methodOf(n *node, text string) ipvs.Method {
	switch strings.ToUpper(text) {
	case "NAT":
		return ipvs.NAT
	case "DR":
		return ipvs.Routing
	case "TUN":
		return ipvs.Tunnel
	}
	v.note(n, migrate.Lost, "%s is neither NAT, DR nor TUN", n.head(2))
	return v.method
}

func (v *virtual) granularity(n *node, text string) {
	mask, err := netip.ParseAddr(text)
	if bits, errBits := strconv.Atoi(text); errBits == nil && bits >= 1 && bits <= 128 {
		v.bits = bits
	} else if bits = ipvs.MaskBits(mask); err == nil && bits > 0 {
		v.bits = bits
	} else {
		v.note(n, migrate.Lost, "%s: %s is no mask", n.head(2), migrate.Quote(text))
	}
}

// place takes the words "ADDRESS PORT" of a server.
func (v *virtual) place(n *node) (s ipvs.Server, ok bool) {
	s = ipvs.Server{Place: n.Place, Text: n.head(3), Weight: -1}
	var err error
	s.Address, err = netip.ParseAddr(n.word(1))
	if err != nil {
		v.note(n, migrate.Lost, "%s is left out: %s is no address: Blixt does not look up names: write the address in its place", n.head(3), migrate.Quote(n.word(1)))
		return s, false
	}
	if n.word(2) == "" {
		return s, true
	}
	port, err := strconv.ParseUint(n.word(2), 10, 16)
	if err != nil {
		v.note(n, migrate.Lost, "%s is left out: %s is no port from 1 to 65535", n.head(3), migrate.Quote(n.word(2)))
	}
	s.Port = uint16(port)
	return s, err == nil
}

func (v *virtual) sorryServer(n *node) {
	if s, ok := v.place(n); ok {
		s.Sorry, s.Weight = true, 1
		v.sorry = &s
	}
}

func (v *virtual) realServer(n *node) {
	s, ok := v.place(n)
	if !ok {
		return
	}
	server := real{Server: s}
	t := timing{retry: -1}
	host := ""
	for _, x := range n.body {
		if x.only != "" {
			v.reader.conditional(x)
			continue
		}
		switch name, value := x.words[0], x.word(1); {
		case name == "weight":
			server.Weight = v.weight
			v.number(x, &server.Weight, value, 0, 1<<31-1)
		case name == "lvs_method" || name == "lb_kind":
			server.Method = v.methodOf(x, value)
		case name == "uthreshold" || name == "lthreshold":
			server.Limited = true
		case name == "virtualhost":
			host = value
		case strings.HasSuffix(name, "_CHECK") || strings.HasSuffix(name, "_GET"):
			if c, ok := v.check(x); ok {
				server.checks = append(server.checks, c)
			}
		default:
			v.common(x, &t)
		}
	}
	for i := range server.checks {
		server.checks[i].timing = server.checks[i].timing.or(t)
		server.checks[i].host = cmp.Or(server.checks[i].host, host)
	}
	v.servers = append(v.servers, server)
}

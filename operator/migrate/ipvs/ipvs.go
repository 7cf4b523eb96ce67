// SPDX-License-Identifier: Apache-2.0

package ipvs

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// Read returns what the files serve: each what ipvsadm -Sn has printed, or a script of
// commands of ipvsadm.
func Read(files []migrate.File) *migrate.Plan {
	r := reader{plan: &migrate.Plan{}, byKey: map[string]*Service{}, marks: map[string]*mark{}}
	for _, f := range files {
		r.file(f)
	}
	r.finish()
	return r.plan
}

// reader is the table as far as it has been read.
type reader struct {
	plan     *migrate.Plan
	services []*Service
	byKey    map[string]*Service // by protocol, address and port
	marks    map[string]*mark
	order    []*mark
	idle     v1alpha1.PolicyIdleTimeout
	commands int
}

// maxCommands is how many there may be.
const maxCommands = 500_000

// mark is a service of a firewall mark.
type mark struct {
	migrate.Place
	text    string
	servers []string
}

// listing are lines of ipvsadm -L, which says less than -S does.
var listing = []string{"IP Virtual Server version", "Prot LocalAddress:Port", "-> RemoteAddress:Port"}

func (r *reader) file(f migrate.File) {
	n := 0
	for line := range bytes.SplitSeq(f.Text, []byte("\n")) {
		n++
		at := migrate.Place{File: f.Name, Line: n}
		text := strings.TrimSpace(string(line))
		for _, l := range listing {
			if strings.HasPrefix(text, l) {
				r.plan.Broken = true
				r.plan.Note(at, migrate.Lost, "%s is printed by ipvsadm -L, which leaves options out: nothing of the file is read: save the table with ipvsadm -Sn, and read that", migrate.Quote(text))
				return
			}
		}
		words := fields(text)
		if len(words) > 0 && strings.HasSuffix("/"+words[0], "/sudo") {
			for words = words[1:]; len(words) > 0 && strings.HasPrefix(words[0], "-"); words = words[1:] {
				if words[0] == "-u" && len(words) > 1 { // the user
					words = words[1:]
				}
			}
		}
		if len(words) > 0 && strings.HasSuffix("/"+words[0], "/ipvsadm") {
			words = words[1:]
		}
		if len(words) == 0 {
			continue
		}
		if r.commands++; r.commands > maxCommands {
			if !r.plan.Broken {
				r.plan.Broken = true
				r.plan.Note(at, migrate.Lost, "there are more than %s commands: give fewer files", phrase.Number(maxCommands))
			}
			return
		}
		r.command(at, words)
	}
}

// fields returns the words before a comment, with -w1 and --weight=1 as two words.
func fields(text string) (all []string) {
	for _, w := range strings.Fields(text) {
		if strings.HasPrefix(w, "#") {
			break
		}
		name, value, found := strings.Cut(w, "=")
		switch {
		case strings.HasPrefix(w, "--") && found:
			all = append(all, name, value)
		case len(w) > 2 && w[0] == '-' && w[1] != '-' && strings.IndexByte("tufsrwxyMb", w[1]) >= 0:
			all = append(all, w[:2], w[2:])
		default:
			all = append(all, w)
		}
	}
	return all
}

// long are long options, by the short one.
var long = map[string]string{
	"--add-service": "-A", "--edit-service": "-E", "--delete-service": "-D", "--clear": "-C", "--restore": "-R", "--save": "-S",
	"--add-server": "-a", "--edit-server": "-e", "--delete-server": "-d", "--zero": "-Z", "--list": "-L",
	"--tcp-service": "-t", "--udp-service": "-u", "--fwmark-service": "-f", "--scheduler": "-s", "--persistent": "-p", "--netmask": "-M",
	"--real-server": "-r", "--gatewaying": "-g", "--ipip": "-i", "--masquerading": "-m", "--weight": "-w", "--u-threshold": "-x",
	"--l-threshold": "-y", "--ops": "-o", "-O": "-o", "--sched-flags": "-b", "--ipv6": "-6", "--numeric": "-n",
}

// command takes a line.
func (r *reader) command(at migrate.Place, words []string) {
	text := migrate.Quote(strings.Join(words, " "))
	name := cmp.Or(long[words[0]], words[0])
	switch name {
	case "-A", "-a":
		o := options{at: at, text: text, plan: r.plan, bits: 0, method: Routing, weight: 1, scheduler: "wlc"}
		o.take(words[1:])
		if o.failed {
			return
		}
		if name == "-A" {
			r.addService(&o)
		} else {
			r.addServer(&o)
		}
	case "-C", "-Z", "-n", "-R", "-S":
		r.plan.Note(at, migrate.Unneeded, "%s defines nothing", text)
	case "--set":
		r.set(at, text, words[1:])
	case "--start-daemon", "--stop-daemon":
		r.plan.Note(at, migrate.Changed, "%s: nodes announce clients to each other where they are peers: give blixt run the flag --peer for each of the others", text)
	case "-E", "-e", "-D", "-d":
		r.plan.Note(at, migrate.Lost, "%s changes what other lines define: save the table that results with ipvsadm -Sn, and read that", text)
	default:
		r.plan.Note(at, migrate.Lost, "%s is no line of ipvsadm -Sn: save the table with that command", text)
	}
}

// set takes the time-outs of "--set TCP TCPFIN UDP", in seconds. 0: none is said.
func (r *reader) set(at migrate.Place, text string, words []string) {
	var seconds [3]int
	for i := range seconds {
		n, err := -1, error(nil)
		if i < len(words) {
			n, err = strconv.Atoi(words[i])
		}
		if err != nil || n < 0 || n > 1<<31 || len(words) != 3 {
			r.plan.Note(at, migrate.Lost, "%s: write --set TCP TCPFIN UDP in seconds", text)
			return
		}
		seconds[i] = n
	}
	if seconds[0] > 0 {
		r.idle.TCP = &metav1.Duration{Duration: time.Duration(seconds[0]) * time.Second}
	}
	if seconds[2] > 0 {
		r.idle.UDP = &metav1.Duration{Duration: time.Duration(seconds[2]) * time.Second}
	}
}

// options are those of a line.
type options struct {
	at   migrate.Place
	text string
	plan *migrate.Plan

	protocol           corev1.Protocol
	service, server    string
	mark               string
	scheduler          string
	flags              []string
	persistence        time.Duration
	bits               int
	onePacket, limited bool
	engine             string
	method             Method
	weight             int
	failed             bool
}

// fail says why a line is left out.
func (o *options) fail(format string, args ...any) {
	if !o.failed {
		o.plan.Note(o.at, migrate.Lost, "%s is left out: %s", o.text, fmt.Sprintf(format, args...))
	}
	o.failed = true
}

func (o *options) take(words []string) {
	for i := 0; i < len(words); i++ {
		name := cmp.Or(long[words[i]], words[i])
		value := ""
		switch name {
		case "-t", "-u", "--sctp-service", "-f", "-s", "-M", "-b", "--pe", "-r", "-w", "-x", "-y", "--tun-type", "--tun-port":
			if i++; i == len(words) {
				o.fail("%s has no value", name)
				return
			}
			value = words[i]
		case "-p": // its value may be left away
			value = "300"
			if i+1 < len(words) && !strings.HasPrefix(words[i+1], "-") {
				i++
				value = words[i]
			}
		}
		o.one(name, value)
	}
}

// one takes an option.
func (o *options) one(name, value string) {
	switch name {
	case "-t":
		o.protocol, o.service = corev1.ProtocolTCP, value
	case "-u":
		o.protocol, o.service = corev1.ProtocolUDP, value
	case "--sctp-service":
		o.protocol, o.service = corev1.ProtocolSCTP, value
	case "-f":
		o.mark = value
	case "-s":
		o.scheduler = value
	case "-p":
		o.persistence = time.Duration(o.number(name, value, 1, 31*86400)) * time.Second
	case "-M":
		o.bits = o.mask(value)
	case "-o":
		o.onePacket = true
	case "-b":
		o.flags = strings.Split(value, ",")
	case "--pe":
		o.engine = value
	case "-r":
		o.server = value
	case "-g":
		o.method = Routing
	case "-i":
		o.method = Tunnel
	case "-m":
		o.method = NAT
	case "-w":
		o.weight = o.number(name, value, 0, 1<<31-1)
	case "-x", "-y":
		o.limited = o.limited || o.number(name, value, 0, 65535) > 0
	case "-6", "-n", "--tun-type", "--tun-port", "--tun-nocsum", "--tun-csum", "--tun-remcsum":
	default:
		o.fail("option %s is not known: see what it does", migrate.Quote(name))
	}
}

func (o *options) number(name, text string, least, most int) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		o.fail("%s %s is no number from %d to %d", name, migrate.Quote(text), least, most)
		return least
	}
	return n
}

// mask returns the length of 255.255.255.0, or of a prefix length of IPv6.
func (o *options) mask(text string) int {
	if mask, err := netip.ParseAddr(text); err == nil && mask.Is4() {
		if bits := MaskBits(mask); bits > 0 {
			return bits
		}
	} else if bits, err := strconv.Atoi(text); err == nil && bits >= 1 && bits <= 128 {
		return bits
	}
	o.fail("-M %s is no mask", migrate.Quote(text))
	return 0
}

// MaskBits returns the length of an IPv4 mask, or -1.
func MaskBits(mask netip.Addr) int {
	for bits := 0; bits <= 32; bits++ {
		if netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), bits).Masked().Addr() == mask {
			return bits
		}
	}
	return -1
}

// place takes ADDRESS:PORT, or an address alone.
func (o *options) place(text string) (addr netip.Addr, port uint16) {
	host, service := text, ""
	if i := strings.LastIndexAny(text, ":]"); i >= 0 && text[i] == ':' && (strings.Count(text, ":") == 1 || strings.HasPrefix(text, "[")) {
		host, service = text[:i], text[i+1:]
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	addr, err := netip.ParseAddr(host)
	if err != nil {
		o.fail("%s is a name: save the table with addresses, by ipvsadm -Sn", migrate.Quote(host))
		return addr, 0
	}
	if service == "" {
		return addr.Unmap(), 0
	}
	n, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		o.fail("%s is no number of a port: save the table with numbers, by ipvsadm -Sn", migrate.Quote(service))
	}
	return addr.Unmap(), uint16(n)
}

// addService takes -A.
func (r *reader) addService(o *options) {
	if o.mark != "" {
		m := &mark{Place: o.at, text: o.text}
		r.marks[o.mark] = m
		r.order = append(r.order, m)
		return
	}
	if o.service == "" {
		o.fail("it has no -t, -u or -f")
		return
	}
	if o.protocol == corev1.ProtocolSCTP {
		o.fail("Blixt serves TCP and UDP, not SCTP: leave it to IPVS")
		r.byKey[key(o)] = &Service{Protocol: corev1.ProtocolSCTP}
		return
	}
	addr, port := o.place(o.service)
	if o.failed {
		r.byKey[key(o)] = &Service{Protocol: corev1.ProtocolSCTP} // its servers need no note
		return
	}
	if r.byKey[key(o)] != nil {
		o.fail("there is such a service already")
		return
	}
	s := &Service{
		Place: o.at, Text: o.text, Protocol: o.protocol, Address: addr, Port: port, Scheduler: o.scheduler, Flags: o.flags,
		Persistence: o.persistence, Bits: o.bits, OnePacket: o.onePacket, Engine: o.engine,
	}
	r.byKey[key(o)] = s
	r.services = append(r.services, s)
}

func key(o *options) string { return string(o.protocol) + " " + o.service }

// addServer takes -a.
func (r *reader) addServer(o *options) {
	if o.server == "" {
		o.fail("it has no -r")
		return
	}
	if o.mark != "" {
		if m := r.marks[o.mark]; m != nil {
			m.servers = append(m.servers, migrate.Clip(o.server))
		} else {
			o.fail("there is no service of mark %s before it", migrate.Quote(o.mark))
		}
		return
	}
	s := r.byKey[key(o)]
	switch {
	case s == nil:
		o.fail("there is no such service before it")
		return
	case !s.Address.IsValid(): // the service has a note
		return
	}
	addr, port := o.place(o.server)
	if o.failed {
		return
	}
	s.Servers = append(s.Servers, Server{
		Place: o.at, Text: o.text, Address: addr, Port: cmp.Or(port, s.Port), Weight: o.weight, Method: o.method, Limited: o.limited,
	})
}

// finish makes frontends of services.
func (r *reader) finish() {
	for _, m := range r.order {
		servers := "it has no servers"
		if len(m.servers) > 0 {
			servers = "its servers are " + phrase.SampleOf(m.servers, 0)
		}
		r.plan.Note(m.Place, migrate.Lost, "%s is not served: its addresses and ports are in the rules of the firewall that set the mark, such as nft list ruleset or iptables -t mangle -S show them: write a Gateway with a listener for each; %s", m.text, servers)
	}
	for _, s := range r.services {
		f := s.Frontend()
		idle := v1alpha1.PolicyIdleTimeout{TCP: r.idle.TCP}
		if s.Protocol == corev1.ProtocolUDP {
			idle = v1alpha1.PolicyIdleTimeout{UDP: r.idle.UDP}
		}
		if idle.TCP != nil || idle.UDP != nil {
			f.Policy.IdleTimeout = &idle
		}
		r.plan.Frontends = append(r.plan.Frontends, f)
	}
}

// SPDX-License-Identifier: Apache-2.0

package haproxy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// server is a line "server", or one of those that "server-template" stands for.
type server struct {
	statement
	name string
	address
	settings
	unserved string // why it gets no connections of Blixt, or ""
	turn     int    // of a backup server
}

// settings are what default-server and server say.
type settings struct {
	weight               int
	backup, disabled     bool
	check                bool
	checkPort            int
	inter                time.Duration
	rise, fall           int
	observe              bool
	errorLimit           int
	ssl                  bool
	sendsProxy, checkTLS bool
	checkElsewhere       string // an address for checks
}

func newSettings() settings {
	return settings{weight: 1, inter: 2 * time.Second, rise: 2, fall: 3, errorLimit: 10}
}

// serverParameters are those of section 5.2 of the manual that are not of TLS, and how many
// values they have. Those without a text are in settings.set.
var serverParameters = map[string]parameter{
	"addr":                    {1, "", ""},
	"backup":                  {0, "", ""},
	"no-backup":               {0, "", ""},
	"check":                   {0, "", ""},
	"no-check":                {0, "", ""},
	"check-ssl":               {0, "", ""},
	"no-check-ssl":            {0, "", ""},
	"disabled":                {0, "", ""},
	"enabled":                 {0, "", ""},
	"error-limit":             {1, "", ""},
	"fall":                    {1, "", ""},
	"rise":                    {1, "", ""},
	"inter":                   {1, "", ""},
	"observe":                 {1, "", ""},
	"port":                    {1, "", ""},
	"send-proxy":              {0, "", ""},
	"send-proxy-v2":           {0, "", ""},
	"send-proxy-v2-ssl":       {0, "", ""},
	"send-proxy-v2-ssl-cn":    {0, "", ""},
	"no-send-proxy":           {0, "", ""},
	"no-send-proxy-v2":        {0, "", ""},
	"no-send-proxy-v2-ssl":    {0, "", ""},
	"no-send-proxy-v2-ssl-cn": {0, "", ""},
	"ssl":                     {0, "", ""},
	"no-ssl":                  {0, "", ""},
	"weight":                  {1, "", ""},
	"track":                   {1, migrate.Lost, "Blixt checks each server itself: it is as healthy as its own check says"},
	"agent-check":             {0, migrate.Lost, "no agent on the server is asked: change weights in the file, which is followed, or take a server out with blixt drain"},
	"maxconn":                 {1, migrate.Lost, "limits hold for a listener, not for a server, and nothing waits in a queue: let the server bound its connections, or set limits in the policy"},
	"maxqueue":                {1, migrate.Unneeded, "nothing waits in a queue"},
	"minconn":                 {1, migrate.Unneeded, "nothing waits in a queue"},
	"slowstart":               {1, migrate.Lost, "a server that is healthy again gets its whole share at once"},
	"on-marked-down":          {1, migrate.Lost, "connections of a server that fails its check stay; remove it from the EndpointSlice, and they are reset"},
	"on-marked-up":            {1, migrate.Lost, "connections of backup servers stay when others are back: limit them with maxAge in the policy"},
	"on-error":                {1, migrate.Changed, "passive health of the policy takes a server out; it has one way to do so"},
	"fastinter":               {1, migrate.Changed, "checks have one interval"},
	"downinter":               {1, migrate.Changed, "checks have one interval"},
	"check-send-proxy":        {0, migrate.Lost, "checks send no header of the PROXY protocol: have the server expect none"},
	"check-via-socks4":        {0, migrate.Lost, "checks connect to the server directly"},
	"socks4":                  {1, migrate.Lost, "packets go to the server directly: make a route to it"},
	"namespace":               {1, migrate.Lost, "packets leave by the routes of the namespace that Blixt runs in: make a route to the server there"},
	"redir":                   {1, migrate.Unneeded, "it is for HTTP"},
	"cookie":                  {1, migrate.Unneeded, "it is for HTTP"},
	"proto":                   {1, migrate.Unneeded, "it is for HTTP"},
	"ws":                      {1, migrate.Unneeded, "it is for HTTP"},
	"max-reuse":               {1, migrate.Unneeded, "it is for HTTP"},
	"pool-low-conn":           {1, migrate.Unneeded, "it is for HTTP"},
	"pool-max-conn":           {1, migrate.Unneeded, "it is for HTTP"},
	"pool-purge-delay":        {1, migrate.Unneeded, "it is for HTTP"},
	"pool-conn-name":          {1, migrate.Unneeded, "it is for HTTP"},
	"idle-ping":               {1, migrate.Unneeded, "it is for HTTP"},
	"log-proto":               {1, migrate.Unneeded, "it is for logs"},
	"log-bufsize":             {1, migrate.Unneeded, "it is for logs"},
	"check-proto":             {1, migrate.Unneeded, "checks speak TCP or HTTP/1.1"},
	"check-alpn":              {1, migrate.Unneeded, "checks speak TCP or HTTP/1.1"},
	"check-sni":               {1, migrate.Unneeded, "checks speak TCP or HTTP/1.1"},
	"check-pool-conn-name":    {1, migrate.Unneeded, "checks speak TCP or HTTP/1.1"},
	"check-reuse-pool":        {0, migrate.Unneeded, "checks speak TCP or HTTP/1.1"},
	"check-settings":          {1, migrate.Lost, "sections of checks are not read: set health.active of the policy"},
	"init-addr":               {1, migrate.Unneeded, "names are not looked up"},
	"init-state":              {1, migrate.Unneeded, "a server counts as healthy until its check fails"},
	"resolvers":               {1, migrate.Unneeded, "names are not looked up"},
	"resolve-prefer":          {1, migrate.Unneeded, "names are not looked up"},
	"resolve-net":             {1, migrate.Unneeded, "names are not looked up"},
	"resolve-opts":            {1, migrate.Unneeded, "names are not looked up"},
	"id":                      {1, migrate.Unneeded, "it is a number of HAProxy's statistics"},
	"guid":                    {1, migrate.Unneeded, "it is a name of HAProxy's statistics"},
	"set-proxy-v2-tlv-fmt":    {1, migrate.Unneeded, "no header of the PROXY protocol is sent"},
	"proxy-v2-options":        {1, migrate.Unneeded, "no header of the PROXY protocol is sent"},
	"tcp-ut":                  {1, migrate.Unneeded, "clients and servers end their TCP connections themselves"},
	"tcp-md5sig":              {1, migrate.Lost, "Blixt signs no segments, and changes addresses that are signed"},
	"tfo":                     {0, migrate.Unneeded, "clients agree on TCP Fast Open with the server"},
	"no-tfo":                  {0, migrate.Unneeded, "clients agree on TCP Fast Open with the server"},
	"cc":                      {1, migrate.Unneeded, "clients and servers control congestion themselves"},
	"stick":                   {0, migrate.Unneeded, "affinity holds for all servers"},
	"non-stick":               {0, migrate.Changed, "affinity holds for all servers"},
	"no-agent-check":          {0, "", ""},
	"shard":                   {1, migrate.Unneeded, "it is for peers"},
	"strict-maxconn":          {0, migrate.Unneeded, "limits hold for a listener"},
	"hash-key":                {1, migrate.Changed, "all nodes choose by the server's address"},
}

// agentParameters say more about agent-check, of which all is said there.
var agentParameters = map[string]bool{"agent-send": true, "agent-inter": true, "agent-addr": true, "agent-port": true}

// serverTLSFlags and serverTLSOptions are parameters of TLS to the server, of which all is
// said at "ssl".
var (
	serverTLSFlags = map[string]bool{
		"allow-0rtt": true, "force-sslv3": true, "force-tlsv10": true, "force-tlsv11": true, "force-tlsv12": true, "force-tlsv13": true,
		"no-ssl-reuse": true, "no-sslv3": true, "no-tls-tickets": true, "no-tlsv10": true, "no-tlsv11": true, "no-tlsv12": true, "no-tlsv13": true,
		"no-verifyhost": true, "ssl-reuse": true, "tls-tickets": true, "no-sni-auto": true, "sni-auto": true, "renegotiate": true, "no-renegotiate": true,
		"check-sni-auto": true, "no-check-sni-auto": true,
	}
	serverTLSOptions = map[string]bool{
		"alpn": true, "ca-file": true, "ciphers": true, "ciphersuites": true, "client-sigalgs": true, "crl-file": true, "crt": true, "curves": true,
		"npn": true, "sigalgs": true, "sni": true, "ssl-max-ver": true, "ssl-min-ver": true, "verify": true, "verifyhost": true, "ktls": true,
	}
)

// defaultServer takes a line "default-server", which holds for the servers that follow.
func (p *proxy) defaultServer(s statement) { p.parameters(s, &p.defaultSettings, s.words[1:]) }

// server takes a line "server NAME ADDRESS PARAMETERS".
func (p *proxy) server(s statement) {
	if len(s.words) < 3 {
		p.note(s, migrate.Lost, "%s has no address: write server NAME ADDRESS:PORT", quote(s.text))
		return
	}
	p.addServer(s, s.words[1], s.words[2], s.words[3:])
}

// serverTemplate takes "server-template PREFIX COUNT|FIRST-LAST ADDRESS PARAMETERS".
func (p *proxy) serverTemplate(s statement) {
	if len(s.words) < 4 {
		p.note(s, migrate.Lost, "%s: write server-template PREFIX COUNT ADDRESS:PORT", quote(s.text))
		return
	}
	first, last, isRange := strings.Cut(s.words[2], "-")
	from, err := strconv.Atoi(first)
	to := from
	if isRange && err == nil {
		to, err = strconv.Atoi(last)
	} else {
		from = 1
	}
	if err != nil || from < 0 || to < from || to-from >= 4096 {
		p.note(s, migrate.Lost, "%s: %s is no count of servers up to 4096", quote(s.text), quote(s.words[2]))
		return
	}
	if _, err := parseAddress(s.words[3]); err != nil {
		p.missing = append(p.missing, migrate.Clip(s.words[3]))
		p.note(s, migrate.Lost, "%s: %v, a server line for each of the addresses", quote(s.text), err)
		return
	}
	for n := from; n <= to; n++ {
		p.addServer(s, s.words[1]+strconv.Itoa(n), s.words[3], s.words[4:])
	}
}

func (p *proxy) addServer(s statement, name, text string, parameters []string) {
	v := server{statement: s, name: name, settings: p.defaultSettings}
	p.parameters(s, &v.settings, parameters)
	var err error
	v.address, err = parseAddress(text)
	switch {
	case err != nil:
		v.unserved = err.Error()
	case v.IsUnspecified():
		v.unserved = "the client's own destination is no server: write the address of one"
	case v.end != v.port:
		v.unserved = "a range is for the ports that clients connect to: a server has one port, or that of the client if none is written"
	case v.ssl:
		v.unserved = "the server expects TLS, which Blixt does not begin: have the server take connections without it, or clients speak TLS"
	}
	if v.unserved != "" {
		if !v.disabled {
			p.missing = append(p.missing, migrate.Clip(text))
		}
		p.note(s, migrate.Lost, "%s: %s", quote(s.text), v.unserved)
	} else if v.disabled {
		p.note(s, migrate.Changed, "%s is disabled: it gets no new connections: its endpoint has ready: false, write true to enable it", quote(s.text))
	}
	p.servers = append(p.servers, v)
}

// parameters takes parameters of a server, or of default-server.
func (p *proxy) parameters(s statement, to *settings, words []string) {
	for i := 0; i < len(words); i++ {
		name := words[i]
		if name == "source" || name == "usesrc" || name == "interface" {
			i += p.source(s, words[i:]) - 1
			continue
		}
		known, ok := serverParameters[name]
		switch {
		case ok:
		case serverTLSFlags[name]:
			continue
		case serverTLSOptions[name], agentParameters[name]:
			i++
			continue
		default:
			p.note(s, migrate.Lost, "%s of %s is no parameter of a server that is known: see what it does", quote(name), s.head())
			continue
		}
		value := ""
		if known.values > 0 {
			if i++; i == len(words) {
				p.note(s, migrate.Lost, "%s of %s has no value", quote(name), s.head())
				return
			}
			value = words[i]
		}
		if known.effect != "" {
			p.note(s, known.effect, "%s of %s: %s", quote(strings.TrimSpace(name+" "+value)), s.head(), known.say)
			continue
		}
		if err := to.set(name, value); err != nil {
			p.note(s, migrate.Lost, "%s of %s: %v", quote(name+" "+value), s.head(), err)
		}
	}
	if to.checkElsewhere != "" {
		p.note(s, migrate.Lost, "%s of %s: checks ask the address that gets the connections", quote("addr "+to.checkElsewhere), s.head())
		to.checkElsewhere = ""
	}
}

// set takes a parameter that is carried over.
func (t *settings) set(name, value string) (err error) {
	switch name {
	case "addr":
		t.checkElsewhere = value
	case "backup", "no-backup":
		t.backup = name == "backup"
	case "check", "no-check":
		t.check = name == "check"
	case "check-ssl", "no-check-ssl":
		t.checkTLS = name == "check-ssl"
	case "disabled", "enabled":
		t.disabled = name == "disabled"
	case "error-limit":
		err = setNumber(&t.errorLimit, value, 1, 1000)
	case "fall":
		err = setNumber(&t.fall, value, 1, 100)
	case "rise":
		err = setNumber(&t.rise, value, 1, 100)
	case "inter":
		if d, wrong := duration(value); wrong == nil {
			t.inter = d
		} else {
			err = wrong
		}
	case "observe":
		t.observe = true
	case "port":
		err = setNumber(&t.checkPort, value, 0, 65535)
	case "ssl", "no-ssl":
		t.ssl = name == "ssl"
	case "weight":
		err = setNumber(&t.weight, value, 0, 256)
	default:
		if strings.HasPrefix(name, "no-send-proxy") {
			t.sendsProxy = false
		} else if strings.HasPrefix(name, "send-proxy") {
			t.sendsProxy = true
		}
	}
	return err
}

// source takes "source ADDRESS [interface NAME] [usesrc WHOSE]", and returns how many words
// these are.
func (p *proxy) source(s statement, words []string) int {
	transparent := false // the server sees the client's address
	n := min(2, len(words))
	if words[0] != "source" {
		n = 0
	}
	for n+1 < len(words) && (words[n] == "usesrc" || words[n] == "interface") {
		switch {
		case words[n] == "interface":
			p.note(s, migrate.Lost, "%s: packets leave by the host's routes: make a route to the server by that interface", s.of("interface "+words[n+1]))
		case words[n+1] == "clientip", words[n+1] == "client":
			transparent = true
		default:
			p.note(s, migrate.Lost, "%s: Blixt takes addresses from no headers", s.of("usesrc "+words[n+1]))
		}
		n += 2
	}
	if n == 0 { // "usesrc" or "interface" without what belongs to it
		p.note(s, migrate.Lost, "%s does not belong here", s.of(words[0]))
		return 1
	}
	switch {
	case transparent:
		p.note(s, migrate.Changed, "%s: Blixt keeps the client's address where the server's machine runs Blixt as well, with --peer; docs/client-address.md has all ways. The rules of the firewall and the routes that led answers to HAProxy go", s.of(strings.Join(words[:n], " ")))
	case words[0] == "source":
		p.note(s, migrate.Changed, "%s: servers see the client's address, or that of the host by which its route leads to them; docs/client-address.md says when", s.of(strings.Join(words[:n], " ")))
	}
	return n
}

// setNumber sets a whole number within bounds. Any other leaves it as it is.
func setNumber(to *int, text string, least, most int) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return fmt.Errorf("%s is no number from %d to %d", quote(text), least, most)
	}
	*to = n
	return nil
}

// longest is the longest time that HAProxy takes: it counts milliseconds in 31 bits.
const longest = (1<<31 - 1) * time.Millisecond

// duration returns a time of section 2.5 of the manual: milliseconds, or with a unit.
func duration(text string) (time.Duration, error) {
	units := map[string]time.Duration{
		"": time.Millisecond, "us": time.Microsecond, "ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
	}
	digits := strings.TrimRight(text, "usmhd")
	n, err := strconv.ParseUint(digits, 10, 31)
	unit, ok := units[text[len(digits):]]
	if err != nil || !ok || n > uint64(longest/unit) {
		return 0, fmt.Errorf("%s is no time such as 30s, or 30000 for milliseconds", quote(text))
	}
	return time.Duration(n) * unit, nil
}

// backend returns what the server is to a frontend of Blixt.
func (v *server) backend(port uint16) (b migrate.Backend, ok bool) {
	b = migrate.Backend{Place: v.Place, Addr: v.Addr, Port: v.port, Weight: v.weight, Backup: v.backup, Turn: v.turn}
	if v.disabled {
		b.Weight = 0
	}
	if v.offset {
		to := int(port) + v.relative
		b.Port = uint16(to)
		return b, to >= 1 && to <= 65535
	}
	return b, true
}

// SPDX-License-Identifier: Apache-2.0

package haproxy

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// bind is an address of a line "bind", with the parameters of the line.
type bind struct {
	statement
	address
	both       bool   // of :: also IPv4
	unserved   string // why nobody serves it, or ""
	takesProxy bool   // clients begin with a header of the PROXY protocol
	maxconn    int
}

// parameter is one of a bind or server line. Without an effect the code decides what is said.
type parameter struct {
	values int // how many follow it
	effect migrate.Effect
	say    string
}

// bindParameters are those of section 5.1 of the manual, but for those of TLS, and how many
// values they have. What is said about them depends on none of their values.
var bindParameters = map[string]parameter{
	"accept-netscaler-cip": {1, "", ""},
	"accept-proxy":         {0, "", ""},
	"ssl":                  {0, "", ""},
	"maxconn":              {1, "", ""},
	"v4v6":                 {0, "", ""},
	"v6only":               {0, "", ""},
	"name":                 {1, "", ""},
	"interface":            {1, migrate.Lost, "Blixt takes connections from all interfaces: keep others out with a firewall, and remove the word, or leave this port to HAProxy"},
	"namespace":            {1, migrate.Lost, "Blixt serves in the network namespace that it runs in: start it there, by ip netns exec, and remove the word"},
	"transparent":          {0, migrate.Changed, "Blixt serves the address whether the host has it or not; connections that netfilter's TPROXY led here from other addresses are not served"},
	"tcp-ut":               {1, migrate.Unneeded, "clients and servers end their TCP connections themselves"},
	"tfo":                  {0, migrate.Unneeded, "clients agree on TCP Fast Open with the server"},
	"mss":                  {1, migrate.Changed, "clients and servers agree on segment sizes themselves, and Blixt passes ICMP errors on; where these are filtered, clamp the MSS with nftables"},
	"defer-accept":         {0, migrate.Unneeded, "the server accepts connections: set it there"},
	"backlog":              {1, migrate.Unneeded, "the server accepts connections: set it there"},
	"nice":                 {1, migrate.Unneeded, "no process handles the packets"},
	"process":              {1, migrate.Unneeded, "no process handles the packets"},
	"thread":               {1, migrate.Unneeded, "no process handles the packets"},
	"shards":               {1, migrate.Unneeded, "no process handles the packets"},
	"id":                   {1, migrate.Unneeded, "it is a number of HAProxy's statistics"},
	"proto":                {1, migrate.Unneeded, "no protocol above TCP is looked at"},
	"cc":                   {1, migrate.Unneeded, "clients and servers control congestion themselves"},
	"idle-ping":            {1, migrate.Unneeded, "no protocol above TCP is looked at"},
	"label":                {1, migrate.Unneeded, "it is a name of HAProxy's statistics"},
	"guid-prefix":          {1, migrate.Unneeded, "it is a name of HAProxy's statistics"},
	"expose-fd":            {1, migrate.Unneeded, "Blixt keeps connections over a restart"},
	"level":                {1, migrate.Unneeded, "it is for sockets of the administrator"},
	"severity-output":      {1, migrate.Unneeded, "it is for sockets of the administrator"},
	"user":                 {1, migrate.Unneeded, "it is for UNIX sockets"},
	"uid":                  {1, migrate.Unneeded, "it is for UNIX sockets"},
	"group":                {1, migrate.Unneeded, "it is for UNIX sockets"},
	"gid":                  {1, migrate.Unneeded, "it is for UNIX sockets"},
	"mode":                 {1, migrate.Unneeded, "it is for UNIX sockets"},
	"quic-cc-algo":         {1, migrate.Unneeded, "it is for QUIC"},
	"quic-force-retry":     {0, migrate.Unneeded, "it is for QUIC"},
	"quic-socket":          {1, migrate.Unneeded, "it is for QUIC"},
	"nbconn":               {1, migrate.Unneeded, "it is for HTTP that a server began"},
}

// tlsFlags are parameters of TLS without a value; all others have one.
var tlsFlags = map[string]bool{
	"allow-0rtt": true, "force-sslv3": true, "force-tlsv10": true, "force-tlsv11": true, "force-tlsv12": true, "force-tlsv13": true,
	"generate-certificates": true, "no-ca-names": true, "no-sslv3": true, "no-tls-tickets": true, "no-tlsv10": true, "no-tlsv11": true,
	"no-tlsv12": true, "no-tlsv13": true, "prefer-client-ciphers": true, "strict-sni": true, "no-alpn": true, "no-strict-sni": true, "tls-tickets": true,
}

// tlsOptions are those with a value.
var tlsOptions = map[string]bool{
	"alpn": true, "npn": true, "ca-file": true, "ca-ignore-err": true, "ca-sign-file": true, "ca-sign-pass": true, "ca-verify-file": true, "ciphers": true,
	"ciphersuites": true, "client-sigalgs": true, "crl-file": true, "crt": true, "crt-ignore-err": true, "crt-list": true, "curves": true,
	"ecdhe": true, "sigalgs": true, "ssl-max-ver": true, "ssl-min-ver": true, "tls-ticket-keys": true, "verify": true, "default-crt": true, "ktls": true, "ech": true,
}

// bind takes a line "bind", or what old versions had behind the name of a listen section.
func (p *proxy) bind(s statement, addresses string, parameters []string) {
	common := bind{statement: s}
	only6 := false
	for i := 0; i < len(parameters); i++ {
		name := parameters[i]
		known, ok := bindParameters[name]
		switch {
		case ok:
		case tlsFlags[name]:
			continue
		case tlsOptions[name]:
			i++
			continue
		default:
			p.note(s, migrate.Lost, "%s of bind %s is no parameter that is known: see what it does", quote(name), migrate.Clip(addresses))
			continue
		}
		if name == "defer-accept" || i+known.values >= len(parameters) {
			known.values = 0
		}
		value := ""
		if known.values > 0 {
			i++
			value = parameters[i]
		}
		switch name {
		case "ssl":
			common.unserved = "clients speak TLS, which Blixt does not end: have the servers speak TLS with the certificate, or leave this port to HAProxy"
		case "accept-netscaler-cip":
			common.unserved = "clients begin with NetScaler's header of the client's address, which servers do not understand: switch it off at the NetScaler"
		case "interface", "namespace": // others can't connect
			common.unserved = known.say
		case "accept-proxy":
			common.takesProxy = true
		case "maxconn":
			common.maxconn, _ = strconv.Atoi(value)
		case "v6only":
			only6 = true
		case "v4v6":
			only6 = false
		default:
			if known.effect != "" {
				p.note(s, known.effect, "%s of bind %s: %s", quote(strings.TrimSpace(name+" "+value)), migrate.Clip(addresses), known.say)
			}
		}
	}
	for one := range strings.SplitSeq(addresses, ",") {
		b := common
		var err error
		b.address, err = parseAddress(one)
		switch {
		case err != nil:
			p.note(s, migrate.Lost, "%s in %s: %v", quote(one), quote(s.text), err)
			continue
		case b.port == 0:
			p.note(s, migrate.Lost, "%s in %s has no port: HAProxy would not start: add :PORT", quote(one), quote(s.text))
			continue
		}
		b.both = b.Addr == netip.IPv6Unspecified() && !only6
		if b.IsLoopback() {
			b.unserved = "packets to a loopback address never leave the host: have its programs connect to the servers, or to an address of the host"
		}
		p.binds = append(p.binds, b)
	}
}

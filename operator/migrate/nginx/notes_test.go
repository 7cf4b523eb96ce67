// SPDX-License-Identifier: Apache-2.0

package nginx_test

import (
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/nginx"
)

// No directive goes without a note or an effect: of those that change what clients meet, each one
// by itself makes the plan differ from the one without.
func TestNothingIsDropped(t *testing.T) {
	text := func(inServer, inUpstream string) string {
		p := nginx.Read(one("stream { upstream p { server 10.0.0.1:80; server 10.0.0.2:80; " + inUpstream + " } server { listen 192.0.2.10:80; proxy_pass p; " + inServer + " } }"))
		objects, notes := p.Objects(migrate.Options{})
		out, err := migrate.YAML(objects, notes)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	plain := text("", "")
	for _, d := range strings.Split(`allow 10.0.0.0/8; deny all|deny 10.0.0.0/8|limit_conn z 1|proxy_timeout 30s|proxy_protocol on|proxy_bind 10.0.0.9|proxy_ssl on|ssl_preread on|
health_check|js_access a|return x|pass 127.0.0.1:1|proxy_download_rate 1k|proxy_next_upstream on|proxy_responses 1|access_log x|server_name x|anything at all|listen 81|listen 192.0.2.11:80 udp`, "|") {
		if text(strings.TrimSpace(d)+";", "") == plain {
			t.Errorf("%s of a server has no effect and no note", d)
		}
	}
	for _, d := range strings.Split(`least_conn|least_time connect|hash $remote_addr|hash $cookie|random two|zone z 1m|state f|server 10.0.0.3:80|server name:80|anything`, "|") {
		if text("", d+";") == plain {
			t.Errorf("%s of an upstream has no effect and no note", d)
		}
	}
	for _, d := range strings.Split(`weight=2|max_conns=9|max_fails=9|fail_timeout=9s|backup|down|slow_start=9s|resolve|service=x|anything`, "|") {
		if text("", "server 10.0.0.3:80 "+d+";") == text("", "server 10.0.0.3:80;") {
			t.Errorf("the parameter %s has no effect and no note", d)
		}
	}
}

// People paste the commands of notes: what is no name of a host is in none.
func TestCommandsHaveNamesAlone(t *testing.T) {
	notes := func(server string) string {
		var b strings.Builder
		for _, n := range nginx.Read(one("stream { upstream p { " + server + " } server { listen 80; proxy_pass p; } }")).AllNotes() {
			b.WriteString(n.String() + "\n")
		}
		return b.String()
	}
	for _, host := range []string{"`id>pwn`", "<IP_NODE_1>", "$(id)", "-i", "a|b", "a&b", "ä.example.com"} {
		for _, server := range []string{`server "` + host + `:80";`, `server "` + host + `" service=http resolve;`, `server a.example.com "service=` + host + `" resolve;`} {
			if said := notes(server); strings.Contains(said, "getent") && strings.Contains(said, host+" tells") || strings.Contains(said, "dig SRV") {
				t.Errorf("%s: %s", server, said)
			} else if !strings.Contains(said, "no host name") && !strings.Contains(said, "no name of a service") && !strings.Contains(said, "not known before") {
				t.Errorf("%s: no note says what is wrong: %s", server, said)
			}
		}
	}
	for server, command := range map[string]string{
		"server db_1.example.com:80;":                  "getent ahosts db_1.example.com",
		"server a.example.com service=http resolve;":   "dig SRV _http._tcp.a.example.com",
		"server a.example.com:80 resolve;":             "getent ahosts a.example.com",
		"server a.example.com service=a._udp resolve;": "dig SRV a._udp.a.example.com",
	} {
		if said := notes(server); !strings.Contains(said, command) {
			t.Errorf("%s: %s has no %s", server, said, command)
		}
	}
}

// What nginx -t refuses (here that of nginx 1.22) is refused as a whole: which of two directives
// would hold is not known.
func TestWhatNginxRefusesIsRefused(t *testing.T) {
	const server = " server { listen 7777; proxy_pass u; } "
	for text, says := range map[string]string{
		"upstream u { hash $remote_addr consistent; server 10.0.0.1:80; server 10.0.0.2:80 backup; }" + server: "hash, at nginx.conf:1, has no backup servers",
		"upstream u { random two; server 10.0.0.1:80; server 10.0.0.2:80 weight=2 backup; }" + server:          "random, at nginx.conf:1, has no backup servers",
		"server { listen 7777; proxy_pass 10.0.0.1:80; proxy_pass 10.0.0.2:80; }":                              "proxy_pass is there already",
		"server { listen 7777; proxy_pass 10.0.0.1:80; proxy_timeout 1s; proxy_timeout 2s; }":                  "proxy_timeout is there already",
		"proxy_protocol on; proxy_protocol off; server { listen 7777; proxy_pass 10.0.0.1:80; }":               "proxy_protocol is there already",
		"server { listen 7777; listen *:7777 ssl; proxy_pass 10.0.0.1:80; }":                                   "listen 7777 listens there already",
		"server { listen 192.0.2.1:7777-7780 udp; listen 192.0.2.1:7777-7780 udp; proxy_pass 10.0.0.1:80; }":   "listens there already",
	} {
		p := nginx.Read(one("stream { " + text + " }"))
		objects, all := p.Objects(migrate.Options{})
		var notes strings.Builder
		for _, n := range all {
			notes.WriteString(n.String() + "\n")
		}
		if !p.Broken || len(objects) > 0 || !strings.Contains(notes.String(), says) || !strings.Contains(notes.String(), "nginx would not take it") {
			t.Errorf("%s: broken is %t, and %d objects are written; want %q in\n%s", text, p.Broken, len(objects), says, &notes)
		}
	}
	for _, text := range []string{
		"upstream u { server 10.0.0.1:80; server 10.0.0.2:80 backup; hash $remote_addr; }" + server,
		"upstream u { least_conn; server 10.0.0.1:80; server 10.0.0.2:80 backup; }" + server,
		"proxy_timeout 1s; server { listen 7777; listen 7777 udp; listen [::]:7777; listen 192.0.2.1:7777; proxy_pass 10.0.0.1:80; proxy_timeout 2s; }",
	} {
		if p := nginx.Read(one("stream { " + text + " }")); p.Broken {
			t.Errorf("%s is refused: %v", text, p.AllNotes())
		}
	}
}

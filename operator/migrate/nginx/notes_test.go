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

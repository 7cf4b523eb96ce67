// SPDX-License-Identifier: Apache-2.0

package haproxy_test

import (
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/haproxy"
	"github.com/kubernetes-sigs/blixt/operator/migrate/migratetest"
)

// Servers that some clients have with HAProxy, and nobody with Blixt, are a difference.
func TestComparisonShowsServersThatAreLost(t *testing.T) {
	const file = `defaults
 mode tcp
 timeout client 1h
 timeout server 1h
frontend names
 bind 192.0.2.1:443
 use_backend a if { req_ssl_sni -i a.example.com }
 use_backend a if { req_ssl_sni -i www.a.example.com }
 use_backend b if { src 198.51.100.0/24 }
 default_backend c
backend a
 server a 10.0.0.1:443
backend b
 server b 10.0.0.2:443
backend c
 server c 10.0.0.3:443
listen lookup
 bind 192.0.2.1:80
 server a db.example.com:80
 server b 10.0.0.2:80
 server c "${ELSEWHERE}:80"
 server-template t 3 tasks.db:80
listen same
 bind 192.0.2.1:81
 server a 10.0.0.2:80
 server b db.example.com:80 disabled
`
	plan := haproxy.Read([]migrate.File{{Name: "haproxy.cfg", Text: []byte(file)}})
	text, _ := migratetest.Written(t, migratetest.Host, plan)
	rows, err := migrate.Compare(plan, migratetest.Host, text)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range rows {
		var missing []string
		for _, s := range r.Was.Servers {
			if s.Missing {
				missing = append(missing, s.Address)
			}
		}
		if r.Same == (len(missing) > 0) {
			t.Errorf("%s lacks %q, and counts as the same: %t", r.Frontend, missing, r.Same)
		}
		got[r.Frontend] = strings.Join(missing, ", ")
	}
	for frontend, want := range map[string]string{
		"192.0.2.1:443/tcp": "backend a, backend b",
		"192.0.2.1:80/tcp":  "db.example.com:80, ${ELSEWHERE}:80, tasks.db:80",
		"192.0.2.1:81/tcp":  "",
	} {
		if got[frontend] != want {
			t.Errorf("%s lacks %q, want %q", frontend, got[frontend], want)
		}
	}
}

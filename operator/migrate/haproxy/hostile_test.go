// SPDX-License-Identifier: Apache-2.0

package haproxy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/haproxy"
)

// Files that are large, or made to cost much, are read in bounded time.
func TestLargeFilesAreReadSoon(t *testing.T) {
	rows := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format+"\n", i>>8&255, i&255)
		}
		return b.String()
	}
	inherits := "defaults\n mode tcp\n" + strings.Repeat(" option tcpka\n", 20_000)
	for name, text := range map[string]string{
		"100,000 servers":        "listen a\n bind 192.0.2.1:80\n" + rows(100_000, " server a 10.0.%d.%d:80"),
		"a line of 10 MB":        "listen a\n bind 192.0.2.1:80 " + strings.Repeat("x ", 5<<20) + "\n server a 10.0.0.1:80\n",
		"a word of 10 MB":        "listen a\n bind " + strings.Repeat("9", 10<<20) + "\n server a 10.0.0.1:80\n",
		"all ports":              "listen a\n bind 192.0.2.1:1-65535\n server a 10.0.0.1\n",
		"ports to one":           "listen a\n bind 192.0.2.1:1-65535\n server a 10.0.0.1:80\n",
		"many networks":          "listen a\n bind 192.0.2.1:80\n" + rows(20_000, " acl x src 10.0.%d.%d") + " tcp-request connection reject if x\n server a 10.0.0.1:80\n",
		"many rules":             "listen a\n bind 192.0.2.1:80\n" + rows(20_000, " tcp-request connection reject if { src 10.0.%d.%d }") + " server a 10.0.0.1:80\n",
		"many unknown rules":     "listen a\n bind 192.0.2.1:80\n" + rows(20_000, " tcp-request connection reject if { hdr(%d) %d }") + " server a 10.0.0.1:80\n",
		"many binds and rules":   "frontend a\n bind 192.0.2.1:80" + strings.Repeat(",192.0.2.1:80", 5_000) + "\n acl x dst 192.0.2.1\n" + rows(5_000, " tcp-request connection reject if x { hdr(%d) %d }") + " default_backend b\nbackend b\n server a 10.0.0.1:80\n",
		"many backends":          "frontend a\n bind 192.0.2.1:1-60\n" + rows(3_000, " use_backend b if { hdr(%d) %d }") + "backend b\n" + rows(3_000, " tcp-request content reject if { hdr(%d) %d }") + " server a 10.0.0.1:80\n",
		"much that is inherited": inherits + strings.Repeat("listen a\n bind 192.0.2.1:80\n", 20_000),
		"a chain of defaults":    "defaults d\n mode tcp\n" + strings.Repeat("defaults d from d\n option tcpka\n", 20_000) + "listen a from d\n bind 192.0.2.1:80\n server a 10.0.0.1:80\n",
		"many that share":        rows(3_000, "frontend f\n bind 10.%d.%d.1:80\n default_backend b\n") + "backend b\n" + rows(3_000, " server a 10.0.%d.%d:80 slowstart 3s"),
		"nested blocks":          strings.Repeat(".if 1\n", 200_000),
		"many addresses":         "listen a\n bind 192.0.2.1:80" + strings.Repeat(",192.0.2.1:80", 100_000) + "\n server a 10.0.0.1:80\n",
		"nothing but quotes":     strings.Repeat(`"`, 5<<20),
		"no text":                strings.Repeat("\x00\xff\r", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			plan := haproxy.Read([]migrate.File{{Name: "haproxy.cfg", Text: []byte(text)}})
			if took := time.Since(start); took > 2*time.Minute { // seconds, on a quiet machine
				t.Errorf("took %s", took)
			}
			if len(plan.AllNotes())+len(plan.Frontends) == 0 {
				t.Error("nothing comes out")
			}
		})
	}
}

// What rules keep out that Blixt does not know stays out: nothing is served.
func TestRulesThatAreNotKnownLetNobodyIn(t *testing.T) {
	for name, rules := range map[string]string{
		"reject unless a list":       " tcp-request connection reject unless { src -f x.lst }",
		"reject if a list":           " tcp-request connection reject if { src -f x.lst }",
		"accept a list":              " tcp-request connection accept if { src -f x.lst }\n tcp-request connection reject",
		"a name":                     " tcp-request connection reject unless { src office.example.com }",
		"a name of TLS":              " tcp-request content reject unless { req_ssl_sni -i www.example.com }",
		"a converter":                " tcp-request connection reject if { src,in_table(bad) }",
		"a variable":                 " tcp-request session reject if { var(sess.bad) -m bool }",
		"an ACL that is not defined": " tcp-request connection reject unless office",
		"a script":                   " tcp-request connection lua.check",
		"an action of the future":    " tcp-request connection deny-all",
		"a rate":                     " stick-table type ip size 1m store conn_rate(1m)\n tcp-request connection reject if { src_conn_rate gt 20 }",
		"another stage":              " tcp-request connection accept\n tcp-request content reject if { req.len 0 }",
		"another time":               " tcp-request connection reject if { date,lt(1) }\n tcp-request connection accept",
		"a rule without an action":   " tcp-request connection",
		"a stage that is none":       " tcp-request connections reject",
		"an ACL in a block":          " acl bad src 192.0.2.0/24\n.if defined(X)\n acl bad src 198.51.100.0/24\n.endif\n tcp-request connection reject if bad",
	} {
		plan := haproxy.Read([]migrate.File{{Name: "haproxy.cfg", Text: []byte("listen a\n bind 192.0.2.1:80\n" + rules + "\n server a 10.0.0.1:80\n")}})
		if !plan.Frontends[0].Unserved || !migrate.Loses(plan.AllNotes()) {
			t.Errorf("%s: sources %+v, notes %v", name, plan.Frontends[0].Policy.Sources, plan.AllNotes())
		}
	}
}

// Rules that let only fewer in, or decide nothing, leave a frontend served.
func TestRulesThatLetInFewerAreServed(t *testing.T) {
	for name, want := range map[string][2]string{
		"accept without a reject":   {" tcp-request content accept if { req_ssl_hello_type 1 }", ""},
		"a rule behind all":         {" tcp-request connection accept\n tcp-request connection reject if { fe_conn gt 3 }", ""},
		"some clients":              {" tcp-request connection reject if { src 10.0.0.0/8 } { fe_conn gt 3 }", "deny 10.0.0.0/8"},
		"an exception":              {" tcp-request connection accept if { src 10.1.0.0/16 } { fe_conn lt 3 }\n tcp-request connection reject if { src 10.0.0.0/8 }", "deny 10.0.0.0/8"},
		"all but friends":           {" tcp-request connection accept if { src 10.0.0.0/8 }\n tcp-request connection reject if { fe_conn gt 3 }", "allow 10.0.0.0/8"},
		"nobody, as HAProxy does":   {" tcp-request connection reject", "deny 0.0.0.0/0 ::/0"},
		"nobody, whatever is asked": {" tcp-request connection reject if { fe_conn gt 3 }\n tcp-request connection reject", "deny 0.0.0.0/0 ::/0"},
	} {
		plan := haproxy.Read([]migrate.File{{Name: "haproxy.cfg", Text: []byte("listen a\n bind 192.0.2.1:80\n" + want[0] + "\n server a 10.0.0.1:80\n")}})
		got := ""
		if s := plan.Frontends[0].Policy.Sources; s != nil && len(s.Allow) > 0 {
			got = "allow " + strings.Join(s.Allow, " ")
		} else if s != nil {
			got = "deny " + strings.Join(s.Deny, " ")
		}
		if plan.Frontends[0].Unserved || got != want[1] {
			t.Errorf("%s: unserved %t, %q, want %q, notes %v", name, plan.Frontends[0].Unserved, got, want[1], plan.AllNotes())
		}
	}
}

// What is secret is in no note.
func TestSecretsStayWhereTheyAre(t *testing.T) {
	plan := haproxy.Read([]migrate.File{{Name: "haproxy.cfg", Text: []byte(`global
 setenv PASSWORD geheim1
 cluster-secret geheim2
userlist u
 user a insecure-password geheim3
listen a
 bind 192.0.2.1:80
 stats auth admin:geheim4
 option redis-check password geheim5
 nonsense password geheim6
 option tcp-check
 tcp-check send AUTH\ geheim7\r\n
 tcp-check send-binary geheim8
 option httpchk GET / HTTP/1.1\r\nAuthorization:\ Basic\ geheim9
 http-check send hdr Authorization geheim10
 http-check connect Authorization geheim11
 server a 10.0.0.1:80
`)}})
	for _, n := range plan.AllNotes() {
		if strings.Contains(n.Text, "geheim") {
			t.Error(n)
		}
	}
}

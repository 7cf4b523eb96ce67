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
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %s", took)
			}
			if len(plan.AllNotes())+len(plan.Frontends) == 0 {
				t.Error("nothing comes out")
			}
		})
	}
}

// A list that is not given, or has a name in it, lets nobody in. Networks of several lines
// with the same name are one list.
func TestListsThatAreMissingLetNobodyIn(t *testing.T) {
	for name, rules := range map[string]string{
		"reject unless":     " tcp-request connection reject unless { src -f x.lst }",
		"reject if":         " tcp-request connection reject if { src -f x.lst }",
		"accept and reject": " tcp-request connection accept if { src -f x.lst }\n tcp-request connection reject",
		"a name":            " tcp-request connection reject unless { src office.example.com }",
	} {
		plan := haproxy.Read([]migrate.File{{Name: "haproxy.cfg", Text: []byte("listen a\n bind 192.0.2.1:80\n" + rules + "\n server a 10.0.0.1:80\n")}})
		s := plan.Frontends[0].Policy.Sources
		if s == nil || len(s.Allow) > 0 || strings.Join(s.Deny, " ") != "0.0.0.0/0 ::/0" || !migrate.Loses(plan.AllNotes()) {
			t.Errorf("%s: sources %+v, notes %v", name, s, plan.AllNotes())
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
 server a 10.0.0.1:80
`)}})
	for _, n := range plan.AllNotes() {
		if strings.Contains(n.Text, "geheim") {
			t.Error(n)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package nginx_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/migratetest"
	"github.com/kubernetes-sigs/blixt/operator/migrate/nginx"
)

func FuzzRead(f *testing.F) {
	migratetest.Seeds(f)
	f.Fuzz(func(t *testing.T, text []byte) { migratetest.Fuzzed(t, text, nginx.Read) })
}

// Files that are large, deep or without end are read in a moment, and what they say is told.
func TestHostile(t *testing.T) {
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i>>16&255, i>>8&255, i&255)
		}
		return b.String()
	}
	server := "server { listen 192.0.2.10:80; proxy_pass p; }\n"
	bomb := []migrate.File{{Name: "0", Text: []byte("stream { include 1; }")}}
	for i := 1; i < 40; i++ { // each file twice in the one before
		bomb = append(bomb, migrate.File{Name: fmt.Sprint(i), Text: fmt.Appendf(nil, "include %d; include %d;", i+1, i+1)})
	}
	bomb = append(bomb, migrate.File{Name: "40", Text: []byte(server)})
	for name, c := range map[string]struct {
		files []migrate.File
		says  string // in a note; "": in no note
	}{
		"a line of 10 MB":          {one("stream { # " + strings.Repeat("x", 10<<20) + "\n upstream p { server 10.0.0.1:80; }" + server + "}"), ""},
		"a word of 10 MB":          {one("stream { " + strings.Repeat("x", 10<<20) + " y; }"), "Blixt does not know this directive"},
		"100,000 servers":          {one("stream { upstream p { " + many(100_000, "server 10.%d.%d.%d:80;\n") + "} " + server + "}"), ""},
		"2,000 listeners":          {one("stream { upstream p { server 10.0.0.1:80; } " + many(2_000, "server { listen 172.%d.%d.%d:80; proxy_pass p; }\n") + "}"), ""},
		"20,000 networks":          {one("stream { upstream p { server 10.0.0.1:80; } server { listen 192.0.2.10:80; proxy_pass p; " + many(20_000, "deny 10.%d.%d.%d;\n") + "} }"), "is not served, as nobody would keep out whom it keeps out"},
		"a range of all ports":     {one("stream { server { listen 192.0.2.10:1-65535; proxy_pass 10.0.0.1:80; } }"), "would be 65535"},
		"weights without end":      {one("stream { upstream p { " + many(1_000, "server 10.%d.%d.%d:80 weight=2147483647;\n") + "server 10.9.9.9:80 weight=99999999999; } " + server + "}"), "no value that nginx would take"},
		"braces without end":       {one(strings.Repeat("a {", 1<<20)), "more than 64 deep"},
		"closing braces":           {one(strings.Repeat("}", 1<<20)), "there is a } without a {"},
		"a file that is in itself": {[]migrate.File{{Name: "a", Text: []byte("stream { include b; }")}, {Name: "b", Text: []byte("include b;")}}, "the file includes itself"},
		"files that grow":          {bomb, "that is too many"},
		"patterns without end":     {one("stream { include " + strings.Repeat("*", 1000) + "a; include [; }"), "no file is called so"},
		"zeros":                    {one(strings.Repeat("\x00", 1<<20)), "has no ; at its end"},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			p := nginx.Read(c.files)
			text, notes := migratetest.Written(t, migrate.Options{}, p)
			if took := time.Since(start); took > 2*time.Minute { // seconds, on a quiet machine
				t.Errorf("it took %s", took)
			}
			if c.says == "" && notes != "" || !strings.Contains(notes, c.says) {
				t.Errorf("want %q in the notes: %.500s", c.says, notes)
			}
			if c.says == "" && !strings.Contains(text, "kind: TCPRoute") {
				t.Errorf("nothing is served: %.500s", text)
			}
		})
	}
}

func one(text string) []migrate.File { return []migrate.File{{Name: "nginx.conf", Text: []byte(text)}} }

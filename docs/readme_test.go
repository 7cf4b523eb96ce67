// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// What README begins with is served as it stands there, and its command prints
// what README says, but for how many connections each backend got.
func TestReadmeServes(t *testing.T) {
	text := read(t, "README.md")
	command := regexp.MustCompile(`(?m)^ {4}blixt run ((?:.*\\\n)*.*)$`).FindStringSubmatch(text)
	session := regexp.MustCompile(`(?m)^ {4}\$ (.*)\n((?: {4}.*\n)+)`).FindStringSubmatch(text)
	if command == nil || session == nil {
		t.Fatal("README.md has no blixt run, or no command with its output")
	}

	s, err := lab.NewStandard("blixt-docs", 2, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, n := range s.Backends {
		serveName(t, n)
	}
	binary, err := lab.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Blixt(s.Balancer, binary, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.Dir, b.Args = "", append(b.Args, strings.Fields(strings.ReplaceAll(command[1], "\\", ""))...)
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	printed, err := s.Client.Run(30*time.Second, "bash", "-e", "-o", "pipefail", "-c", session[1])
	if err != nil {
		t.Fatal(err)
	}
	count := regexp.MustCompile(`(?m)^ *\d+`)
	got, want := count.ReplaceAllString(printed, "N"), count.ReplaceAllString(session[2], "N")
	if got != want {
		t.Errorf("it prints\n%s\nand README.md says\n%s", printed, session[2])
	}
}

// serveName answers requests to port 8080 of a node with the node's name.
func serveName(t *testing.T, n *lab.Node) {
	t.Helper()
	l, err := n.Listen("tcp", net.JoinHostPort(n.IPv4, "8080"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(n.Name + "\n")) // the client may have gone
	})}
	t.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.Serve(l) }()
}

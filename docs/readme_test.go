// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/document"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// What README begins with is served as it stands there, and its command prints
// what README says, but for how many connections each backend got.
func TestReadmeServes(t *testing.T) {
	blocks, err := document.Read(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var command, session, output string
	for _, b := range blocks {
		switch m, _ := b.Mark(); {
		case m.Tested != "TestReadmeServes":
		case b.Language == document.Console:
			session, output, _ = strings.Cut(strings.TrimPrefix(b.Text, "$ "), "\n")
		default:
			command = strings.TrimPrefix(b.Text, "blixt run ")
		}
	}
	if command == "" || output == "" {
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
	b.Dir, b.Args = "", append(b.Args, strings.Fields(strings.ReplaceAll(command, "\\", ""))...)
	if err := b.Start(); err != nil {
		t.Fatal(err)
	}
	printed, err := s.Client.Run(30*time.Second, "bash", "-e", "-o", "pipefail", "-c", session)
	if err != nil {
		t.Fatal(err)
	}
	count := regexp.MustCompile(`(?m)^ *\d+`)
	got, want := count.ReplaceAllString(printed, "N"), count.ReplaceAllString(output, "N")
	if got != want {
		t.Errorf("it prints\n%s\nand README.md says\n%s", printed, output)
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

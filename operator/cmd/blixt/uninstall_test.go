// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A script that runs it against the wrong cluster removes nothing.
func TestUninstallWithoutTerminalNeedsYes(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/version" {
			asked = append(asked, r.Method+" "+r.URL.Path)
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"gitVersion":"v1.37.2"}`)
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}], clusters: [{name: c, cluster: {server: %q}}]}`, server.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	terminal := os.Stdin
	os.Stdin = in
	t.Cleanup(func() { os.Stdin = terminal })
	for _, args := range [][]string{{}, {"--force-nodes-down"}, {"--keep-crds=false"}} {
		_, err := blixt(t, append([]string{"uninstall", "--kubeconfig=" + file}, args...)...)
		if err == nil || !strings.Contains(err.Error(), "nothing was done: confirm the removal of Blixt from this cluster with --yes") {
			t.Errorf("%v: got %v, want that --yes is needed", args, err)
		}
	}
	if len(asked) > 0 {
		t.Errorf("without --yes it asked for %v", asked)
	}
	if _, err := blixt(t, "uninstall", "--kubeconfig="+file, "--yes"); err == nil || len(asked) == 0 {
		t.Errorf("with --yes: got %v, and requests %v, want that it tries", err, asked)
	}
}

func TestConfirm(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "Yes\n": true, "yes": true, "\n": false, "": false, "n\n": false, "yo\n": false} {
		var out bytes.Buffer
		if err := confirm(strings.NewReader(answer), &out); (err == nil) != want || !strings.Contains(out.String(), "[y/N]") {
			t.Errorf("answer %q: got %v after %q, want consent: %v", answer, err, out.String(), want)
		}
	}
}

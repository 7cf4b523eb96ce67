// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
)

// A host's archive has its settings and what a load balancer has said, and neither
// secrets nor clients. Whose file is there already keeps it.
func TestArchiveOfAHost(t *testing.T) {
	const planted, client = "hunter2-planted", "203.0.113.77"
	dir := t.TempDir()
	files := filepath.Join(dir, "files")
	must(t, os.Mkdir(files, 0o755))
	must(t, os.WriteFile(filepath.Join(files, "a.yaml"), []byte("kind: Secret\ndata: {a: "+planted+"}\n---\nkind: Gateway\nmetadata: {name: web, annotations: {x: "+planted+"}}\n"), 0o644))
	says, err := json.Marshal(standalone.ProcessStatus{PID: 1 << 30, Files: []string{files}, Problems: []standalone.Problem{{Message: "no answer to " + client + ", password=" + planted}}})
	must(t, err)
	must(t, os.WriteFile(standalone.StatusFile(dir, "lb"), says, 0o644))
	file := filepath.Join(dir, "x.tar.gz")
	args := []string{"sysdump", "host", "--run-dir", dir, "--bpffs", filepath.Join(dir, "bpf"), "--output-file", file}
	// Some of it may be out of reach of whoever runs the tests: the archive has the rest.
	if _, err := blixt(t, args...); err != nil && !strings.Contains(err.Error(), "index.json of the archive says which") {
		t.Fatal(err)
	}
	got := readArchive(t, file)
	for name, text := range got {
		if strings.Contains(text, planted) || strings.Contains(text, client) {
			t.Errorf("%s has what was planted:\n%s", name, text)
		}
	}
	for name, words := range map[string]string{
		"load-balancers/lb/lb.process.json": "no answer to client-", "load-balancers/lb/files.yaml": "name: web", "host/sysctl.txt": "net/ipv4/ip_forward = ",
		"host/proc-net-netstat.txt": "TcpExt", "doctor.json": "rp-filter", "status.txt": "lb", "index.json": "blixt doctor host",
	} {
		if !strings.Contains(got[name], words) {
			t.Errorf("%s has no %q:\n%s", name, words, got[name])
		}
	}
	if _, err := blixt(t, args...); !errors.Is(err, os.ErrExist) {
		t.Errorf("made again: %v", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the archive has mode %v, %v", info.Mode(), err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// readArchive returns the files of an archive, by name without the directory.
func readArchive(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	zip, err := gzip.NewReader(f)
	must(t, err)
	files := map[string]string{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		must(t, err)
		text, err := io.ReadAll(r)
		must(t, err)
		_, name, _ := strings.Cut(h.Name, "/")
		files[name] = string(text)
	}
}

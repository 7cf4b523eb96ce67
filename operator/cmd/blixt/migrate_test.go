// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode/utf16"
)

// migrateFile writes a file and returns its path.
func migrateFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const nginxWeb = "stream {\n upstream web { server 10.0.0.1:80; server 10.0.0.2:80 weight=3; }\n server { listen 192.0.2.10:80; proxy_pass web; }\n}\n"

// firewallNote is said of every host, and is no loss.
const firewallNote = "changed: rules of the host's INPUT hook, as of ufw or firewalld, do not hold for what Blixt serves: before clients move, write who may connect into sources.allow of a BlixtPolicy. See docs/firewall.md\n"

// What is written passes blixt check, and is not written over.
func TestMigrateIsChecked(t *testing.T) {
	conf := migrateFile(t, "nginx.conf", nginxWeb)
	out := filepath.Join(t.TempDir(), "web.yaml")
	if said, code := runBlixt(t, "migrate", "nginx", conf, "-o", out); code != 0 || said != firewallNote {
		t.Fatalf("exit code %d: %s", code, said)
	}
	said, code := runBlixt(t, "check", "-f", out, "--host-address", "192.0.2.1/24")
	if code != 0 || !strings.Contains(said, "192.0.2.10:80/tcp  TCPRoute/default/web  10.0.0.1:80") {
		t.Errorf("exit code %d: %s", code, said)
	}
	if said, code := runBlixt(t, "migrate", "nginx", conf, "-o", out); code != 2 || !strings.Contains(said, "it exists already") {
		t.Errorf("a second time: exit code %d: %s", code, said)
	}
}

// The files that are read are all that the old load balancer has. They stay, by whatever path
// they are named, also those that are included and what comes at standard input.
func TestMigrateKeepsWhatItReads(t *testing.T) {
	conf := migrateFile(t, "nginx.conf", "stream { include upstream.conf; server { listen 192.0.2.10:80; proxy_pass web; } }\n")
	dir := filepath.Dir(conf)
	part, link, hard := filepath.Join(dir, "upstream.conf"), filepath.Join(dir, "link"), filepath.Join(dir, "hard")
	if err := errors.Join(os.WriteFile(part, []byte("upstream web { server 10.0.0.1:80; }\n"), 0o644), os.Symlink(conf, link), os.Link(conf, hard)); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{conf, dir + "/../" + filepath.Base(dir) + "/nginx.conf", part, link, hard} {
		for _, force := range []string{"--force", "--force=false"} {
			if said, code := runBlixt(t, "migrate", "nginx", conf, "-o", to, force); code != 2 || !strings.Contains(said, "that is read, and stays as it is") {
				t.Errorf("-o %s %s: exit code %d: %s", to, force, code, said)
			}
		}
	}
	in, err := os.Open(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	c := command()
	c.SetArgs([]string{"migrate", "nginx", "-", "--prefix", dir, "-o", hard, "--force"})
	c.SetIn(in)
	c.SetErr(io.Discard)
	if err := c.Execute(); err == nil || !strings.Contains(err.Error(), "is read at standard input, and stays as it is") {
		t.Errorf("standard input: %v", err)
	}
	if after, err := os.ReadFile(conf); err != nil || !bytes.Equal(after, before) {
		t.Errorf("%v, the file has become\n%s", err, after)
	}
}

// A script must not take an old file, or none, for one that was written with losses: 1.
func TestMigrateThatCannotWrite(t *testing.T) {
	conf := migrateFile(t, "nginx.conf", nginxWeb)
	for name, args := range map[string][]string{
		"no directory":   {"-o", filepath.Join(t.TempDir(), "none", "web.yaml")},
		"a directory":    {"-o", t.TempDir(), "--force"},
		"a full disk":    {"-o", "/dev/full"},
		"a full disk, 2": {},
		"the table":      {"--diff"},
		"JSON":           {"--output", "json"},
	} {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		c := command()
		c.SetArgs(append([]string{"migrate", "nginx", conf}, args...))
		c.SetOut(full)
		c.SetErr(&said)
		if code := exit(c, c.Execute()); code != 2 || !strings.Contains(said.String(), "blixt: write ") {
			t.Errorf("%s: exit code %d: %s", name, code, said.String())
		}
		_ = full.Close()
	}
}

// Scripts learn by the exit code whether something is lost, and people by a line with its place.
func TestMigrateTellsWhatIsLost(t *testing.T) {
	conf := migrateFile(t, "nginx.conf", strings.Replace(nginxWeb, "listen 192.0.2.10:80;", "listen 192.0.2.10:80; return x;", 1))
	said, code := runBlixt(t, "migrate", "nginx", conf)
	if want := conf + ":3: lost: return x: Blixt answers nobody itself"; code != 1 || !strings.Contains(said, want) {
		t.Errorf("exit code %d, want %q in: %s", code, want, said)
	}
}

func TestMigrateDiff(t *testing.T) {
	conf := migrateFile(t, "nginx.conf", strings.Replace(nginxWeb, "}\n}", "}\n server { listen 192.0.2.10:81; proxy_pass db.example.net:5432; }\n}", 1))
	said, code := runBlixt(t, "migrate", "nginx", conf, "--diff")
	for _, want := range []string{
		"  192.0.2.10:80/tcp  round robin       by hash\n",
		"                     10.0.0.2:80  75%  10.0.0.2:80  75%\n",
		"! 192.0.2.10:81/tcp",
		"not served\n",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("exit code %d, want %q in:\n%s", code, want, said)
		}
	}
	var r struct {
		Objects []map[string]any
		Notes   []struct{ File, Effect, Text string }
		Diff    []struct {
			Frontend string
			Same     bool
		}
	}
	said, _ = runBlixt(t, "migrate", "nginx", conf, "--diff", "--output", "json")
	if err := json.Unmarshal([]byte(said), &r); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if len(r.Objects) == 0 || len(r.Notes) != 3 || r.Notes[0].File != "" || r.Notes[1].Effect != "lost" || len(r.Diff) != 2 || !r.Diff[0].Same || r.Diff[1].Same {
		t.Errorf("JSON: %+v", r)
	}
}

// Whoever gives the wrong file is told the right command, and never gets an empty result.
func TestMigrateOfTheWrongFile(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"haproxy.cfg":     {"defaults\n  mode tcp\nlisten web\n  bind :80\n  server a 10.0.0.1:80\n", "try blixt migrate haproxy"},
		"keepalived.conf": {"virtual_server 192.0.2.10 80 {\n real_server 10.0.0.1 80 {\n }\n}\n", "try blixt migrate keepalived"},
		"ipvs.rules":      {"-A -t 192.0.2.10:80 -s wrr\n-a -t 192.0.2.10:80 -r 10.0.0.1:80 -m -w 1\n", "try blixt migrate ipvs"},
		"ipvs.sh":         {"#!/bin/sh\nsudo ipvsadm --add-service --tcp-service 192.0.2.10:80\n", "try blixt migrate ipvs"},
		"tcp.yaml":        {"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: tcp-services\ndata:\n  \"9000\": default/web:80\n", "try blixt migrate ingress-nginx"},
		"service.yaml":    {"apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  type: LoadBalancer\n", "try blixt migrate services"},
		"empty.conf":      {" \n", "the file is empty"},
		"broken.conf":     {"stream {\n  server { listen 80; ", "broken.conf:2: lost: the { of server has no }: nginx would not take it"},
	} {
		said, code := runBlixt(t, "migrate", "nginx", migrateFile(t, name, c.text))
		if code != 2 || !strings.Contains(said, c.says) {
			t.Errorf("%s: exit code %d, want %q in: %s", name, code, c.says, said)
		}
	}
	if said, code := runBlixt(t, "migrate", "nginx", t.TempDir()); code != 2 || !strings.Contains(said, "is a directory: name its files") {
		t.Errorf("a directory: exit code %d: %s", code, said)
	}
}

// A dump that was cut off writes nothing: what is missing may say who is kept out. Nor does a text
// that is none.
func TestMigrateOfYAMLThatIsBroken(t *testing.T) {
	for text, source := range map[string]string{
		"apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: LoadBalancer, ports: [{port: 80}], loadBalancerSourceRanges: [": "services",
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: tcp-services}\ndata: {\"9000\": default/web:80":                                  "ingress-nginx",
		"No resources found\n": "services",
		"[1, 2]":               "ingress-nginx",
	} {
		out := filepath.Join(t.TempDir(), "out.yaml")
		said, code := runBlixt(t, "migrate", source, migrateFile(t, "a.yaml", text), "-o", out)
		if code != 2 || !strings.Contains(said, "lost: not read: ") || strings.Count(said, "\n") != 1 {
			t.Errorf("%s: exit code %d: %s", source, code, said)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s: a file was written", source)
		}
	}
}

func TestMigrateOfASourceThatIsNone(t *testing.T) {
	out, err := blixt(t, "migrate", "traefik", "traefik.yml")
	if err == nil || !strings.Contains(err.Error(), `"traefik" is read by no command: want one of `) || out != "" {
		t.Errorf("got %v, and into the file that it is written to: %q", err, out)
	}
}

// Editors of Windows begin a file with a byte order mark, which is no part of its first word.
func TestMigrateReadsByteOrderMarks(t *testing.T) {
	for source, text := range map[string]string{
		"haproxy": "defaults\n  mode tcp\nlisten web\n  bind 192.0.2.10:80\n  server a 10.0.0.1:80\n",
		"ipvs":    "-A -t 192.0.2.10:80 -s wrr\n-a -t 192.0.2.10:80 -r 10.0.0.1:80 -m -w 1\n",
	} {
		said, code := runBlixt(t, "migrate", source, migrateFile(t, "a.conf", "\ufeff"+text))
		if code != 0 || !strings.Contains(said, "value: 192.0.2.10") {
			t.Errorf("%s: exit code %d: %s", source, code, said)
		}
	}
}

// A copy of another host's files is read where it lies.
func TestMigrateReadsACopy(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"nginx.conf":          "stream { include /etc/nginx/stream.d/*.conf; }",
		"stream.d/a.conf":     "server { listen 192.0.2.10:80; proxy_pass 10.0.0.1:80; include snippet.conf; }",
		"snippet.conf":        "proxy_timeout 30s;",
		"stream.d/ignored.in": "server { listen 192.0.2.10:81; proxy_pass 10.0.0.1:80; }",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	said, code := runBlixt(t, "migrate", "nginx", filepath.Join(dir, "nginx.conf"))
	if code != 0 || !strings.Contains(said, "port: 80\n") || strings.Contains(said, "port: 81\n") || !strings.Contains(said, "tcp: 30s\n") {
		t.Errorf("exit code %d: %s", code, said)
	}
}

// A FIFO that is included would have the reader wait for ever, and opening a device may do
// anything. nginx takes no directory; keepalived passes over whatever is no regular file.
func TestMigrateOpensNoOddFiles(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "b.fifo")
	part := filepath.Join(dir, "a.keep")
	if err := errors.Join(syscall.Mkfifo(fifo, 0o644), os.Mkdir(filepath.Join(dir, "c.dir"), 0o755), os.Symlink("b.fifo", filepath.Join(dir, "z.keep")),
		os.WriteFile(part, []byte("virtual_server 192.0.2.10 80 {\n lvs_sched rr\n lvs_method NAT\n protocol TCP\n real_server 10.0.0.1 80 {\n }\n}\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for pattern, odd := range map[string]string{fifo: fifo, "*.fifo": fifo, "c.dir": filepath.Join(dir, "c.dir"), "/dev/zero": "/dev/zero"} {
		conf := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(conf, []byte("stream { include "+pattern+"; "+nginxWeb[len("stream {"):]), 0o644); err != nil {
			t.Fatal(err)
		}
		if said, code := runBlixt(t, "migrate", "nginx", conf); code != 2 || !strings.Contains(said, "include "+pattern+": "+odd+" is no regular file, and is not opened") {
			t.Errorf("nginx, include %s: exit code %d: %s", pattern, code, said)
		}
	}
	conf := filepath.Join(dir, "keepalived.conf")
	if err := os.WriteFile(conf, []byte("global_defs {\n}\ninclude *.keep\ninclude "+fifo+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	said, code := runBlixt(t, "migrate", "keepalived", conf)
	if code != 1 || !strings.Contains(said, "value: 192.0.2.10") || !strings.Contains(said, conf+":4: lost: ") {
		t.Errorf("keepalived: exit code %d: %s", code, said)
	}
}

// What is written has these names, and an API server takes not every text for one.
func TestMigrateChecksNames(t *testing.T) {
	conf := migrateFile(t, "nginx.conf", nginxWeb)
	for _, args := range [][]string{
		{"-n", "Bad_NS"}, {"--namespace", "a.b"}, {"--namespace", "a\nkind: Secret"}, {"--namespace", strings.Repeat("a", 64)}, {"--gateway-class", "a: b"}, {"--gateway-class", "Blixt"},
	} {
		if said, code := runBlixt(t, append([]string{"migrate", "nginx", conf}, args...)...); code != 2 || !strings.Contains(said, "invalid argument ") || strings.Contains(said, "apiVersion") {
			t.Errorf("%q: exit code %d: %s", args, code, said)
		}
	}
	said, code := runBlixt(t, "migrate", "nginx", conf, "-n", "edge", "--gateway-class", "blixt.example.com")
	if code != 0 || !strings.Contains(said, "namespace: edge\n") || !strings.Contains(said, "gatewayClassName: blixt.example.com\n") {
		t.Errorf("names that are valid: exit code %d: %s", code, said)
	}
}

// What Notepad calls Unicode, and lines of an old Macintosh, are said once, also of a file that is
// included, and nothing is written. YAML may be UTF-16.
func TestMigrateOfOtherEncodings(t *testing.T) {
	wide := func(order binary.AppendByteOrder, text string) string {
		var all []byte
		for _, u := range utf16.Encode([]rune(text)) {
			all = order.AppendUint16(all, u)
		}
		return string(all)
	}
	const haproxy = "defaults\n  mode tcp\nlisten web\n  bind 192.0.2.10:80\n  server a 10.0.0.1:80\n"
	const keepalived = "virtual_server 192.0.2.10 80 {\n real_server 10.0.0.1 80 {\n }\n}\n"
	const ipvs = "-A -t 192.0.2.10:80 -s wrr\n-a -t 192.0.2.10:80 -r 10.0.0.1:80 -m -w 1\n"
	included := migrateFile(t, "part.conf", wide(binary.LittleEndian, "\ufeff"+nginxWeb))
	for name, c := range map[string]struct{ source, text, says string }{
		"with a mark":          {"nginx", wide(binary.LittleEndian, "\ufeff"+nginxWeb), "iconv -f UTF-16 -t UTF-8"},
		"big-endian":           {"haproxy", wide(binary.BigEndian, "\ufeff"+haproxy), "iconv -f UTF-16 -t UTF-8"},
		"without, little":      {"keepalived", wide(binary.LittleEndian, keepalived), "iconv -f UTF-16LE -t UTF-8"},
		"without, big":         {"ipvs", wide(binary.BigEndian, ipvs), "iconv -f UTF-16BE -t UTF-8"},
		"an included one":      {"nginx", "include " + included + ";\n", "part.conf: the file is UTF-16"},
		"lines that end by CR": {"haproxy", strings.ReplaceAll(haproxy, "\n", "\r"), `tr '\r' '\n'`},
	} {
		said, code := runBlixt(t, "migrate", c.source, migrateFile(t, "a.conf", c.text))
		if code != 2 || !strings.Contains(said, c.says) || strings.Count(said, "\n") != 1 {
			t.Errorf("%s: exit code %d: %s", name, code, said)
		}
	}
	service := "\ufeffapiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: LoadBalancer, ports: [{port: 80}]}\n"
	if said, code := runBlixt(t, "migrate", "services", migrateFile(t, "a.yaml", wide(binary.LittleEndian, service))); code != 0 || !strings.Contains(said, "kind: TCPRoute") {
		t.Errorf("YAML: exit code %d: %s", code, said)
	}
	if said, code := runBlixt(t, "migrate", "haproxy", migrateFile(t, "a.conf", strings.ReplaceAll(haproxy, "\n", "\r\n"))); code != 0 {
		t.Errorf("lines that end by CR and LF: exit code %d: %s", code, said)
	}
}

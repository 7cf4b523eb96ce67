// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
)

const webClass = `apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: blixt}
spec: {controllerName: gateway.networking.k8s.io/blixt}
`

// webFile has all that one TCP port with two servers needs.
const webFile = webClass + `---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec:
  gatewayClassName: blixt
  addresses: [{value: 192.0.2.10}]
  listeners:
  - {name: tcp, protocol: TCP, port: 80}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: web}]
  rules:
  - backendRefs: [{name: web, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  ports: [{protocol: TCP, port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{protocol: TCP, port: 8080}]
endpoints:
- addresses: ["192.0.2.1"]
- addresses: ["192.0.2.2"]
`

// runBlixt runs a command as main does, and returns what it prints and its exit code.
func runBlixt(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	var buffer bytes.Buffer
	c := command()
	c.SetArgs(args)
	c.SetOut(&terminal{out: &buffer})
	c.SetErr(&terminal{out: &buffer})
	code = exit(c, c.Execute())
	return buffer.String(), code
}

// fill returns a directory with these files.
func fill(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// elsewhere are the flags of a host that is always the same.
var elsewhere = []string{"--host-address", "192.0.2.1/24", "--node-name", "here"}

func checkDir(t *testing.T, dir string, flags ...string) (string, int) {
	t.Helper()
	out, code := runBlixt(t, append(append([]string{"check", "-f", dir}, elsewhere...), flags...)...)
	return strings.ReplaceAll(out, dir+"/", ""), code
}

func TestCheckShowsWhatWouldBeServed(t *testing.T) {
	dir := fill(t, map[string]string{"web.yaml": webFile})
	want := `FRONTEND           ROUTE                 BACKEND         STATE           WEIGHT  SHARE
192.0.2.10:80/tcp  TCPRoute/default/web  192.0.2.1:8080  serving, local  0.5     50.0%
                                         192.0.2.2:8080  serving         0.5     50.0%
`
	if out, code := checkDir(t, dir); out != want || code != 0 {
		t.Errorf("exit code %d, output\n%s\nwant\n%s", code, out, want)
	}
	if out, code := checkDir(t, dir, "-q", "--strict"); out != "" || code != 0 {
		t.Errorf("quietly: exit code %d, output\n%s", code, out)
	}
	out, code := checkDir(t, dir, "-o", "json")
	var r struct {
		Problems  []problem
		Frontends []struct {
			Frontend string
			Backends []struct {
				Address string
				Will    struct{ Weight, Share float64 }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || r.Problems == nil ||
		len(r.Frontends) != 1 || len(r.Frontends[0].Backends) != 2 || r.Frontends[0].Backends[1].Will.Share != 0.5 {
		t.Errorf("exit code %d (%v), JSON\n%s", code, err, out)
	}
}

// TestCheckExitsByWhatItFinds has each kind of finding.
func TestCheckExitsByWhatItFinds(t *testing.T) {
	replace := func(old, new string) string {
		text := strings.Replace(webFile, old, new, 1)
		if text == webFile {
			t.Fatalf("%s is not there", old)
		}
		return text
	}
	for name, c := range map[string]struct {
		text         string
		code, strict int
		says         string
	}{
		"nothing":            {webFile, 0, 0, ""},
		"a comment":          {"# nothing\n", 0, 0, ""},
		"no YAML":            {"kind: [\n", 1, 1, "web.yaml:2: did not find expected node content"},
		"a tab":              {"a:\n\tb: c\n", 1, 1, "web.yaml:2: a tab character: YAML indents with spaces"},
		"an unknown field":   {replace("gatewayClassName", "className"), 1, 1, `web.yaml:10: Gateway default/web: unknown field "spec.className"`},
		"a value":            {replace("port: 80}", "port: 99999}"), 1, 1, "web.yaml:13: Gateway default/web: spec.listeners[0].port: 99999 is too large: at most 65535"},
		"a class":            {replace("ClassName: blixt", "ClassName: blixxt"), 1, 1, "web.yaml:10: Gateway default/web: GatewayClass blixxt does not exist"},
		"another controller": {replace("k8s.io/blixt}", "k8s.io/other}"), 0, 1, "web.yaml:10: warning: Gateway default/web: GatewayClass blixt is not Blixt's"},
		"weights of 0":       {replace("port: 80}]\n---\napiVersion: v1", "port: 80, weight: 0}]\n---\napiVersion: v1"), 0, 1, "web.yaml:15: warning: TCPRoute default/web: Every backendRef has weight 0"},
		"no endpoint": {replace(`endpoints:
- addresses: ["192.0.2.1"]
- addresses: ["192.0.2.2"]`, "endpoints: []"), 0, 1, "warning: "},
		"another kind":  {webFile + "---\napiVersion: v1\nkind: Endpoints\nmetadata: {name: web}\n", 0, 1, ""},
		"an empty file": {"", 1, 1, "web.yaml: the file is empty: remove it, or write a comment into it"},
		"binary":        {"\x7fELF\x02\x01\x01\x00\x00\xff\xfe", 1, 1, "web.yaml:1: "},
		"half of it":    {webFile[:len(webFile)/2], 1, 1, "web.yaml"},
	} {
		dir := fill(t, map[string]string{"web.yaml": c.text})
		out, code := checkDir(t, dir, "-q")
		if code != c.code || !strings.Contains(out, c.says) || c.says == "" && out != "" {
			t.Errorf("%s: exit code %d, want %d, output\n%s\nwant %s", name, code, c.code, out, c.says)
		}
		if _, code := checkDir(t, dir, "-q", "--strict"); code != c.strict {
			t.Errorf("%s, strictly: exit code %d, want %d", name, code, c.strict)
		}
	}
}

// TestCheckCannotTell where files cannot be read. What it can read it reports.
func TestCheckCannotTell(t *testing.T) {
	if out, code := runBlixt(t, "check", "-f", "/nowhere"); code != exitUnknown || out != "/nowhere: read /nowhere: no such file or directory\n\nNothing would be served: no file is valid.\n" {
		t.Errorf("exit code %d, output\n%s", code, out)
	}
	if out, code := checkDir(t, t.TempDir(), "-q"); code != exitUnknown || !strings.Contains(out, "no *.yaml, *.yml or *.json files") {
		t.Errorf("an empty directory: exit code %d, output\n%s", code, out)
	}
	for _, flags := range [][]string{{"--host-address", "192.0.2.1"}, {"--diff", "--host-address", "192.0.2.1/24"}, {"-o", "xml"}, {"DIR"}, {}} {
		if out, code := runBlixt(t, append([]string{"check"}, flags...)...); code != exitUnknown || !strings.HasPrefix(out, "blixt: ") {
			t.Errorf("%q: exit code %d, output\n%s", flags, code, out)
		}
	}
	dir := fill(t, map[string]string{"web.yaml": webFile, "bad.yaml": "kind: [\n"})
	if err := os.Symlink("nowhere", filepath.Join(dir, "lost.yaml")); err != nil {
		t.Fatal(err)
	}
	if out, code := checkDir(t, dir, "-q"); code != exitWrong || !strings.Contains(out, "lost.yaml: no such file or directory\n") || !strings.Contains(out, "bad.yaml:2: ") {
		t.Errorf("exit code %d, output\n%s", code, out)
	}
	if err := os.Remove(filepath.Join(dir, "bad.yaml")); err != nil {
		t.Fatal(err)
	}
	if out, code := checkDir(t, dir); code != exitUnknown || !strings.Contains(out, "lost.yaml: no such file or directory\n") || !strings.Contains(out, "192.0.2.10:80/tcp") {
		t.Errorf("exit code %d, output\n%s", code, out)
	}
}

// TestCheckIsNotHeldUp by what is no file, or much too large, or leads in a circle.
func TestCheckIsNotHeldUp(t *testing.T) {
	dir := fill(t, map[string]string{"web.yaml": webFile})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Mkfifo(filepath.Join(dir, "pipe.yaml"), 0o644))
	must(unix.Mknod(filepath.Join(dir, "socket.yaml"), unix.S_IFSOCK|0o644, 0))
	must(os.Symlink("circle.yaml", filepath.Join(dir, "circle.yaml")))
	must(os.Symlink(".", filepath.Join(dir, "below")))
	must(os.Symlink("/dev/zero", filepath.Join(dir, "zero.yaml")))
	must(os.WriteFile(filepath.Join(dir, "huge.yaml"), nil, 0o644))
	must(os.Truncate(filepath.Join(dir, "huge.yaml"), 1<<40))
	began := time.Now()
	out, code := checkDir(t, dir, "-R")
	if code != exitWrong || time.Since(began) > 10*time.Second {
		t.Errorf("exit code %d after %s", code, time.Since(began))
	}
	for _, want := range []string{"pipe.yaml: this is a named pipe", "socket.yaml: this is a socket", "circle.yaml: too many levels of symbolic links",
		"zero.yaml: this is a device", "huge.yaml: the file has 1048576 MB, and 32 MB is the limit", "note: ", "192.0.2.10:80/tcp"} {
		if !strings.Contains(out, want) {
			t.Errorf("the output does not have %q:\n%s", want, out)
		}
	}
}

// TestCheckAsAnybody needs no privilege, and says what it may not read.
func TestCheckAsAnybody(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	dir := fill(t, map[string]string{"web.yaml": webFile, "secret.yaml": webClass})
	if err := os.Chmod(filepath.Join(dir, "secret.yaml"), 0); err != nil {
		t.Fatal(err)
	}
	for path := dir; path != "/tmp" && path != "/"; path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out, code := asNobody(t, dir, "check", "-f", dir)
	if code != exitUnknown || !strings.Contains(out, "secret.yaml: permission denied\n") || !strings.Contains(out, "192.0.2.10:80/tcp") {
		t.Errorf("exit code %d, output\n%s", code, out)
	}
	if out, code := asNobody(t, dir, "check", "-q", "-f", filepath.Join(dir, "web.yaml")); code != 0 || out != "" {
		t.Errorf("exit code %d, output\n%s", code, out)
	}
}

// asNobody runs this program, from a directory, as a user without any right.
func asNobody(t *testing.T, dir string, args ...string) (string, int) {
	t.Helper()
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "blixt") // where it is now, only root may read
	if err := os.WriteFile(exe, program, 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe, args...)
	c.Env = append(os.Environ(), asBlixt+"=1")
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, _ := c.CombinedOutput()
	return string(out), c.ProcessState.ExitCode()
}

// TestCheckPrintsHostileNamesSafely: names come from anybody.
func TestCheckPrintsHostileNamesSafely(t *testing.T) {
	dir := fill(t, map[string]string{
		"\x1b[2Jweb.yaml":  strings.ReplaceAll(webFile, "name: web", `name: "w\e[31meb\u202e\u0007"`),
		"a\nb.yaml":        "kind: [\n",
		"c.yaml":           "apiVersion: v1\nkind: \"X\\e]0;owned\\a\"\nmetadata: {name: \"a\\nb: c\"}\n",
		"ok:12: error.yml": "a: b\n",
	})
	for _, output := range []string{"table", "json", "yaml"} {
		out, code := checkDir(t, dir, "-o", output)
		if code != exitWrong {
			t.Errorf("%s: exit code %d", output, code)
		}
		for _, r := range out {
			if !unicode.IsPrint(r) && r != '\n' {
				t.Errorf("%s has %q:\n%q", output, r, out)
				break
			}
		}
		if output == "table" {
			for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
				if strings.HasPrefix(line, "b.yaml") || strings.HasPrefix(line, "b: c") {
					t.Errorf("a name has made a line of its own: %s", line)
				}
			}
		}
	}
}

// problemMatcher is the one of docs/check.md for GitHub.
var problemMatcher = regexp.MustCompile(`^(.+?)(?::(\d+))?: (?:(warning|note): )?(.+)$`)

func TestCheckPrintsWhatEditorsParse(t *testing.T) {
	dir := fill(t, map[string]string{"a.yaml": strings.Replace(webFile, "ClassName: blixt", "ClassName: blixxt", 1), "b.yaml": "a:\n\tb\n"})
	out, _ := checkDir(t, dir, "-q")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 2 {
		t.Fatalf("output\n%s", out)
	}
	for i, want := range []string{"b.yaml|2||a tab character", "a.yaml|10||Gateway default/web: GatewayClass"} {
		f := problemMatcher.FindStringSubmatch(lines[i])
		if f == nil || !strings.HasPrefix(strings.Join(f[1:], "|"), want) {
			t.Errorf("%s is %q, want %s", lines[i], f, want)
		}
	}
}

// TestCheckReportsAll: a log says a few problems of each file and object, this says all.
func TestCheckReportsAll(t *testing.T) {
	var text strings.Builder
	for i := range 50 {
		fmt.Fprintf(&text, "apiVersion: v1\nkind: Service\nmetadata: {name: s%d}\nspec: {ports: [{port: 0}]}\n---\n", i)
	}
	out, _ := checkDir(t, fill(t, map[string]string{"a.yaml": text.String()}), "-q")
	if n := strings.Count(out, "\n"); n < 50 {
		t.Errorf("%d lines\n%s", n, out)
	}
}

// TestCheckReadsFourThousandFiles in a few seconds: each is an application of its own.
func TestCheckReadsFourThousandFiles(t *testing.T) {
	files := map[string]string{"class.yaml": webClass}
	web := strings.TrimPrefix(webFile, webClass)
	for i := range 4000 {
		name := fmt.Sprintf("web%d", i)
		files[name+".yaml"] = strings.NewReplacer("name: web", "name: "+name, "192.0.2.10", fmt.Sprintf("198.18.%d.%d", i/250, i%250+1)).Replace(web)
	}
	dir := fill(t, files)
	began := time.Now()
	out, code := checkDir(t, dir, "-q")
	if took := time.Since(began); code != 0 || out != "" || took > time.Minute {
		t.Errorf("exit code %d after %s, output\n%.1000s", code, took, out)
	} else {
		t.Logf("%s", took)
	}
}

// The examples of the reference are served as they are.
func TestExamplesOfTheReferenceAreServed(t *testing.T) {
	t.Chdir("../../..")
	out, code := runBlixt(t, "check", "-f", "docs/reference/examples")
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	t.Chdir("operator/cmd/blixt")
	golden.File(t, "testdata/reference.txt", []byte(out))
}

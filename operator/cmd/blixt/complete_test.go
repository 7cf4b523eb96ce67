// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// offered returns what a shell would offer for the last of the words, without descriptions.
func offered(t *testing.T, words ...string) []string {
	t.Helper()
	out, code := runBlixt(t, append([]string{"__completeNoDesc"}, words...)...)
	if code != 0 {
		t.Fatalf("%q: exit code %d, output\n%s", words, code, out)
	}
	lines := strings.Split(out, "\n")
	end := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, ":") })
	return lines[:end]
}

// runDirOf returns the directory of load balancers that serve, as their processes leave it.
func runDirOf(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		record := writer.Record{State: lb.State{Frontends: []lb.Frontend{{
			Addr: netip.MustParseAddr("192.0.2.10"), Port: 80, Protocol: lb.TCP, Gateway: "default/" + name, Route: "TCPRoute/default/web",
			Backends: []lb.Backend{{Addr: netip.MustParseAddrPort("10.0.0.1:8080")}}, Refs: []lb.ServicePort{{Service: "default/web", Port: 80}},
		}, {Addr: netip.MustParseAddr("2001:db8::1"), Port: 53, Protocol: lb.UDP, Gateway: "default/$(reboot)", Route: "UDPRoute/a b"}}}}
		text, err := json.Marshal(record)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(standalone.StateFile(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestValuesAreCompleted(t *testing.T) {
	dir := runDirOf(t, "web", "dns")
	for _, c := range []struct{ words, want string }{
		{"stat", "status"},
		{"status -o ", "json table wide yaml"},
		{"check -o ", "json table yaml"},
		{"status --run-dir DIR --bpffs DIR --name ", "dns web"},
		{"unload --run-dir DIR --bpffs DIR --name w", "web"},
		{"run --log-level ", "debug error info warn"},
		{"run --log-format j", "json"},
		{"run --loader ", "bpfman builtin"},
		{"run --route-metrics ", "all off seen"},
		{"run --addresses ", "leave manage"},
		{"run --drain-timeout ", ""},
		{"run --backend ", ""},
		{"top ", "backends clients frontends"},
		{"doctor ", "cluster host"},
		{"flows --event ", "dropped end open rejected"},
		{"flows --run-dir DIR --name web --gateway ", "default/web"},
		{"flows --run-dir DIR --name web --route ", "TCPRoute/default/web"},
		{"flows --run-dir DIR --name web --service ", "default/web"},
		{"flows --run-dir DIR --name web --backend ", "10.0.0.1:8080"},
		{"flows --run-dir DIR --name web ", "192.0.2.10:80 [2001:db8::1]:53"},
		{"trace --run-dir DIR --name web 10.0.0.1:9 ", "192.0.2.10:80/tcp [2001:db8::1]:53/udp"},
		{"drain --run-dir DIR --name web ", "10.0.0.1:8080"},
		{"drops --run-dir DIR drop_no_r", "drop_no_route"},
	} {
		words := strings.Split(strings.ReplaceAll(c.words, "DIR", dir), " ")
		got := offered(t, words...)
		slices.Sort(got)
		if strings.Join(got, " ") != c.want {
			t.Errorf("blixt %s: offers %q, want %s", c.words, got, c.want)
		}
	}
}

// TestNodesAreCompleted by a cluster that answers, and by one that does not within a
// moment.
func TestNodesAreCompleted(t *testing.T) {
	hangs := make(chan struct{})
	defer close(hangs)
	answers := true
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !answers {
			select {
			case <-hangs:
			case <-r.Context().Done():
			}
			return
		}
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/apis/blixt.x-k8s.io/v1alpha1/nodedataplanes":
			fmt.Fprint(w, `{"kind":"NodeDataplaneList","apiVersion":"blixt.x-k8s.io/v1alpha1","items":[{"metadata":{"name":"n1"}},{"metadata":{"name":"n2"}},{"metadata":{"name":"$(x)"}}]}`)
		default:
			http.NotFound(w, r)
		}
	}))
	defer s.Close()
	config := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(config, []byte(fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"a",
		"contexts":[{"name":"a","context":{"cluster":"a","user":""}},{"name":"b","context":{"cluster":"a","user":""}}],"clusters":[{"name":"a","cluster":{"server":%q}}]}`, s.URL)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := offered(t, "flows", "--kubeconfig", config, "--node", ""); !slices.Equal(got, []string{"n1", "n2"}) {
		t.Errorf("nodes %q", got)
	}
	if got := offered(t, "flows", "--kubeconfig", config, "--context", ""); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("contexts %q", got)
	}
	answers = false
	began := time.Now()
	if got := offered(t, "flows", "--kubeconfig", config, "--node", ""); len(got) > 0 || time.Since(began) > 10*time.Second {
		t.Errorf("nodes %q after %s", got, time.Since(began))
	}
}

// shells complete a line, the first argument, by a script that they read from standard input,
// and print what they offer. fish does so by itself, bash and zsh with the packages that people
// have for it.
var shells = map[string][]string{
	"bash": {"bash", "--norc", "-c", `
		. /usr/share/bash-completion/bash_completion && eval "$(cat)" || exit
		COMP_LINE=$0 COMP_POINT=${#COMP_LINE} COMP_TYPE=9
		read -ra COMP_WORDS <<<"$COMP_LINE"
		[[ $COMP_LINE == *" " ]] && COMP_WORDS+=("")
		COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
		__start_blixt
		printf '%s\n' "${COMPREPLY[@]}" | sed 's/ *(.*//'`},
	"fish": {"fish", "--no-config", "-c", `source -; complete --do-complete "$argv[1]" | string replace -r '\t.*' ''`},
	// Completion works in a terminal only, so what it would add is printed instead.
	"zsh": {"zsh", "-f", "-c", `
		compdef() { :; }; _describe() { shift $((# - 2)); print -l -- ${(P)1%%:*}; }; _arguments() { print -l -- $~word*; }; compadd() { :; }
		eval "$(cat)" 2>/dev/null
		words=(${(z)0}); [[ $0 == *" " ]] && words+=("")
		CURRENT=$#words word=$words[-1]
		_blixt`},
}

// TestShellsComplete by the scripts that ` + "`blixt completion`" + ` prints.
func TestShellsComplete(t *testing.T) {
	bin, home := t.TempDir(), t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(exe, filepath.Join(bin, "blixt")); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), asBlixt+"=1", "HOME="+home, "XDG_CONFIG_HOME="+home)
	dir := runDirOf(t, "web", "dns")
	// bash and zsh complete names of files themselves, if they are offered nothing.
	files := map[string]string{"fish": dir + "/web.state.json"}
	for shell, command := range shells {
		if _, err := exec.LookPath(shell); err != nil {
			t.Errorf("%v: make test installs it", err)
			continue
		}
		c := exec.Command(exe, "completion", shell)
		c.Env = env
		script, err := c.Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct{ line, want string }{
			{"blixt statu", "status"},
			{"blixt status --outp", "--output"},
			{"blixt status --run-dir " + dir + " --bpffs " + dir + " --name ", "dns web"},
			{"blixt run --log-level d", "debug"},
			{"blixt check -f " + dir + "/w", files[shell]},
		} {
			run := exec.Command(command[0], append(command[1:], c.line)...)
			run.Env, run.Stdin = env, bytes.NewReader(script)
			out, err := run.Output()
			got := strings.Fields(string(out))
			slices.Sort(got)
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s: %s: completes to %q, want %s (%v)", shell, c.line, got, c.want, err)
			}
		}
	}
}

// TestFlagsOfFilesAreLeftToTheShell.
func TestFlagsOfFilesAreLeftToTheShell(t *testing.T) {
	for _, name := range fileFlagNames {
		if flagValues[name] != nil {
			t.Errorf("--%s is a file and is not", name)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// put writes a file of the directory as an editor would; an empty text removes it.
func (i *instance) put(name, text string) {
	i.Helper()
	path := filepath.Join(i.dir, name)
	if text == "" {
		must(i.TB, os.Remove(path))
		return
	}
	must(i.TB, os.WriteFile(path+".new", []byte(text), 0o644))
	must(i.TB, os.Rename(path+".new", path))
}

// parts splits the documents of files: class, Gateway, route, Service, EndpointSlice.
func parts(port int) []string {
	return strings.Split(strings.TrimPrefix(files(port, far4), "\n"), "---\n")
}

// splitUp returns a running load balancer that has an object in each file.
func splitUp(t *testing.T) (*instance, []string) {
	veth(t, "eth0")
	p := parts(80)
	i := prepare(t, p[0])
	i.Files.StateDir = filepath.Join(t.TempDir(), "state")
	names := []string{"class.yaml", "gw.yaml", "route.yaml", "service.yaml", "slice.yaml"}
	must(t, os.Remove(filepath.Join(i.dir, "web.yaml")))
	for n, name := range names {
		i.put(name, p[n])
	}
	i.start()
	i.serves(far4 + ":80")
	return i, p
}

// TestMistakeTakesNothingDown makes one mistake after the other: each is refused with
// file, line, object and remedy, what served goes on, an unrelated change takes effect,
// and mending it is said.
func TestMistakeTakesNothingDown(t *testing.T) {
	for _, c := range []struct{ name, file, old, new, at, says string }{
		{"class name", "gw.yaml", "gatewayClassName: blixt", "gatewayClassName: blixxt", "gw.yaml:5", "GatewayClass blixxt does not exist"},
		{"class deleted", "class.yaml", "", "", "gw.yaml:5", "GatewayClass blixt does not exist"},
		{"controllerName", "class.yaml", "networking.k8s.io/blixt", "networking.k8s.io/blitx", "gw.yaml:5", "controllerName"},
		{"protocol", "gw.yaml", "protocol: TCP", "protocol: tcp", "gw.yaml:8", "tcp"},
		{"address", "gw.yaml", far4, "127.0.0.1", "gw.yaml:6", "loopback"},
		{"listener renamed", "gw.yaml", "name: tcp", "name: web2", "route.yaml:5", "no listener named tcp"},
		{"parent", "route.yaml", "name: web, sectionName", "name: wbe, sectionName", "route.yaml:5", "Gateway default/wbe"},
		{"section", "route.yaml", "sectionName: tcp", "sectionName: tpc", "route.yaml:5", "no listener named tpc"},
		{"backend", "route.yaml", "name: web, port: 80", "name: wbe, port: 80", "route.yaml:7", "Service default/wbe does not exist"},
		{"backend port", "route.yaml", "port: 80", "port: 8080", "route.yaml:7", "no port 8080"},
		{"service renamed", "service.yaml", "name: web", "name: wbe", "route.yaml:7", "Service default/web does not exist"},
		{"service deleted", "service.yaml", "", "", "route.yaml:7", "Service default/web does not exist"},
		{"service port", "service.yaml", "port: 80", "port: 81", "route.yaml:7", "no port 80"},
		{"label", "slice.yaml", "service-name: web", "service-name: wbe", "slice.yaml:1", "Service default/wbe does not exist"},
		{"slice port", "slice.yaml", "ports: [{", "ports: [{name: http, ", "service.yaml:1", "leads to no endpoint"},
		{"endpoint", "slice.yaml", "10.0.0.1", "127.0.0.1", "slice.yaml:1", "loopback"},
		{"endpoint is a frontend", "slice.yaml", "8080}]\nendpoints:\n- addresses: [\"10.0.0.1\"]", "80}]\nendpoints:\n- addresses: [\"" + far4 + "\"]", "service.yaml:1", "is itself a frontend"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i, p := splitUp(t)
			n := map[string]int{"class.yaml": 0, "gw.yaml": 1, "route.yaml": 2, "service.yaml": 3, "slice.yaml": 4}
			good := strings.Replace(p[2], "parentRefs: [{name: web}]", "parentRefs: [{name: web, sectionName: tcp}]", 1)
			i.put("route.yaml", good)
			p[2] = good
			text := ""
			if c.old != "" {
				if text = strings.Replace(p[n[c.file]], c.old, c.new, 1); text == p[n[c.file]] {
					t.Fatal("nothing replaced")
				}
			}
			i.put(c.file, text)
			i.logs("level=ERROR", c.at+": ", c.says, "Refused")
			other := strings.NewReplacer("name: web", "name: other", "service-name: web", "service-name: other").Replace(strings.Join(parts(81)[1:], "---\n"))
			i.put("other.yaml", other)
			i.serves(far4+":80", far4+":81")
			if served := i.backends(); served != 2 {
				t.Errorf("%d backends are served, want 2", served)
			}
			i.put(c.file, p[n[c.file]])
			i.logs("mended", c.at, c.says)
			i.serves(far4+":80", far4+":81")
		})
	}
}

// TestRestartChangesNoDecision has mistakes, and files that want what others have, when it
// starts again: who served goes on.
func TestRestartChangesNoDecision(t *testing.T) {
	i, p := splitUp(t)
	i.put("aaa.yaml", strings.ReplaceAll(strings.Join(p[1:2], ""), "name: web", "name: aaa"))
	i.put("aab.yaml", strings.Replace(strings.Replace(p[2], "{name: web}", "{name: aab}", 1), "{name: web, port: 80}", "{name: nobody, port: 80}", 1))
	i.put("class.yaml", "")
	i.put("service.yaml", "")
	said := [][]string{
		{"level=ERROR", "aaa.yaml:8: Gateway default/aaa listener tcp: PortUnavailable: ", "which has had it before"},
		{"level=WARN", "aab.yaml:1: TCPRoute default/aab: ", "which has served it before"},
		{"level=ERROR", "aab.yaml:7: TCPRoute default/aab: BackendNotFound: "},
		{"level=ERROR", "gw.yaml:5: Gateway default/web: ", "GatewayClass blixt does not exist", "Refused", "GatewayClass blixt (class.yaml:1)"},
		{"level=ERROR", "route.yaml:7: TCPRoute default/web: ", "Service default/web does not exist", "Refused", "Service default/web (service.yaml:1)"},
	}
	i.logsAll(said...)
	for range 2 {
		i.serves(far4 + ":80")
		if served := i.backends(); served != 1 {
			t.Fatalf("%d backends are served", served)
		}
		i.stop()
		i.start()
		i.logsAll(said...)
	}
	i.serves(far4 + ":80")
	if served := i.backends(); served != 1 {
		t.Fatalf("%d backends are served", served)
	}
	// What others have written, or half of it, is no past. It is said.
	i.stop()
	must(t, os.WriteFile(filepath.Join(i.Files.StateDir, "objects"), []byte("{\"paths\": ["), 0o600))
	i.start()
	i.logs("level=WARN", "which objects were good last is not known", "objects")
	i.serves()
}

// logsAll waits until each is in a line, in any order.
func (i *instance) logsAll(lines ...[]string) {
	i.Helper()
	var all []string
	eventually(i.TB, func() error {
		all = append(all, i.log.take()...)
		for _, words := range lines {
			if !slices.ContainsFunc(all, func(line string) bool {
				return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) })
			}) {
				return fmt.Errorf("no line of the log has %q:\n%s", words, strings.Join(all, "\n"))
			}
		}
		return nil
	})
}

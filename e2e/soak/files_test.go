// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package soak

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// fileMistakes are those in the directory.
var fileMistakes = []mistake{
	{name: "typo", place: "files", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		c := pick(r,
			[2]string{"  listeners:", "  listener:"},
			[2]string{"  listeners:", "  listeners: ]["},
			[2]string{"gatewayClassName: blixt", "gatewayClassName: blixxt"},
			[2]string{"protocol: TCP", "protocol: tcp"},
			[2]string{"port: 80", "port: 99999"},
			[2]string{"port: 80", "port: eighty"},
			[2]string{"kind: Service", "kind: Srvice"},
			[2]string{"    - name: spare\n", "    - name: spares\n"},
			[2]string{"  - name: spare\n", "  - name: spares\n"},
			[2]string{"sectionName: tcp-80", "sectionName: tcp-81"},
			[2]string{"10.99.0.11", "10.99.0.1111"},
			[2]string{"kubernetes.io/service-name: spare", "kubernetes.io/servicename: spare"},
			[2]string{"198.51.100.20", "198.51.100.2O"},
			[2]string{"  name: spare", "\tname: spare"},
			[2]string{"apiVersion: v1", "apiVersion: v2"},
		)
		good := h.files["spare.yaml"]
		bad := strings.Replace(good, c[0], c[1], 1)
		if bad == good {
			return c[0], nil, fmt.Errorf("no %q in spare.yaml", c[0])
		}
		return fmt.Sprintf("%q for %q in spare.yaml", c[1], c[0]), h.writeFiles, h.write(r, "spare.yaml", bad)
	}},
	{name: "cut file", place: "files", names: spareOnly, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		good := h.files["spare.yaml"]
		n := r.IntN(len(good))
		return fmt.Sprintf("spare.yaml ends after %d of %d bytes", n, len(good)), h.writeFiles, h.write(r, "spare.yaml", good[:n])
	}},
	{name: "slow copy", place: "files", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		name := pick(r, slices.Sorted(maps.Keys(h.files))...)
		n, each := 2+r.IntN(10), time.Duration(20+r.IntN(200))*time.Millisecond
		return fmt.Sprintf("%s in %d pieces, %s between them", name, n, each), h.writeFiles, writeSlowly(h.path(name), h.files[name], n, each)
	}},
	{name: "deleted file", place: "files", names: spareOnly, do: func(h *host, _ *rand.Rand) (string, func() error, error) {
		return "spare.yaml", h.writeFiles, os.Remove(h.path("spare.yaml"))
	}},
	{name: "deleted class", place: "files", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		_, rest, _ := strings.Cut(h.files["gateway.yaml"], "---\n")
		return "gateway.yaml without it", h.writeFiles, h.write(r, "gateway.yaml", rest)
	}},
	{name: "foreign file", place: "files", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		f := pick(r,
			[2]string{"docker-compose.yaml", "services:\n  web:\n    image: nginx\n"},
			[2]string{"package.json", `{"name": "web", "version": "1.0.0"}`},
			[2]string{"empty.yaml", ""},
			[2]string{"comment.yaml", "# to be written\n"},
			[2]string{"binary.yaml", "\x7fELF\x02\x01\x01\x00\x00\xff\xfe"},
			[2]string{"list.yaml", "- a\n- b\n"},
			[2]string{"http.yaml", "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\n"},
			[2]string{"pod.yml", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n"},
			[2]string{"swap.yaml~", "left by an editor"},
			[2]string{".spare.yaml.swp", "b0VIM 9.0"},
			[2]string{"bom.yaml", "\ufeffapiVersion: v1\nkind: Service\nmetadata: {name: bom}\nspec: {ports: [{port: 80}]}\n"},
			[2]string{"deep.yaml", strings.Repeat("[", 5000)},
			[2]string{"long.yaml", "# " + strings.Repeat("nothing ", 500_000) + "\n"},
			[2]string{"bomb.yaml", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"},
		)
		return fmt.Sprintf("%s with %d bytes", f[0], len(f[1])), h.writeFiles, h.write(r, f[0], f[1])
	}},
	{name: "no file", place: "files", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		path := h.path("odd.yaml")
		what, do := "a directory", func() error { return os.Mkdir(path, 0o755) }
		switch r.IntN(4) {
		case 0:
			what, do = "a link to nothing", func() error { return os.Symlink("/nonexistent", path) }
		case 1:
			what, do = "a pipe", func() error { return unix.Mkfifo(path, 0o644) }
		case 2:
			what, do = "a link to itself", func() error { return os.Symlink(path, path) }
		}
		return "odd.yaml is " + what, h.writeFiles, do()
	}},
	{name: "second definition", place: "files", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		of := pick(r, slices.Sorted(maps.Keys(h.files))...)
		name := pick(r, "a-copy.yaml", "z-copy.yaml")
		return of + " once more as " + name, h.writeFiles, h.write(r, name, h.files[of])
	}},
	{name: "taken port", place: "files", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		var c lab.Config
		l := lab.Listener{Protocol: "TCP", Port: 80}
		name := pick(r, "a", "z")
		c.Gateways = []lab.Gateway{{Name: name, Addresses: []string{pick(r, lab.VIP4, onLink6, spare4)}, Listeners: []lab.Listener{l}}}
		c.Routes = []lab.Route{{Name: name, Gateway: name, Listener: l, Refs: []lab.Ref{{Service: "web", Weight: 1}}}}
		_, text, _ := strings.Cut(c.YAML()["gateway.yaml"], "---\n")
		return "by Gateway " + name + " at " + c.Gateways[0].Addresses[0], h.writeFiles, h.write(r, name+".yaml", text)
	}},
	{name: "second route", place: "files", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		name := pick(r, "a", "z")
		c := lab.Config{Routes: []lab.Route{{Name: name, Gateway: "routed", Listener: lab.Listener{Protocol: "TCP", Port: 80}, Refs: []lab.Ref{{Service: pick(r, "none", "spare"), Weight: 1}}}}}
		_, text, _ := strings.Cut(c.YAML()["gateway.yaml"], "---\n")
		return "TCPRoute " + name + " to Service " + c.Routes[0].Refs[0].Service, h.writeFiles, h.write(r, name+".yaml", text)
	}},
	{name: "too much", place: "files", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		c := lab.Config{Gateways: []lab.Gateway{{Name: "wide", Addresses: []string{"198.51.100.30"}}}}
		for port := 1000; port < 11_001; port++ {
			c.Gateways[0].Listeners = append(c.Gateways[0].Listeners, lab.Listener{Protocol: "TCP", Port: port})
		}
		_, text, _ := strings.Cut(c.YAML()["gateway.yaml"], "---\n")
		return "a Gateway with 10001 ports", h.writeFiles, h.write(r, "wide.yaml", text)
	}},
	{name: "moved directory", place: "files", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		away := h.blixt.Dir + ".away"
		back := func() error {
			_ = os.RemoveAll(h.blixt.Dir) // there is none, or an empty one
			return os.Rename(away, h.blixt.Dir)
		}
		err := os.Rename(h.blixt.Dir, away)
		if err == nil && r.IntN(2) == 0 {
			return "an empty one instead", back, os.Mkdir(h.blixt.Dir, 0o755)
		}
		return "none instead", back, err
	}},
	{name: "all deleted", place: "files", names: nobody, do: func(h *host, _ *rand.Rand) (string, func() error, error) {
		return "rm *", h.writeFiles, run(h.balancer, "rm "+h.blixt.Dir+"/*")
	}},
	{name: "odd metadata", place: "files", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		path := h.path(pick(r, slices.Sorted(maps.Keys(h.files))...))
		do := pick(r, "touch -d 1990-01-01 ", "touch -d 2200-01-01 ", "touch ", "chmod 000 ", "chown 65534 ")
		return do + filepath.Base(path), func() error { return h.shell("touch " + path + "; chmod 644 " + path + "; chown 0 " + path) }, h.shell(do + path)
	}},
	{name: "editor", place: "files", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		name := pick(r, slices.Sorted(maps.Keys(h.files))...)
		dir := h.blixt.Dir
		how := pick(r,
			"touch 4913; rm 4913; mv N N~; cp N~ N; rm N~",        // vim
			"cp N '#N#'; cp N N~; cat N~ >N; rm '#N#' N~",         // emacs
			"cp N .N.tmp; sync .N.tmp; mv .N.tmp N",               // rename
			"sed -i 's/nothing/something/' N",                     // sed
			"cp N x; rm N; sleep 0.03; mv x N",                    // away for a moment
			"cp N x; : >N; sleep 0.03; cat x >N; rm x",            // empty for a moment
			"cp N .N.real; ln -sf .N.real N",                      // a link
			"for i in 1 2 3 4 5 6 7 8 9; do cp N x; mv x N; done", // often
		)
		return fmt.Sprintf("%q of %s", how, name), h.writeFiles, h.shell("cd " + dir + "; " + strings.ReplaceAll(how, "N", name))
	}},
	{name: "as JSON", place: "files", names: nobody, do: func(h *host, r *rand.Rand) (string, func() error, error) {
		text, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": "other", "annotations": map[string]string{"a": "<\u2028\U0001F600/>"}},
			"spec": map[string]any{"ports": []any{map[string]any{"port": 80}}}})
		if err != nil {
			return "", nil, err
		}
		return "a Service with escapes", h.writeFiles, h.write(r, "service.json", strings.ReplaceAll(string(text), "/", `\/`))
	}},
}

// write writes a file as people do: by a rename, in place, or over it.
func (h *host) write(r *rand.Rand, name, text string) error {
	path := h.path(name)
	switch r.IntN(3) {
	case 0:
		return os.WriteFile(path, []byte(text), 0o644)
	case 1:
		_ = os.Remove(path) // there may be none
		return os.WriteFile(path, []byte(text), 0o644)
	}
	return lab.Replace(path, text)
}

// writeSlowly writes a file in place, in pieces, as a slow network does.
func writeSlowly(path, text string, pieces int, each time.Duration) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for i := range pieces {
		if i > 0 {
			time.Sleep(each)
		}
		if _, err := f.WriteString(text[len(text)*i/pieces : len(text)*(i+1)/pieces]); err != nil {
			return err
		}
	}
	return f.Close()
}

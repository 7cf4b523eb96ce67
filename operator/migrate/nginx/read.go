// SPDX-License-Identifier: Apache-2.0

// Package nginx reads what nginx's stream module is configured to do, by
// https://nginx.org/en/docs/stream/ngx_stream_core_module.html and the pages of the modules
// beside. It has all of nginx's syntax: quotes, escapes, variables, includes, what nginx -T
// prints. Blocks of HTTP and mail are only counted.
package nginx

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// Read returns what the files do. Relative includes begin at the directory of the first one.
// Files that no other one includes are read by themselves.
func Read(files []migrate.File) *migrate.Plan {
	dir := "."
	if len(files) > 0 {
		dir = path.Dir(files[0].Name)
	}
	return ReadIn([]string{dir}, files)
}

// ReadIn is Read with directories that relative includes begin at: see Candidates.
func ReadIn(dirs []string, files []migrate.File) *migrate.Plan {
	r := &reader{plan: &migrate.Plan{}}
	x := &includer{plan: r.plan, dirs: dirs, trees: map[string][]*directive{}, used: map[string]bool{}}
	for _, given := range files {
		for i, f := range undump(given) {
			f.Name = path.Clean(f.Name)
			if i == 0 && f.Name != path.Clean(given.Name) { // nginx -T: its own directory
				x.dirs = append(slices.Clip(x.dirs), path.Dir(f.Name))
			}
			if _, again := x.trees[f.Name]; again {
				continue
			}
			tree, err := parse(f)
			if err != nil {
				r.plan.Broken = true
				r.plan.Note(err.Place, migrate.Lost, "%s: nginx would not take it: mend it, and try nginx -t", err.text)
			}
			x.names = append(x.names, f.Name)
			x.trees[f.Name] = append([]*directive{}, tree...)
		}
	}
	if r.plan.Broken {
		return r.plan
	}
	roots := map[string][]*directive{}
	for _, name := range x.names {
		roots[name] = x.expand(x.trees[name], []string{name}, 0)
	}
	if r.plan.Broken {
		return r.plan
	}
	for _, name := range x.names {
		if !x.used[name] || len(x.names) == 1 {
			r.main(roots[name])
		}
	}
	return r.plan
}

// reader makes a plan of directives.
type reader struct {
	plan *migrate.Plan
}

// main reads what is outside of all blocks.
func (r *reader) main(tree []*directive) {
	var bare []*directive // of a file that belongs into stream {}
	var process []*directive
	for _, d := range tree {
		switch {
		case d.name == "stream" && d.blocky:
			r.stream(d.block)
		case d.name == "http" || d.name == "mail":
			r.other(d)
		case isProcess(d.name):
			process = append(process, d)
		default:
			bare = append(bare, d)
		}
	}
	r.processes(process)
	switch {
	case len(bare) == 0:
	case isHTTP(bare):
		r.other(&directive{Place: bare[0].Place, name: "http", block: bare})
	default:
		r.stream(bare)
	}
}

// processes says that nginx's processes need no counterpart, in one note.
func (r *reader) processes(all []*directive) {
	if len(all) == 0 {
		return
	}
	var names []string
	for _, d := range all {
		names = append(names, d.name)
	}
	slices.Sort(names)
	r.plan.Note(all[0].Place, migrate.Unneeded, "%s: about the processes, files and modules of nginx itself", strings.Join(slices.Compact(names), ", "))
}

// other says what becomes of a block of HTTP or mail: it stays with nginx.
func (r *reader) other(d *directive) {
	servers := 0
	var ports []string
	for _, s := range d.block {
		if s.name != "server" || !s.blocky {
			continue
		}
		servers++
		for _, l := range s.block {
			if l.name == "listen" && len(l.args) > 0 && !slices.Contains(ports, l.args[0]) {
				ports = append(ports, phrase.Clip(l.args[0], 64))
			}
		}
	}
	if servers == 0 {
		r.plan.Note(d.Place, migrate.Unneeded, "%s: it has no server", d.name)
		return
	}
	at := ""
	if len(ports) > 0 {
		at = " at " + phrase.Sample(ports)
	}
	if d.name == "mail" {
		r.plan.Note(d.Place, migrate.Lost, "mail: %s%s: Blixt is no mail proxy: leave them with nginx", phrase.Count(servers, "server"), at)
		return
	}
	r.plan.Note(d.Place, migrate.Lost, "http: %s%s: Blixt reads no HTTP, which takes an HTTPRoute and a proxy that serves it: leave them with nginx, which Blixt can balance by a TCPRoute", phrase.Count(servers, "server"), at)
}

// isHTTP reports whether directives outside of all blocks are those of a file that is included
// in http {}.
func isHTTP(tree []*directive) bool {
	for _, d := range tree {
		for _, in := range d.block {
			switch in.name {
			case "location", "root", "index", "try_files", "fastcgi_pass", "rewrite":
				return true
			}
		}
	}
	return false
}

// refuse says why nginx would not take the files. Nothing is written of them.
func (r *reader) refuse(d *directive, format string, args ...any) {
	r.plan.Broken = true
	r.plan.Note(d.Place, migrate.Lost, "%s: nginx would not take it: %s: mend it, and try nginx -t", d, fmt.Sprintf(format, args...))
}

// single are directives that a block has once. So are those of proxy_ but for proxy_ssl_conf_command.
var single = []string{"ssl_preread", "preread_timeout", "preread_buffer_size", "tcp_nodelay", "limit_conn_dry_run"}

// once refuses what nginx calls duplicate: which of two would hold is not known.
func (r *reader) once(block []*directive) {
	first := map[string]*directive{}
	for _, d := range block {
		if !slices.Contains(single, d.name) && (!strings.HasPrefix(d.name, "proxy_") || d.name == "proxy_ssl_conf_command") {
			continue
		}
		if was := first[d.name]; was != nil {
			r.refuse(d, "%s is there already, at %s", d.name, was.Place)
			return
		}
		first[d.name] = d
	}
}

// SPDX-License-Identifier: Apache-2.0

// Package haproxy reads configurations of HAProxy: what its proxies in mode tcp serve.
//
// The words are those of HAProxy's configuration manual, https://docs.haproxy.org, of
// versions 2.6 to 3.2.
package haproxy

import (
	"path"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// Read returns what the files serve, in the order in which HAProxy reads them. A file that an
// ACL names with -f is a list of addresses, not a configuration.
func Read(files []migrate.File) *migrate.Plan {
	r := &reader{plan: &migrate.Plan{}, env: environment{}, named: map[string]*section{}}
	lists := givenLists(files)
	for _, file := range files {
		if !lists.has(file.Name) {
			r.read(file)
		}
	}
	b := builder{plan: r.plan, proxies: map[string]*proxy{}, used: map[*proxy]bool{}, gateways: map[string]bool{}, tables: map[string]*proxy{}, open: map[migrate.Place]*rule{}, decides: map[migrate.Place]bool{}}
	var all []*proxy
	weight := 0
	for _, s := range r.sections {
		if weight += s.weigh(); weight > maxStatements {
			r.plan.Broken = true
			r.plan.Note(s.Place, migrate.Lost, "%s: sections have, with what they inherit, more than %s statements: give fewer files", quote(s.text), phrase.Number(maxStatements))
			return r.plan
		}
		switch s.kind() {
		case "frontend", "backend", "listen":
			p := newProxy(s, lists)
			all = append(all, p)
			if p.table != nil {
				b.tables[p.name()] = p
			}
			if p.roles&backend != 0 && b.proxies[p.name()] == nil {
				b.proxies[p.name()] = p
			}
		case "defaults":
			if !s.used {
				r.plan.Note(s.Place, migrate.Unneeded, "%s: nothing inherits from it", quote(s.text))
			}
		case "global":
			noteGlobal(r.plan, s)
		default:
			if say, ok := sectionSayings[s.kind()]; ok {
				r.plan.Note(s.Place, say.effect, "%s: %s", quote(s.text), say.say)
			} else {
				r.plan.Note(s.Place, migrate.Lost, "%s is no section that is known: see what it does", quote(s.text))
			}
		}
	}
	for _, p := range all {
		if p.roles&frontend != 0 {
			b.frontends(p)
		}
	}
	b.noteIdle()
	b.unused(all)
	return r.plan
}

// What hostile files may cost: statements with those that are inherited, servers and notes of
// all frontends together, and questions about networks.
const (
	maxStatements = 1_000_000
	maxServers    = 500_000
	maxQuestions  = 50_000_000
)

// lists are files with addresses, by the names that ACLs give them.
type lists map[string][]byte

// givenLists returns the files that ACLs name. A name without its directories is enough, as
// people copy lists from elsewhere.
func givenLists(files []migrate.File) lists {
	byName := map[string]migrate.File{}
	for _, f := range files {
		byName[path.Base(f.Name)] = f
	}
	all := lists{}
	for _, f := range files {
		for line := range strings.Lines(string(f.Text)) {
			if !strings.Contains(line, "-f") {
				continue
			}
			words, err := lex(strings.TrimRight(line, "\n"), nil)
			if err != nil {
				continue
			}
			for i, w := range words.words[:max(0, len(words.words)-1)] {
				if name := words.words[i+1]; w == "-f" {
					if given, ok := byName[path.Base(name)]; ok && given.Name != f.Name {
						all[name] = given.Text
						all[given.Name] = given.Text
					}
				}
			}
		}
	}
	return all
}

func (l lists) has(name string) bool { _, ok := l[name]; return ok }

// globalLost are statements of section global that do something for connections.
var globalLost = map[string]string{
	"lua-load":            "no scripts are run",
	"lua-load-per-thread": "no scripts are run",
	"module-load":         "no modules are loaded",
}

// noteGlobal says what becomes of section global.
func noteGlobal(plan *migrate.Plan, s *section) {
	seen := map[string]bool{}
	var unneeded []string
	for _, v := range s.body {
		name := v.words[0]
		if why := globalLost[name]; why != "" {
			plan.Note(v.Place, migrate.Lost, "%s: %s", quote(v.text), why)
			continue
		}
		if !seen[name] && len(unneeded) < 40 {
			seen[name] = true
			unneeded = append(unneeded, name)
		}
	}
	if len(unneeded) > 0 {
		plan.Note(s.Place, migrate.Unneeded, "%s: %s: for HAProxy's process alone; blixt status and its metrics take the place of its statistics", quote(s.text), quote(strings.Join(unneeded, ", ")))
	}
}

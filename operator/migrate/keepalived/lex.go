// SPDX-License-Identifier: Apache-2.0

package keepalived

import (
	"path"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// node is a statement: its words and, if it has braces, what is between them.
type node struct {
	migrate.Place
	words []string
	// only is the condition of a line that begins with @, or "".
	only string
	body []*node
}

// head returns the first words of the statement, for notes.
func (n *node) head(count int) string {
	return migrate.Quote(strings.Join(n.words[:min(count, len(n.words))], " "))
}

// word returns one of the words, or "".
func (n *node) word(i int) string {
	if i < len(n.words) {
		return n.words[i]
	}
	return ""
}

// The bounds of what definitions and includes may lead to: keepalived has none.
const (
	maxExpanded = 4 << 20 // bytes, and lines
	maxDepth    = 50
)

// maxWords is how many words and lines there may be.
const maxWords = 1_000_000

// parser makes a tree of files.
type parser struct {
	plan  *migrate.Plan
	files []migrate.File
	// definitions are those of "$NAME=VALUE".
	definitions map[string]string
	expanded    int      // bytes and lines that definitions and includes stand for
	reading     []string // files that include each other
	read        map[string]bool
	count       int // of words and lines

	root node
	open []*node // blocks that have begun, the outermost first
	last *node   // the statement before, for a brace in the next line
}

// spend counts what definitions and includes stand for. It reports whether there may be more.
func (p *parser) spend(at migrate.Place, n int) bool {
	before := p.expanded
	p.expanded += n + 1
	if before <= maxExpanded && p.expanded > maxExpanded {
		p.plan.Broken = true
		p.plan.Note(at, migrate.Lost, "definitions and includes stand for more than %d MiB: write what they stand for", maxExpanded>>20)
	}
	return p.expanded <= maxExpanded
}

// room counts words and lines. It reports whether there may be more.
func (p *parser) room(at migrate.Place, n int) bool {
	before := p.count
	p.count += n
	if before <= maxWords && p.count > maxWords {
		p.plan.Broken = true
		p.plan.Note(at, migrate.Lost, "there are more than %s words: give fewer files", phrase.Number(maxWords))
	}
	return p.count <= maxWords
}

// file takes a file, with what it includes.
func (p *parser) file(f migrate.File) {
	p.read[f.Name] = true
	p.reading = append(p.reading, f.Name)
	defer func() { p.reading = p.reading[:len(p.reading)-1] }()
	lines := strings.Split(string(f.Text), "\n")
	for i := 0; i < len(lines); i++ {
		at := migrate.Place{File: f.Name, Line: i + 1}
		text := strings.TrimSpace(lines[i])
		if name, value, ok := definition(text); ok {
			for strings.HasSuffix(value, `\`) && i+1 < len(lines) { // it has more lines
				i++
				value = strings.TrimSuffix(value, `\`) + "\n" + strings.TrimSpace(lines[i])
			}
			p.definitions[name] = strings.TrimPrefix(value, "\n")
			continue
		}
		p.line(at, text, 0)
	}
}

// definition takes "$NAME=VALUE".
func definition(text string) (name, value string, ok bool) {
	if !strings.HasPrefix(text, "$") {
		return "", "", false
	}
	name, value, ok = strings.Cut(text[1:], "=")
	return name, strings.TrimSpace(value), ok && isName(name)
}

func isName(text string) bool {
	return text != "" && strings.TrimLeft(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// line takes a line, or one of a definition that stands in it.
func (p *parser) line(at migrate.Place, text string, depth int) {
	if !p.room(at, 1) {
		return
	}
	if len(p.open) > maxDepth {
		p.plan.Note(at, migrate.Lost, "blocks are more than %d deep: the line is left out", maxDepth)
		return
	}
	only := ""
	if text = strings.TrimSpace(text); strings.HasPrefix(text, "@") {
		only, text, _ = strings.Cut(text, " ")
	}
	if strings.HasPrefix(text, "~SEQ") || strings.HasPrefix(text, "~LST") {
		p.plan.Note(at, migrate.Lost, "%s is left out: write the lines that it stands for", migrate.Quote(text))
		return
	}
	result, changed := p.substitute(at, text)
	if changed {
		if depth == maxDepth {
			p.plan.Note(at, migrate.Lost, "%s is left out: definitions stand for each other without end", migrate.Quote(text))
			return
		}
		for inner := range strings.SplitSeq(result, "\n") {
			if name, value, ok := definition(strings.TrimSpace(inner)); ok {
				p.definitions[name] = value
				continue
			}
			p.line(at, strings.TrimSpace(only+" "+inner), depth+1)
		}
		return
	}
	p.statements(at, only, words(text))
}

// substitute puts the values of definitions in the place of $NAME and ${NAME}. What is not
// defined stays.
func (p *parser) substitute(at migrate.Place, text string) (result string, changed bool) {
	if !strings.Contains(text, "$") {
		return text, false
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "$")
		b.WriteString(before)
		if !found {
			break
		}
		name, rest, ok := reference(after)
		value, defined := p.definitions[name]
		switch {
		case !ok || !defined:
			b.WriteByte('$')
			text = after
			continue
		case !p.spend(at, len(value)):
			return "", true
		}
		changed = true
		b.WriteString(value)
		text = rest
	}
	return b.String(), changed
}

// reference returns the name at the beginning of a text behind "$", and what follows.
func reference(text string) (name, rest string, ok bool) {
	if strings.HasPrefix(text, "{") {
		name, rest, ok = strings.Cut(text[1:], "}")
		return name, rest, ok
	}
	end := strings.IndexAny(text, " \t\n")
	if end < 0 {
		end = len(text)
	}
	return text[:end], text[end:], end > 0
}

// words cuts a line into words and braces. Comments begin with # or !.
func words(text string) (all []string) {
	var b strings.Builder
	begun, quote := false, byte(0)
	end := func() {
		if begun {
			all = append(all, b.String())
			b.Reset()
			begun = false
		}
	}
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\' && i+1 < len(text):
			i++
			begun = true
			b.WriteByte(text[i])
		case quote != 0:
			b.WriteByte(c)
		case c == '"' || c == '\'':
			quote, begun = c, true
		case c == '#' || c == '!':
			end()
			return all
		case c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v':
			end()
		case (c == '{' || c == '}') && !begun:
			all = append(all, string(c))
		default:
			begun = true
			b.WriteByte(c)
		}
	}
	end()
	return all
}

// statements adds the statements of a line to the block that is open.
func (p *parser) statements(at migrate.Place, only string, all []string) {
	if !p.room(at, len(all)) {
		return
	}
	var current []string
	flush := func() {
		if len(current) > 0 {
			p.add(&node{Place: at, words: current, only: only})
			current = nil
		}
	}
	for _, w := range all {
		switch w {
		case "{":
			if flush(); p.last == nil {
				p.last = &node{Place: at, words: []string{"{"}}
			}
			p.open = append(p.open, p.last)
			p.last = nil
		case "}":
			flush()
			if len(p.open) == 0 {
				p.plan.Note(at, migrate.Lost, "} closes no block: correct the braces")
				break
			}
			p.open = p.open[:len(p.open)-1]
			p.last = nil
		default:
			current = append(current, w)
		}
	}
	flush()
}

func (p *parser) add(n *node) {
	if isInclude(n.words[0]) && len(n.words) == 2 {
		p.include(n)
		return
	}
	p.last = n
	parent := &p.root
	if len(p.open) > 0 {
		parent = p.open[len(p.open)-1]
	}
	parent.body = append(parent.body, n)
}

// include takes the files that are named, and were given.
func (p *parser) include(n *node) {
	found := matching(p.files, n.File, n.words[1])
	if len(found) == 0 {
		p.plan.Note(n.Place, migrate.Lost, "%s: there is no such file among those that were given: name it, too", n.head(2))
	}
	for _, f := range found {
		switch {
		case slices.Contains(p.reading, f.Name):
			p.plan.Note(n.Place, migrate.Lost, "%s: the file includes itself: it is read once", n.head(2))
		case p.spend(n.Place, len(f.Text)):
			p.file(f)
		}
	}
}

// matching returns the files that a pattern means in a file, in order. Names are relative to
// the file that has them. A file that was copied from elsewhere is known by its own name.
func matching(files []migrate.File, from, pattern string) (found []migrate.File) {
	for _, wanted := range Candidates(from, pattern) {
		for _, f := range files {
			if ok, err := path.Match(wanted, path.Clean(f.Name)); err == nil && ok {
				found = append(found, f)
			}
		}
		if found != nil {
			return found
		}
	}
	if strings.ContainsAny(path.Base(pattern), "*?[") {
		return nil
	}
	for _, f := range files {
		if path.Base(f.Name) == path.Base(pattern) && f.Name != from {
			return []migrate.File{f}
		}
	}
	return nil
}

// Candidates returns where the files of an include may be: beside the file that has it, if
// the pattern is relative.
func Candidates(from, pattern string) []string {
	if path.IsAbs(pattern) {
		return []string{path.Clean(pattern)}
	}
	return []string{path.Join(path.Dir(from), pattern)}
}

// Includes returns the patterns of a file's includes.
func Includes(f migrate.File) (all []string) {
	for line := range strings.Lines(string(f.Text)) {
		if !strings.HasPrefix(strings.TrimSpace(line), "include") {
			continue
		}
		if w := words(strings.TrimSpace(line)); len(w) == 2 && isInclude(w[0]) {
			all = append(all, w[1])
		}
	}
	return all
}

// isInclude reports whether a word is include, or one of its variants that check more.
func isInclude(word string) bool {
	switch word {
	case "include", "includer", "includem", "includew", "includeb", "includea":
		return true
	}
	return false
}

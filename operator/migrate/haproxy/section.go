// SPDX-License-Identifier: Apache-2.0

package haproxy

import (
	"bytes"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// statement is a line of a section.
type statement struct {
	migrate.Place
	lexed
	text string // as it was written, for notes
}

// head returns the keyword of the statement, and the name of the server that it is about, if it is
// about one.
func (s *statement) head() string {
	if s.words[0] == "server" || s.words[0] == "server-template" {
		return migrate.Clip(strings.Join(s.words[:min(2, len(s.words))], " "))
	}
	return migrate.Clip(s.words[0])
}

// of returns a part of the statement, in quotes, and what it is a part of.
func (s *statement) of(part string) string {
	if strings.HasPrefix(part, s.words[0]) { // it is all of it
		return quote(part)
	}
	return quote(part) + " of " + s.head()
}

// section is a line such as "frontend web", with the statements that follow.
type section struct {
	statement
	defaults *section // from which a proxy, or other defaults, inherit
	used     bool     // defaults from which something inherits
	body     []statement
	weight   int // see weigh
	// unread is a rule about who is kept out, in a block of which it is not known whether it
	// holds; "": there is none.
	unread string
}

// unreadRule returns that of a section, or what it inherits.
func (s *section) unreadRule() string {
	for ; s != nil; s = s.defaults {
		if s.unread != "" {
			return s.unread
		}
	}
	return ""
}

func (s *section) kind() string { return s.words[0] }

// name returns that of the section, or "".
func (s *section) name() string {
	if len(s.words) > 1 && s.words[1] != "from" {
		return s.words[1]
	}
	return ""
}

// sectionKinds are all of HAProxy's, of versions 2.6 to 3.2.
var sectionKinds = []string{
	"global", "defaults", "frontend", "backend", "listen", "peers", "resolvers", "userlist", "mailers", "program", "cache", "http-errors",
	"ring", "fcgi-app", "log-forward", "log-profile", "crt-store", "traces", "acme", "dynamic-update", "ruleset",
}

// reader takes files apart.
type reader struct {
	plan     *migrate.Plan
	env      environment
	sections []*section
	current  *section
	// lastDefaults are what proxies without a "from" inherit from, and named those with a name.
	lastDefaults *section
	named        map[string]*section
	// blocks are the conditional ones that the line is in.
	blocks []block
}

// block is .if to .endif.
type block struct {
	statement
	outside bool // what is around it is skipped
	skip    bool // and so is what is in it
	taken   bool // a branch of it is read: no other one is
	unknown bool // whether a branch holds is not known
}

// maxWords is how many words HAProxy takes in a line.
const maxWords = 64

// read takes a file apart. Its first line belongs to no section.
func (r *reader) read(file migrate.File) {
	r.current = nil
	r.env[".FILE"] = file.Name
	n := 0
	for text := range bytes.SplitSeq(file.Text, []byte("\n")) {
		n++
		r.env[".LINE"] = strconv.Itoa(n)
		r.line(migrate.Place{File: file.Name, Line: n}, string(text))
	}
	for _, b := range r.blocks {
		r.plan.Note(b.Place, migrate.Lost, "%s has no .endif: all that follows in the file is left out: add the line", quote(b.text))
	}
	r.blocks = nil
}

func (r *reader) line(at migrate.Place, text string) {
	words, err := lex(text, r.env)
	if err != nil {
		r.plan.Broken = true
		r.plan.Note(at, migrate.Lost, "%s: %v: HAProxy would not start: correct it", quote(text), err)
		return
	}
	switch {
	case len(words.words) == 0:
		return
	case len(words.words) > maxWords:
		r.plan.Broken = true
		r.plan.Note(at, migrate.Lost, "%s: the line has more than %d words: HAProxy would not start: divide it", quote(text), maxWords)
		return
	}
	s := statement{at, words, text}
	switch keyword := s.words[0]; {
	case strings.HasPrefix(keyword, "."):
		r.macro(s)
	case r.skips():
		if (keyword == "tcp-request" || keyword == "acl") && r.current != nil && slices.ContainsFunc(r.blocks, func(b block) bool { return b.unknown }) {
			r.current.unread = s.text
		}
	case slices.Contains(sectionKinds, keyword):
		r.begin(s)
	case r.current == nil:
		r.plan.Note(at, migrate.Lost, "%s stands before the first section of the file: HAProxy would not start: write frontend, backend or another section before it", quote(text))
	default:
		if r.current.kind() == "global" {
			r.environment(s)
		}
		r.current.body = append(r.current.body, s)
	}
}

// begin begins a section.
func (r *reader) begin(s statement) {
	sect := &section{statement: s}
	r.current = sect
	r.sections = append(r.sections, sect)
	r.env[".SECTION"] = sect.name()
	if sect.name() == "" {
		r.env[".SECTION"] = sect.kind()
	}
	if !slices.Contains([]string{"defaults", "frontend", "backend", "listen"}, sect.kind()) {
		return
	}
	if i := slices.Index(s.words, "from"); i >= 1 && i+1 < len(s.words) {
		sect.defaults = r.named[s.words[i+1]]
		if sect.defaults == nil {
			r.plan.Note(s.Place, migrate.Lost, "%s: there are no defaults %s before it: HAProxy would not start: correct the name", quote(s.text), quote(s.words[i+1]))
		}
	} else if sect.kind() != "defaults" {
		sect.defaults = r.lastDefaults
	}
	if sect.defaults != nil {
		sect.defaults.used = true
	}
	if sect.kind() == "defaults" {
		r.lastDefaults = sect
		if sect.name() != "" {
			r.named[sect.name()] = sect
		}
	}
}

// environment follows what section global does to variables.
func (r *reader) environment(s statement) {
	switch keyword := s.words[0]; {
	case (keyword == "setenv" || keyword == "presetenv") && len(s.words) == 3 && s.unknown == "":
		r.env[s.words[1]] = s.words[2]
	case keyword == "unsetenv":
		for _, name := range s.words[1:] {
			delete(r.env, name)
		}
	}
}

func (r *reader) skips() bool {
	return len(r.blocks) > 0 && r.blocks[len(r.blocks)-1].skip
}

// macro follows conditional blocks. What a condition asks for, such as the environment, is
// known for constants only. Of any other block nothing is read.
func (r *reader) macro(s statement) {
	last := len(r.blocks) - 1
	switch keyword := s.words[0]; keyword {
	case ".if":
		if r.skips() {
			r.blocks = append(r.blocks, block{statement: s, outside: true, skip: true, taken: true})
			return
		}
		value, known := constant(s.words[1:])
		if !known {
			r.plan.Note(s.Place, migrate.Lost, "%s: whether this holds is known to HAProxy alone: nothing up to its .endif is read: remove .if, .else and .endif, and what is between them and does not hold", quote(s.text))
		}
		r.blocks = append(r.blocks, block{statement: s, skip: !known || !value, taken: !known || value, unknown: !known})
	case ".elif", ".else", ".endif":
		if last < 0 {
			r.plan.Note(s.Place, migrate.Lost, "%s stands without .if: HAProxy would not start: remove it", quote(s.text))
			return
		}
		b := &r.blocks[last]
		if keyword == ".endif" {
			r.blocks = r.blocks[:last]
			return
		}
		value, known := true, true
		if keyword == ".elif" && !b.taken {
			if value, known = constant(s.words[1:]); !known {
				r.plan.Note(s.Place, migrate.Lost, "%s: whether this holds is known to HAProxy alone: nothing up to its .endif is read: remove .if, .else and .endif, and what is between them and does not hold", quote(s.text))
			}
		}
		b.skip = b.outside || b.taken || !known || !value
		b.taken = b.taken || !known || value
		b.unknown = b.unknown || !known
	case ".notice", ".warning", ".alert", ".diag":
		if !r.skips() {
			r.plan.Note(s.Place, migrate.Unneeded, "%s is a message of HAProxy when it starts", quote(s.text))
		}
	default:
		if !r.skips() {
			r.plan.Note(s.Place, migrate.Lost, "%s is no directive that is known: write what it stands for", quote(s.text))
		}
	}
}

// constant returns the value of a condition that is a number, or nothing.
func constant(words []string) (value, known bool) {
	switch len(words) {
	case 0:
		return false, true
	case 1:
		n, err := strconv.Atoi(words[0])
		return n != 0, err == nil || words[0] == ""
	}
	return false, false
}

// secrets are words after which the rest of a line is nobody's business: notes go into files
// that people share. Checks send passwords.
var secrets = []string{"auth", "password", "insecure-password", "cluster-secret", "secret", "setenv", "presetenv", "send", "send-lf", "send-binary", "send-binary-lf"}

// credentials is where they begin in a header of a check.
var credentials = regexp.MustCompile(`(?i)(authorization|auth-token|api-key|cookie:).+`)

// quote returns what was written, in quotes, without secrets, and not too long.
func quote(text string) string {
	text = text[:min(len(text), 4096)]
	for _, secret := range secrets {
		if before, _, found := strings.Cut(text, secret+" "); found && (before == "" || strings.HasSuffix(before, " ")) {
			text = before + secret + " …"
		}
	}
	if line, _, found := strings.Cut(text, `\r\n`); found { // headers of a check
		text = line + " …"
	}
	text = credentials.ReplaceAllString(text, "$1 …")
	return migrate.Quote(strings.Join(strings.Fields(text), " "))
}

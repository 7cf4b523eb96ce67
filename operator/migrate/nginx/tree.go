// SPDX-License-Identifier: Apache-2.0

package nginx

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// directive is a name with arguments and, perhaps, a block.
type directive struct {
	migrate.Place
	name  string
	args  []string
	block []*directive
	// blocky is true if there is a block, which may be empty.
	blocky bool
}

// String returns the directive as it was written, shortened.
func (d *directive) String() string {
	return phrase.Clip(phrase.Printable(strings.Join(append([]string{d.name}, d.args...), " ")), 120)
}

// maxDepth is how deep blocks may be in each other, and files in each other.
const maxDepth = 64

// parse returns the directives of a file, or of one that is broken what is before that.
func parse(f migrate.File) (all []*directive, err *broken) {
	root := &directive{}
	open := []*directive{root}
	var d *directive
	l := &lexer{text: bytes.TrimPrefix(f.Text, []byte("\ufeff")), line: 1}
	fail := func(line int, format string, args ...any) ([]*directive, *broken) {
		return root.block, &broken{migrate.Place{File: f.Name, Line: line}, fmt.Sprintf(format, args...)}
	}
	for {
		w, more, err := l.next()
		in := open[len(open)-1]
		switch {
		case err != nil:
			return fail(w.line, "%s", err)
		case !more && d != nil:
			return fail(d.Line, "%s has no ; at its end", d)
		case !more && len(open) > 1:
			return fail(in.Line, "the { of %s has no }", in)
		case !more:
			return root.block, nil
		case w.special == 0 && d == nil:
			d = &directive{Place: migrate.Place{File: f.Name, Line: w.line}, name: w.text}
		case w.special == 0:
			d.args = append(d.args, w.text)
		case w.special == '}' && d != nil:
			return fail(d.Line, "%s has no ; at its end", d)
		case w.special == '}' && len(open) == 1:
			return fail(w.line, "there is a } without a {")
		case w.special == '}':
			open = open[:len(open)-1]
		case d == nil:
			return fail(w.line, "there is a %c where a directive begins", w.special)
		case w.special == ';':
			in.block = append(in.block, d)
			d = nil
		default:
			in.block = append(in.block, d)
			if d.blocky = true; strings.HasSuffix(d.name, "_by_lua_block") {
				if !l.skipLua() {
					return fail(d.Line, "the { of %s has no }", d)
				}
			} else if open = append(open, d); len(open) > maxDepth {
				return fail(d.Line, "blocks are in each other more than %d deep", maxDepth)
			}
			d = nil
		}
	}
}

// broken says what is wrong with a file, and where.
type broken struct {
	migrate.Place
	text string
}

// dumped is the line before each file of nginx -T.
var dumped = regexp.MustCompile(`(?m)^# configuration file (.+):\r?$`)

// undump returns the files that nginx -T has printed, each with its own lines; of any other
// text, the file as it is.
func undump(f migrate.File) []migrate.File {
	marks := dumped.FindAllSubmatchIndex(f.Text, -1)
	if len(marks) == 0 {
		return []migrate.File{f}
	}
	var all []migrate.File
	for i, m := range marks {
		end := len(f.Text)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		text := f.Text[m[1]:end]
		if len(text) > 0 {
			text = text[1:] // the line's own end
		}
		all = append(all, migrate.File{Name: string(f.Text[m[2]:m[3]]), Text: text})
	}
	return all
}

// maxDirectives is how many there may be, with those of included files each time that they are
// included.
const maxDirectives = 500_000

// includer puts the directives of files where the files are included.
type includer struct {
	plan  *migrate.Plan
	dirs  []string // that relative names begin at
	trees map[string][]*directive
	names []string // of the files, in order
	used  map[string]bool
	count int
	// quiet is true in blocks that are not read: nobody misses a file there.
	quiet bool
}

func (x *includer) lost(d *directive, format string, args ...any) {
	if !x.quiet {
		x.plan.Note(d.Place, migrate.Lost, format, args...)
	}
}

// expand returns the directives with those that they include, in all blocks. within are the
// files that the directives are in.
func (x *includer) expand(all []*directive, within []string, depth int) (out []*directive) {
	for _, d := range all {
		if x.count++; x.count > maxDirectives {
			if x.count == maxDirectives+1 {
				x.plan.Broken = true
				x.plan.Note(d.Place, migrate.Lost, "there are more than %s directives, with those of files each time that they are included: that is too many", phrase.Number(maxDirectives))
			}
			return out
		}
		switch {
		case d.name == "include" && !d.blocky:
			out = append(out, x.include(d, within, depth)...)
			continue
		case d.blocky:
			was := x.quiet
			x.quiet = was || depth == 0 && d.name != "stream"
			copied := *d
			copied.block = x.expand(d.block, within, depth+1)
			d, x.quiet = &copied, was
		}
		out = append(out, d)
	}
	return out
}

func (x *includer) include(d *directive, within []string, depth int) (out []*directive) {
	if len(d.args) != 1 {
		x.lost(d, "%s: an include names one file", d)
		return nil
	}
	files := x.find(d.args[0])
	if len(files) == 0 && !isPattern(d.args[0]) {
		x.lost(d, "%s: there is no such file here: give it, too, or what nginx -T prints, which is all files", d)
		return []*directive{d} // who is kept out there is not known
	}
	if len(files) == 0 && !x.quiet {
		x.plan.Note(d.Place, migrate.Unneeded, "%s: no file is called so here. If there are some, give them, too", d)
	}
	for _, name := range files {
		x.used[name] = true
		if slices.Contains(within, name) {
			x.lost(d, "%s: the file includes itself: that is left out", d)
			continue
		}
		if len(within) > maxDepth || depth > 2*maxDepth {
			x.lost(d, "%s: files are in each other more than %d deep: what is deeper is left out", d, maxDepth)
			return out
		}
		out = append(out, x.expand(x.trees[name], append(slices.Clip(within), name), depth)...)
	}
	return out
}

func isPattern(name string) bool { return strings.ContainsAny(name, "*?[") }

// find returns the files that an include names.
func (x *includer) find(pattern string) (found []string) {
	for _, p := range Candidates(pattern, x.dirs) {
		if x.trees[p] != nil && !isPattern(p) {
			return []string{p}
		}
		if isPattern(p) {
			x.count += len(x.names)
			found = slices.DeleteFunc(slices.Clone(x.names), func(name string) bool {
				ok, err := path.Match(p, name)
				return err != nil || !ok
			})
		}
		if len(found) > 0 {
			slices.Sort(found)
			return found
		}
	}
	return nil
}

// installed is where packages put nginx's configuration.
const installed = "/etc/nginx"

// Candidates returns the paths or patterns that an include may mean: the first one counts of
// which there is a file. Relative names begin at the directories; so do names below /etc/nginx,
// as files may be a copy of another host's.
func Candidates(pattern string, dirs []string) (all []string) {
	rest := pattern
	if path.IsAbs(pattern) {
		all = []string{path.Clean(pattern)}
		below := false
		if rest, below = strings.CutPrefix(pattern, installed+"/"); !below {
			return all
		}
	}
	for _, dir := range dirs {
		all = append(all, path.Join(dir, rest))
	}
	return append(all, path.Join(installed, rest))
}

// Includes returns the names and patterns of the files that a file includes.
func Includes(f migrate.File) (all []string) {
	for _, f := range undump(f) {
		tree, _ := parse(f) // Read says what is wrong
		collect(tree, &all)
	}
	return all
}

func collect(tree []*directive, all *[]string) {
	for _, d := range tree {
		if d.name == "include" && len(d.args) == 1 {
			*all = append(*all, d.args[0])
		}
		collect(d.block, all)
	}
}

// number returns a decimal number without a sign.
func number(text string) (int, bool) {
	n, err := strconv.ParseUint(text, 10, 31)
	return int(n), err == nil
}

// SPDX-License-Identifier: Apache-2.0

// Package source decides which text of each manifest file counts.
//
// A file is read again when it changes: inotify says so, and a look each second finds
// what no event tells of. What somebody is still writing does not count yet. A file that
// is invalid, unreadable, or that defines what another one defines already, counts with
// its last good text, and delays no other file. The last good texts are kept in a
// directory, for a start that finds less than was there before.
package source

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/manifest"
)

const (
	// maxSize is the largest file that is read: 65,536 endpoints take a quarter of it.
	maxSize = 32 << 20
	// stalled is how long a file must not change that somebody has open for writing, until
	// it counts nevertheless.
	stalled = 10 * time.Second
	// paused is the same where it is not known who has the file open.
	paused = 500 * time.Millisecond
	// slowest is how long somebody may keep on writing a file before what is there counts.
	slowest = time.Minute
)

// Stdin is the path that stands for standard input.
const Stdin = "-"

// maxErrors is how many of a file's errors are said.
const maxErrors = 10

// lastGood says what becomes of an error.
const lastGood = "the last good configuration goes on serving: "

// Options are what to read.
type Options struct {
	// Given are texts that are in no file and do not change. They come before all files.
	Given []Given
	// Paths are files, directories, or Stdin, which is read once.
	Paths []string
	// Recursive reads subdirectories, too.
	Recursive bool
	Stdin     io.Reader
	// StateDir keeps the last good text of each file; "": they are not kept.
	StateDir string
	// InsteadOf are the paths that the texts in StateDir are of, one for each of Paths; nil:
	// Paths.
	InsteadOf []string
	// Once is for a process that reads the files once: it writes nothing into StateDir, and
	// waits for nobody who writes a file.
	Once bool
	// FullNames has messages name files as they are to be opened, and not only below the
	// directory that was given.
	FullNames bool
	// MayBeEmpty has Read return no objects, instead of an error, where there are no files
	// and never were.
	MayBeEmpty bool
}

// Given is YAML of objects that come from elsewhere, such as from flags of the command line.
type Given struct {
	// Name is its place in messages, which have no line then. Names differ.
	Name string `json:"name"`
	Text string `json:"text"`
}

// Names returns what is read, as messages call it: with thousands of flags, a few of them.
func (o *Options) Names() []string {
	const most = 10
	names := slices.Clone(o.Paths)
	for i, g := range o.Given {
		if i == most {
			return append(names, fmt.Sprintf("and %d more", len(o.Given)-most))
		}
		names = append(names, g.Name)
	}
	return names
}

// Source is a set of files that change.
type Source struct {
	recursive  bool
	mayBeEmpty bool
	once       bool
	roots      []*root
	store      *store

	mu    sync.Mutex
	files map[string]*file // by path
	// generation counts the changes of what counts. changed is when a file was last seen
	// to change.
	generation int
	changed    time.Time
	complaints manifest.Errors // what is wrong with directories
	reasons    string          // of what is refused, and what is left out
	notes      []string
	dirs       map[string]struct{} // to be watched
	looked     bool

	// out guards what Read returns.
	out    sync.Mutex
	result *Result
	err    error
}

// root is one of Options.Paths, or of Options.Given.
type root struct {
	path   string // absolute, Stdin, or the name of a Given
	arg    string // as it was given
	prefix string // of the names in messages
	// fixed is true for a text that is in no file, such as that of standard input. It does
	// not change.
	fixed bool
}

// file is what is known of a file.
type file struct {
	root *root
	path string // absolute
	name string // in messages

	present bool
	stamp   stamp // of the last read
	confirm bool  // read it again: a write after the read may have left the same stamp
	text    []byte
	broken  *manifest.Error // why it cannot be read
	// writing is since when it is being written, changed when it changed last.
	writing, changed time.Time

	// read is the text that counts, parsed, wrong what is wrong with it. good is what is or
	// was served.
	read, good *manifest.Set
	wrong      manifest.Errors
	refused    manifest.Errors // why read does not count
	kept       string          // the sum of the text that the store has
}

// Result is what the files say now.
type Result struct {
	// Files are what each file says that counts, in order. That of a file which has not
	// changed is the same one: nobody modifies it.
	Files []*manifest.Set
	// Set returns all of them together. With thousands of files it takes a while.
	Set func() *manifest.Set
	// definedIn returns the file of each object.
	definedIn func() map[string]*manifest.Set
	// Refused says what does not count, one line each, with the cause and with what is
	// done instead.
	Refused []string
	// LeftOut are the policies of files that do not count, and never did.
	LeftOut []manifest.Policy
	// Notes are what is not read, though somebody may have meant it.
	Notes []string
	// Generation differs if what counts differs. Changed is when a file changed last.
	Generation int
	Changed    time.Time
}

// At returns file and line of an object, and of a value, as manifest.Set.At does.
func (r *Result) At(name, value string) string {
	if f := r.definedIn()[name]; f != nil {
		return f.At(name, value)
	}
	return ""
}

// Ignored returns the objects of kinds that Blixt does not read.
func (r *Result) Ignored() (all []manifest.Object) {
	for _, f := range r.Files {
		all = append(all, f.Ignored...)
	}
	return all
}

// Open prepares to read. It returns an error if standard input cannot be read.
func Open(o Options) (*Source, error) {
	s := &Source{recursive: o.Recursive, mayBeEmpty: o.MayBeEmpty, once: o.Once, files: map[string]*file{}, dirs: map[string]struct{}{}}
	for _, g := range o.Given {
		f := s.addFixed(g.Name, g.Name)
		f.read, f.wrong = manifest.ParsePlace(g.Name, []byte(g.Text))
	}
	for _, arg := range o.Paths {
		if arg == Stdin {
			text, err := io.ReadAll(io.LimitReader(o.Stdin, maxSize+1))
			if err == nil && len(text) > maxSize {
				err = tooLarge(int64(len(text)))
			}
			if err != nil {
				return nil, fmt.Errorf("read standard input: %w", err)
			}
			f := s.addFixed(Stdin, "standard input")
			f.read, f.wrong = manifest.Parse(f.name, text)
			continue
		}
		path, err := filepath.Abs(arg)
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", arg, err)
		}
		r := &root{path: path, arg: arg}
		if slices.ContainsFunc(s.roots, func(other *root) bool { return other.path == path }) {
			continue
		}
		if len(o.Paths) > 1 || o.FullNames {
			r.prefix = arg
		}
		s.roots = append(s.roots, r)
	}
	s.store = openStore(o.StateDir, o.Once)
	for kept, text := range s.store.load() {
		for _, r := range s.roots {
			if r.fixed {
				continue
			}
			path := kept
			if i := slices.Index(o.Paths, r.arg); i >= 0 && i < len(o.InsteadOf) {
				path = movedTo(r.path, kept, o.InsteadOf[i])
			}
			if path == r.path || within(path, r.path) {
				f := s.file(r, path)
				set, wrong := manifest.Parse(f.name, []byte(text))
				if wrong == nil {
					f.good, f.kept = set, sum([]byte(text))
				} else {
					delete(s.files, path)
				}
			}
		}
	}
	return s, nil
}

// addFixed adds a text that is in no file.
func (s *Source) addFixed(path, name string) *file {
	r := &root{path: path, arg: path, fixed: true}
	s.roots = append(s.roots, r)
	f := &file{root: r, path: path, name: name, present: true}
	s.files[path] = f
	return f
}

// Close waits until the last good texts are on disk.
func (s *Source) Close() { s.store.close() }

// movedTo returns where a path is if one that it is, or is below, is at root.
func movedTo(root, path, from string) string {
	if path != from && !within(path, from) {
		return ""
	}
	return filepath.Join(root, strings.TrimPrefix(path, from))
}

func within(path, dir string) bool {
	return strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// file returns what is known of a file below a root.
func (s *Source) file(r *root, path string) *file {
	f := s.files[path]
	if f == nil {
		name, err := filepath.Rel(r.path, path)
		if err != nil || name == "." {
			name = ""
		}
		if name = filepath.Join(r.prefix, name); name == "" {
			name = r.arg
		}
		if strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			name = fmt.Sprintf("%q", name)
		}
		f = &file{root: r, path: path, name: name}
		s.files[path] = f
	}
	return f
}

// Read returns what the files said at the last look. It asks no file system, which may
// hang. It returns an error if nothing can be served: nothing is valid, and nothing was
// valid before.
func (s *Source) Read() (*Result, error) {
	s.out.Lock()
	result, err := s.result, s.err
	s.out.Unlock()
	if result != nil || err != nil {
		return result, err
	}
	s.Look()
	return s.Read()
}

// Kept returns why the texts that were good last are not known, or cannot be kept; nil: they
// are.
func (s *Source) Kept() error { return s.store.err() }

// Wrong returns all that is wrong with files and directories, as of the last look.
func (s *Source) Wrong() manifest.Errors {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all manifest.Errors
	for _, f := range s.sorted() {
		all = append(all, f.refused...)
	}
	for _, c := range s.complaints {
		if !c.Unread && len(all) > 0 { // they say why
			continue
		}
		all = append(all, c)
	}
	return all
}

// Look reads all files now, whether or not they seem to have changed.
func (s *Source) Look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look(true)
}

// publish makes what was found the result of Read.
func (s *Source) publish() {
	result := &Result{Notes: s.notes, Generation: s.generation, Changed: s.changed}
	files := []*manifest.Set{}
	var all manifest.Errors
	for _, f := range s.sorted() {
		if f.good != nil {
			files = append(files, f.good)
		}
		if f.good == nil {
			result.LeftOut = append(result.LeftOut, f.read.Policies()...)
		}
		what := "the file is left out: "
		switch {
		case f.good != nil:
			what = lastGood
		case f.root.fixed:
			what = "this is left out: "
		}
		refused := f.refused
		if n := len(refused); n > maxErrors {
			refused = append(slices.Clone(refused[:maxErrors]), &manifest.Error{File: f.name, Reason: fmt.Sprintf("and %d more", n-maxErrors)})
		}
		for _, e := range refused {
			result.Refused = append(result.Refused, what+e.Error())
		}
		all = append(all, refused...)
	}
	for _, c := range s.complaints {
		what := ""
		if slices.ContainsFunc(s.roots, func(r *root) bool { return r.arg == c.File && s.served(r) }) {
			what = lastGood
		}
		result.Refused = append(result.Refused, what+c.Reason)
	}
	result.Files = files
	result.Set = sync.OnceValue(func() *manifest.Set { return manifest.Merge(files) })
	result.definedIn = sync.OnceValue(func() map[string]*manifest.Set {
		all := map[string]*manifest.Set{}
		for _, f := range files {
			for name := range f.Defined() {
				all[name] = f
			}
		}
		return all
	})
	var err error
	if len(files) == 0 && !(s.mayBeEmpty && len(all)+len(s.complaints) == 0) {
		if result, err = nil, all; len(all) == 0 {
			err = errors.New(reasons(s.complaints, "; "))
		}
	}
	s.out.Lock()
	s.result, s.err = result, err
	s.out.Unlock()
}

// reasons returns those of errors, with the separator between them.
func reasons(all manifest.Errors, separator string) string {
	texts := make([]string, len(all))
	for i := range all {
		texts[i] = all[i].Reason
	}
	return strings.Join(texts, separator)
}

// touch makes the time of the last change known to Read.
func (s *Source) touch() {
	s.out.Lock()
	defer s.out.Unlock()
	if s.result != nil && !s.result.Changed.Equal(s.changed) {
		result := *s.result
		result.Changed = s.changed
		s.result = &result
	}
}

// sorted returns the files in the order of the paths that were given, then by name.
func (s *Source) sorted() []*file {
	files := make([]*file, 0, len(s.files))
	for _, f := range s.files {
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b *file) int {
		return cmp.Or(cmp.Compare(slices.Index(s.roots, a.root), slices.Index(s.roots, b.root)), cmp.Compare(a.path, b.path))
	})
	return files
}

// settle decides which files count as they are now. Of two that define the same object the
// one that has served it does, else the first; the other counts with its last good text.
func (s *Source) settle() {
	files := s.sorted()
	use := map[*file]*manifest.Set{}
	for _, f := range files {
		if use[f] = f.good; f.read != nil && f.wrong == nil {
			use[f] = f.read
		}
		f.refused = f.wrong
		if f.broken != nil {
			f.refused = manifest.Errors{f.broken}
		}
	}
	for {
		loser, winner := conflict(files, use)
		if loser == nil {
			break
		}
		loser.refused = append(slices.Clone(loser.refused), use[loser].Duplicate(use[winner]))
		if use[loser] != loser.good {
			use[loser] = loser.good
		} else {
			use[loser] = nil
		}
	}
	for _, f := range files {
		if f.good == use[f] {
			continue
		}
		if f.good = use[f]; f.good != nil && !f.root.fixed && f.kept != sum(f.text) {
			f.kept = sum(f.text)
			s.store.save(f.path, string(f.text))
		}
		s.generation++
	}
	var reasons strings.Builder
	for _, f := range files {
		for _, e := range f.refused {
			fmt.Fprintln(&reasons, e)
		}
		if f.good == nil {
			fmt.Fprintln(&reasons, f.read.Policies())
		}
	}
	s.reasons = reasons.String()
}

// conflict returns the first file that must not define what another one defines; nil: there
// is none.
func conflict(files []*file, use map[*file]*manifest.Set) (loser, winner *file) {
	owners := map[string]*file{}
	for _, f := range files {
		var lost, won []string // what earlier files define, too
		for name := range use[f].Defined() {
			switch owner := owners[name]; {
			case owner == nil:
				owners[name] = f
			case use[f].Agrees(use[owner], name):
			case f.servesInsteadOf(owner, use[owner], name):
				won = append(won, name)
			default:
				lost = append(lost, name)
			}
		}
		if len(lost) > 0 {
			return f, owners[slices.Min(lost)]
		}
		if len(won) > 0 {
			return owners[slices.Min(won)], f
		}
	}
	return nil, nil
}

// servesInsteadOf reports whether the file has served an object, and an earlier one has not, or
// says something else of it now than when both agreed.
func (f *file) servesInsteadOf(owner *file, now *manifest.Set, object string) bool {
	return f.good.Defines(object) && (!owner.good.Defines(object) || f.good.Agrees(owner.good, object) && !now.Agrees(owner.good, object))
}

// unwrapPath returns an error's text without the path, which the caller names.
func unwrapPath(err error) string {
	if p, is := errors.AsType[*os.PathError](err); is {
		return p.Err.Error()
	}
	return err.Error()
}

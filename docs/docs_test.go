// SPDX-License-Identifier: Apache-2.0

// Package docs_test checks that the documents describe the tree that they are
// part of: links resolve, and files, names and commands exist.
package docs_test

//go:generate go run ./fromcode

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = ".."

// limits are the lengths in lines that keep a document readable in one sitting.
var limits = map[string]int{
	"README.md":            140,
	"CONTRIBUTING.md":      120,
	"SECURITY.md":          120,
	"docs/ARCHITECTURE.md": 399,
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// files returns the tree's files with one of the extensions, as slash-separated
// paths from the root.
func files(t *testing.T, extensions ...string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == ".git" || name == "bin"):
			return filepath.SkipDir
		case !d.IsDir() && slices.Contains(extensions, filepath.Ext(name)):
			all = append(all, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestLineLimits(t *testing.T) {
	for file, limit := range limits {
		if n := strings.Count(read(t, file), "\n"); n > limit {
			t.Errorf("%s has %d lines, more than %d", file, n, limit)
		}
	}
}

var (
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	given   = regexp.MustCompile(`<a id="([^"]+)"></a>`)
	noSlug  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors returns what a link into the document may name: headings, and what has a name
// of its own, as the fields of references do.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		slug := noSlug.ReplaceAllString(strings.ToLower(m[1]), "")
		all[strings.ReplaceAll(slug, " ", "-")] = true
	}
	for _, m := range given.FindAllStringSubmatch(text, -1) {
		all[m[1]] = true
	}
	return all
}

func TestLinksResolve(t *testing.T) {
	links := 0
	for _, file := range files(t, ".md") {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(read(t, file), ""), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, ":") { // a site
				continue
			}
			links++
			to := file
			if target != "" {
				to = filepath.ToSlash(filepath.Join(filepath.Dir(file), target))
			}
			at, err := os.Stat(filepath.Join(root, to))
			if err != nil {
				t.Errorf("%s links to %s, which does not exist", file, m[1])
				continue
			}
			if at.IsDir() { // GitHub shows its README
				to += "/README.md"
			}
			if anchor != "" && !anchors(read(t, to))[anchor] {
				t.Errorf("%s links to %s: there is no such heading", file, m[1])
			}
		}
	}
	if links < 20 {
		t.Errorf("found only %d links", links)
	}
}

// On GitHub docs/README.md is the index: it leads to each page of the site, as its menu does, or
// to the page's folder.
func TestIndexHasAllPages(t *testing.T) {
	index, pages := read(t, "docs/README.md"), 0
	for _, m := range regexp.MustCompile(`(?m)^    - (\S+\.md)(?::|$)`).FindAllStringSubmatch(read(t, "docs/site/data/menu.yaml"), -1) {
		page := m[1]
		if _, err := os.Stat(filepath.Join(root, page)); err != nil || page == "docs/README.md" {
			continue // make docs says which pages are missing
		}
		pages++
		link, err := filepath.Rel("docs", page)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(index, "]("+link) && !strings.Contains(index, "]("+filepath.Dir(link)+")") {
			t.Errorf("docs/README.md does not link to %s, which is in the menu", page)
		}
	}
	if pages < 40 {
		t.Errorf("found only %d pages", pages)
	}
}

// source is what the documents may name.
type source struct {
	// declared has package.Name, package.Type.Method and package.Type.Field, of
	// all Go outside tests; packages has the names before the first dot.
	declared, packages map[string]bool
	// words are all words of all code, and functions those that C defines.
	words, functions map[string]bool
}

var (
	word     = regexp.MustCompile(`\w+`)
	function = regexp.MustCompile(`(?m)^(?:\w+[ *]+)+(\w+)\(`)
)

func readSource(t *testing.T) source {
	t.Helper()
	s := source{declared: map[string]bool{}, packages: map[string]bool{}, words: map[string]bool{}, functions: map[string]bool{}}
	for _, file := range append(files(t, ".go", ".c", ".h", ".proto", ".yaml", ".sh"), "Makefile") {
		if strings.HasPrefix(file, "docs/") || strings.HasPrefix(file, "bpf/headers/") {
			continue
		}
		for _, w := range word.FindAllString(read(t, file), -1) {
			s.words[w] = true
		}
		if strings.HasPrefix(file, "bpf/") {
			for _, m := range function.FindAllStringSubmatch(read(t, file), -1) {
				s.functions[m[1]] = true
			}
		}
		if strings.HasSuffix(file, ".go") && !strings.HasSuffix(file, "_test.go") {
			s.add(t, file)
		}
	}
	return s
}

// add adds the declarations of a Go file.
func (s source) add(t *testing.T, file string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, file), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	s.packages[f.Name.Name] = true
	declare := func(names ...string) { s.declared[f.Name.Name+"."+strings.Join(names, ".")] = true }
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				declare(d.Name.Name)
			} else {
				declare(receiver(d.Recv.List[0].Type), d.Name.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.ValueSpec:
					for _, n := range spec.Names {
						declare(n.Name)
					}
				case *ast.TypeSpec:
					declare(spec.Name.Name)
					ast.Inspect(spec.Type, func(n ast.Node) bool {
						if field, is := n.(*ast.Field); is {
							for _, n := range field.Names {
								declare(spec.Name.Name, n.Name)
							}
						}
						return true
					})
				}
			}
		}
	}
}

// receiver returns the name of a method's type.
func receiver(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

var (
	code      = regexp.MustCompile("`([^`\n]+)`")
	path      = regexp.MustCompile(`(?m)(?:^|[\s(|"` + "`" + `])((?:bpf|bytecode|charts|docs|e2e|examples|operator|\.ci)/[\w.*/-]*)`)
	qualified = regexp.MustCompile(`(?:^|[^\w./-])([a-z]\w*)\.([A-Z]\w*(?:\.\w+)?)`)
	call      = regexp.MustCompile(`\b(\w+)\(\)`)
	plain     = regexp.MustCompile(`^\w+$`)
	target    = regexp.MustCompile(`\bmake ([a-z][\w-]*)`)
	command   = regexp.MustCompile(`\bblixt ([a-z]+)`)
)

// Every file, every name in code type, every make target and every command that
// the documents mention exists.
func TestNamesExist(t *testing.T) {
	s := readSource(t)
	makefile := read(t, "Makefile")
	for file := range limits {
		text := read(t, file)
		for _, m := range path.FindAllStringSubmatch(text, -1) {
			name := strings.TrimRight(m[1], ".-")
			if found, err := filepath.Glob(filepath.Join(root, name)); err != nil || len(found) == 0 {
				t.Errorf("%s names the file %s, which does not exist", file, name)
			}
		}
		for _, m := range qualified.FindAllStringSubmatch(text, -1) {
			if s.packages[m[1]] && !s.declared[m[1]+"."+m[2]] {
				t.Errorf("%s names %s.%s, which does not exist", file, m[1], m[2])
			}
		}
		for _, m := range call.FindAllStringSubmatch(text, -1) {
			if !s.functions[m[1]] {
				t.Errorf("%s names %s, which is no function of bpf", file, m[0])
			}
		}
		for _, m := range code.FindAllStringSubmatch(text, -1) {
			if plain.MatchString(m[1]) && !s.words[m[1]] {
				t.Errorf("%s names %s, which no code has", file, m[1])
			}
			if m := command.FindStringSubmatch(m[1]); m != nil && !s.words[m[1]+"Command"] {
				t.Errorf("%s names the command blixt %s, which does not exist", file, m[1])
			}
			if m := target.FindStringSubmatch(m[1]); m != nil && !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s names make %s, which the Makefile lacks", file, m[1])
			}
		}
	}
}

var (
	testName = regexp.MustCompile("`(Test[A-Za-z0-9]+)`")
	testFunc = regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`)
)

// Documents name tests that show what they claim.
func TestNamedTestsExist(t *testing.T) {
	exists := map[string]bool{}
	for _, file := range files(t, ".go") {
		if strings.HasSuffix(file, "_test.go") {
			for _, m := range testFunc.FindAllStringSubmatch(read(t, file), -1) {
				exists[m[1]] = true
			}
		}
	}
	named := 0
	for _, file := range files(t, ".md") {
		for _, m := range testName.FindAllStringSubmatch(read(t, file), -1) {
			named++
			if !exists[m[1]] {
				t.Errorf("%s names %s, which does not exist", file, m[1])
			}
		}
	}
	if named < 20 {
		t.Errorf("found only %d tests", named)
	}
}

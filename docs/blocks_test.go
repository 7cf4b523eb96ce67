// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/document"
)

// languages are those that blocks may have. What people type is sh or console.
var languages = []string{
	document.Shell, document.Console, "text", "yaml", "json", "toml", "ini", "go", "c", "promql", "nginx", "haproxy", "nftables", "powershell", "diff",
}

// testPackages has, for the name of each test, the source of the tests of its packages.
func testPackages(t *testing.T) map[string]string {
	t.Helper()
	source, names := map[string]string{}, map[string][]string{}
	for _, file := range files(t, ".go") {
		if !strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, dir := read(t, file), filepath.Dir(file)
		source[dir] += text
		for _, m := range testFunc.FindAllStringSubmatch(text, -1) {
			names[dir] = append(names[dir], m[1])
		}
	}
	all := map[string]string{}
	for dir, tests := range names {
		for _, name := range tests {
			all[name] += source[dir]
		}
	}
	return all
}

// Each block of commands is run by a test, or says why not.
func TestCommandsAreTested(t *testing.T) {
	tests := testPackages(t)
	commands := 0
	for _, file := range files(t, ".md") {
		for _, b := range document.Parse(file, []byte(read(t, file))) {
			if b.HasCommands() {
				commands++
			}
			if err := check(b, tests); err != nil {
				t.Error(err)
			}
		}
	}
	if commands < 100 {
		t.Errorf("found only %d blocks of commands", commands)
	}
}

// check returns what is wrong with a block. The tests are those of testPackages.
func check(b document.Block, tests map[string]string) error {
	switch {
	case !b.Fenced:
		return fmt.Errorf("%s: the block is indented: put it between ```sh, or another language, and ```", b)
	case b.Language == "":
		return fmt.Errorf("%s: the block has no language: write ```sh, ```console or ```text", b)
	case !slices.Contains(languages, b.Language):
		return fmt.Errorf("%s: the block is of language %s: want one of %s", b, b.Language, strings.Join(languages, ", "))
	case strings.TrimSpace(b.Text) == "":
		return fmt.Errorf("%s: a block in section %q is empty", b.File, b.Section)
	case !b.HasCommands():
		return nil
	}
	m, err := b.Mark()
	if err != nil || m.Tested == "" {
		return err
	}
	source, exists := tests[m.Tested]
	if !exists {
		return fmt.Errorf("%s: there is no test %s", b, m.Tested)
	}
	if strings.Contains(source, filepath.Base(b.File)) { // it reads the document
		return nil
	}
	commands, err := programs(b)
	if err != nil {
		return err
	}
	for _, c := range commands {
		for _, word := range c {
			if !strings.Contains(source, word) {
				return fmt.Errorf("%s: the package of %s neither reads %s nor runs %q", b, m.Tested, filepath.Base(b.File), strings.Join(c, " "))
			}
		}
	}
	return nil
}

var subcommand = regexp.MustCompile(`^[a-z][a-z-]*$`)

// programs returns what each command of a block begins with: a program, and what it is to do.
func programs(b document.Block) (all [][]string, err error) {
	commands, err := b.Commands()
	for _, c := range commands {
		for line := range strings.Lines(c.Text) {
			words := strings.Fields(line)
			if len(words) > 1 && words[0] == "sudo" {
				words = words[1:]
			}
			if len(words) == 0 || strings.HasPrefix(words[0], "#") {
				continue
			}
			n := 1
			for n < len(words) && n < 3 && subcommand.MatchString(words[n]) {
				n++
			}
			all = append(all, words[:n])
		}
	}
	return all, err
}

func TestBlocksThatAreRefused(t *testing.T) {
	tests := map[string]string{"TestIt": `run("blixt", "status")`}
	for name, c := range map[string]struct{ text, want string }{
		"no comment":             {"```sh\nls\n```", "no comment on the line before"},
		"a line between":         {"<!-- run: host -->\n\n```sh\nls\n```", "no comment on the line before"},
		"over two lines":         {"<!-- not run:\nneeds a cloud -->\n```sh\nls\n```", "no comment on the line before"},
		"a typo":                 {"<!-- runs: host -->\n```sh\nls\n```", `not known what "runs: host" means`},
		"another case":           {"<!-- Run: host -->\n```sh\nls\n```", "not known"},
		"no reason":              {"<!-- not run: -->\n```sh\nls\n```", "say why"},
		"one word":               {"<!-- not run: no -->\n```sh\nls\n```", "say why"},
		"no test":                {"<!-- tested: -->\n```sh\nls\n```", "no name of a test"},
		"not a test":             {"<!-- tested: by hand -->\n```sh\nls\n```", "no name of a test"},
		"a test that is gone":    {"<!-- tested: TestGone -->\n```sh\nls\n```", "there is no test TestGone"},
		"a test of others":       {"<!-- tested: TestIt -->\n```sh\nblixt drain 10.0.0.1\n```", `nor runs "blixt drain"`},
		"a node by another name": {"<!-- run: the host -->\n```sh\nls\n```", "names no node"},
		"indented":               {"It does:\n\n    ls\n", "indented"},
		"no language":            {"```\nls\n```", "no language"},
		"a typo in the language": {"```consle\n$ ls\n```", "of language consle"},
		"bash":                   {"<!-- run: host -->\n```bash\nls\n```", "of language bash"},
		"nothing":                {"<!-- run: host -->\n```sh\n\n```", "is empty"},
		"in a list":              {"- It does\n\n  ```sh\n  ls\n  ```", "no comment"},
		"in a quote":             {"> ```sh\n> ls\n> ```", "no comment"},
		"of tildes":              {"~~~sh\nls\n~~~", "no comment"},
		"lines of Windows":       {"<!-- runs: host -->\r\n```sh\r\nls\r\n```\r\n", "not known"},
		"never closed":           {"```sh\nls\n", "no comment"},
	} {
		t.Run(name, func(t *testing.T) {
			blocks := document.Parse("a.md", []byte(c.text))
			if len(blocks) != 1 {
				t.Fatalf("%d blocks: %+v", len(blocks), blocks)
			}
			if err := check(blocks[0], tests); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestBlocksThatAreGood(t *testing.T) {
	tests := map[string]string{"TestIt": `run("blixt", "status")`, "TestPage": `document.Read("a.md")`}
	for name, c := range map[string]struct{ text, want string }{
		"run":              {"Now:\n<!-- run: host -->\n```sh\nls\n```\n", "ls\n"},
		"tested":           {"<!-- tested: TestIt -->\n```console\n$ sudo blixt status --output json\n{}\n```", "$ sudo blixt status --output json\n{}\n"},
		"read by its test": {"<!-- tested: TestPage -->\n```sh\nls\n```", "ls\n"},
		"a reason":         {"<!-- not run: needs a cloud -->\n```sh\nls\n```", "ls\n"},
		"in a list":        {"1. It does\n\n   <!-- run: host -->\n   ```sh\n   ls\n     -l\n   ```", "ls\n  -l\n"},
		"in a quote":       {"> <!-- run: host -->\n> ```sh\n> ls\n> ```", "ls\n"},
		"a fence in it":    {"<!-- run: host -->\n````sh\ncat <<E\n```\nls\n```\nE\n````", "cat <<E\n```\nls\n```\nE\n"},
		"of tildes":        {"<!-- run: host -->\n~~~sh\necho '```'\n~~~", "echo '```'\n"},
		"lines of Windows": {"<!-- run: host -->\r\n```sh\r\nls\r\n```\r\n", "ls\n"},
		"no commands":      {"```yaml\na: 1\n```", "a: 1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			blocks := document.Parse("a.md", []byte(c.text))
			if len(blocks) != 1 || blocks[0].Text != c.want {
				t.Fatalf("blocks %+v", blocks)
			}
			if err := check(blocks[0], tests); err != nil {
				t.Error(err)
			}
		})
	}
}

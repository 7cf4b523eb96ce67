// SPDX-License-Identifier: Apache-2.0

package size

import (
	"bytes"
	"debug/buildinfo"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// dump links a program and returns what keeps its symbols.
func dump(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"build", "-ldflags=-s -dumpdep", "-o", filepath.Join(t.TempDir(), "program")}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("link: %v\n%s", err, out[:min(len(out), 1000)])
	}
	return out
}

// The binary that users get is no larger than it has to be.
func TestBinary(t *testing.T) {
	binary, err := lab.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tooLarge := Check(binary)
	if tooLarge == nil {
		return
	}
	t.Error(tooLarge)
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	tags := ""
	for _, s := range info.Settings {
		if s.Key == "-tags" {
			tags = s.Value
		}
	}
	path, err := Reflected(bytes.NewReader(dump(t, "", "-tags="+tags, "github.com/kubernetes-sigs/blixt/operator/cmd/blixt")))
	switch {
	case err != nil:
		t.Error(err)
	case path != nil:
		t.Errorf("The linker keeps every exported method, as one is called by a name that is known at run time only:\n  %s\n"+
			"Do without the import by which that path leaves Blixt, or without the function of it.\n"+
			"A build tag of the dependency may leave it out: those that all builds have are TAGS in the Makefile.", strings.Join(path, "\n  "))
	default:
		t.Error("No method is called by a name that is known at run time only, so that there is more code or data. " +
			"Compare, with the commit before: go build -tags=" + tags + " -o blixt ./operator/cmd/blixt && go tool nm -size -sort size blixt | head -50")
	}
}

func TestCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "blixt")
	for size, refused := range map[int64]bool{Limit: false, Limit + 1: true} {
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, size); err != nil {
			t.Fatal(err)
		}
		if err := Check(file); (err != nil) != refused {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if Check(file+"2") == nil {
		t.Error("a file that does not exist is small enough")
	}
}

// One innocent import undoes the linker's work.
func TestReflected(t *testing.T) {
	for name, program := range map[string]struct{ text, via string }{
		"templates":          {"package main\nimport (\"os\"; \"text/template\")\nfunc main() { _ = render() }\nfunc render() error { return template.Must(template.New(\"\").Parse(\"x\")).Execute(os.Stdout, nil) }\n", "main.render"},
		"a name as variable": {"package main\nimport (\"os\"; \"reflect\")\nfunc main() { reflect.ValueOf(os.Stdout).MethodByName(os.Args[0]) }\n", "main.main"},
		"a constant name":    {"package main\nimport (\"os\"; \"reflect\")\nfunc main() { reflect.ValueOf(os.Stdout).MethodByName(\"Sync\") }\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range map[string]string{"go.mod": "module example.com/program\n", "main.go": program.text} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			path, err := Reflected(bytes.NewReader(dump(t, dir, ".")))
			if err != nil || (path != nil) != (program.via != "") || path != nil && !slices.Contains(path, program.via) {
				t.Errorf("path %q, %v, want one through %q", path, err, program.via)
			}
		})
	}
}

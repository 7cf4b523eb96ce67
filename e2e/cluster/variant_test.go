// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
)

// nextLayout is that of a Blixt to come, and unknownLayout one that no Blixt here knows.
const nextLayout, unknownLayout = bpf.Layout + 1, 99

// variants are compiled from this source with small changes.
type variants struct {
	// same is blixt of this source. next is one whose program has nextLayout.
	same, next string
	// unknown is an object of unknownLayout, bad is one that the verifier rejects. They
	// are compiled for long tests.
	unknown, bad string

	done chan error
}

// compileVariants starts the compilation. await waits for its end.
func compileVariants(t *testing.T) *variants {
	t.Helper()
	dir := t.TempDir()
	object := func(name string) string { return filepath.Join(dir, name, "blixt_bpfel.o") }
	v := &variants{"", filepath.Join(dir, "next", "blixt"), object("unknown"), object("bad"), make(chan error, 1)}
	go func() {
		var err error
		v.same, err = buildOnce()
		err = errors.Join(err, compileWith(filepath.Join(dir, "next"), withLayout(nextLayout)))
		if *long {
			err = errors.Join(err,
				compileWith(filepath.Join(dir, "unknown"), withLayout(unknownLayout)),
				compileWith(filepath.Join(dir, "bad"), unchecked))
		}
		if err == nil {
			err = buildNext(filepath.Join(dir, "next"))
		}
		v.done <- err
	}()
	t.Cleanup(func() { v.done <- <-v.done })
	return v
}

func (v *variants) await(t *testing.T) {
	t.Helper()
	err := <-v.done
	v.done <- err
	if err != nil {
		t.Fatal(err)
	}
}

// compileWith compiles changed C as bpf/gen.go does.
func compileWith(dir string, change func(text string) string) error {
	const source = "../../bpf/"
	gen, err := os.ReadFile(source + "gen.go")
	if err != nil {
		return err
	}
	_, args, _ := strings.Cut(string(gen), "\n//go:generate go tool bpf2go ")
	args, _, _ = strings.Cut(args, "\n")
	files, err := filepath.Glob(source + "*.[ch]")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	changed := false
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		after := change(string(text))
		changed = changed || after != string(text)
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), []byte(after), 0o644); err != nil {
			return err
		}
	}
	if !changed {
		return fmt.Errorf("nothing in %s is as the test expects it", source)
	}
	headers, err := filepath.Abs(source + "headers")
	if err != nil {
		return err
	}
	if err := os.Symlink(headers, filepath.Join(dir, "headers")); err != nil {
		return err
	}
	tool, err := exec.Command("go", "tool", "-n", "bpf2go").Output()
	if err != nil {
		return fmt.Errorf("find bpf2go: %w", err)
	}
	cmd := exec.Command(strings.TrimSpace(string(tool)), strings.Fields(args)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOPACKAGE=bpf")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile %s: %w\n%s", dir, err, out)
	}
	return nil
}

var configEnd = regexp.MustCompile(`(\nstruct config \{[^}]*)(\n\};)`)

// withLayout gives the maps another layout: the config has another field.
func withLayout(number int) func(string) string {
	return func(text string) string {
		text = strings.ReplaceAll(text, bpf.LayoutMap, fmt.Sprintf("blixt_layout_%d", number))
		text = strings.ReplaceAll(text, fmt.Sprintf("\tBLIXT_LAYOUT = %d,\n", bpf.Layout), fmt.Sprintf("\tBLIXT_LAYOUT = %d,\n", number))
		text = strings.ReplaceAll(text, "sizeof(struct config) == 128,", "sizeof(struct config) == 136,")
		return configEnd.ReplaceAllString(text, "$1\n\t__u64 more;$2")
	}
}

// unchecked has the program read a packet without a bounds check.
func unchecked(text string) string {
	const begin = "int blixt(struct __sk_buff *ctx)\n{\n"
	return strings.ReplaceAll(text, begin, begin+"\tif (*(volatile __u8 *)(long)ctx->data)\n\t\treturn TCX_NEXT;\n")
}

// buildNext builds blixt with the program of a folder, whose generated Go has its layout.
func buildNext(dir string) error {
	replace := map[string]string{}
	for _, name := range []string{"blixt_bpfel.go", "blixt_bpfel.o"} {
		file, err := filepath.Abs("../../bpf/" + name)
		if err != nil {
			return err
		}
		replace[file] = filepath.Join(dir, name)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o644); err != nil {
		return err
	}
	out, err := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", filepath.Join(dir, "blixt"), "../../operator/cmd/blixt").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build blixt with layout %d: %w\n%s", nextLayout, err, out)
	}
	return nil
}

// objectImage pushes bytecode of an object, and returns its name by digest.
func (v *variants) objectImage(t *testing.T, object string, args ...string) string {
	t.Helper()
	v.await(t)
	out := filepath.Join(t.TempDir(), "out")
	args = append([]string{v.same, "bytecode", "build", "-d", out, "-f", object}, args...)
	if _, err := c.Control.Run(patience, args[0], args[1:]...); err != nil {
		t.Fatal(err)
	}
	name, err := c.Control.Run(patience, v.same, "bytecode", "push", out, cluster.Registry+"/blixt/bytecode:v1", "--ca-file", c.CA())
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(name)
}

// operatorImage pushes blixt with one more file, and returns the image's digest.
func operatorImage(t *testing.T, blixt, file string) string {
	t.Helper()
	name, err := c.Push(t.Context(), "blixt/operator:v2", cluster.Image{
		Files: map[string]string{"/blixt": blixt, "/more": file}, Entrypoint: []string{"/blixt"}, User: "65532",
	})
	if err != nil {
		t.Fatal(err)
	}
	_, digest, _ := strings.Cut(name, "@")
	return digest
}

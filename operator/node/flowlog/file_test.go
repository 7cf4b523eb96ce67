// SPDX-License-Identifier: Apache-2.0

package flowlog

import (
	"os"
	"path/filepath"
	"testing"
)

func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(text)
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
	return all
}

func TestFileIsKeptSmall(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "flows")
	write := func(f *File, lines string) {
		t.Helper()
		if n, err := f.Write([]byte(lines)); err != nil || n != len(lines) {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
	wants := func(want map[string]string) {
		t.Helper()
		got := content(t, dir)
		for name, text := range want {
			if got[name] != text {
				t.Errorf("%s is %q, want %q", name, got[name], text)
			}
		}
		if len(got) != len(want) {
			t.Errorf("there is %q, want %q", got, want)
		}
	}
	f, err := OpenFile(path, 8, 2)
	if err != nil {
		t.Fatal(err)
	}
	write(f, "one\n")
	write(f, "two\n")
	write(f, "three\n")
	wants(map[string]string{"flows": "three\n", "flows.1": "one\ntwo\n"})
	write(f, "longer than a file\n")
	write(f, "four\n")
	wants(map[string]string{"flows": "four\n", "flows.1": "longer than a file\n", "flows.2": "three\n"})

	// A process that begins goes on where one was killed.
	if f, err = OpenFile(path, 8, 2); err != nil {
		t.Fatal(err)
	}
	write(f, "5\n")
	wants(map[string]string{"flows": "four\n5\n", "flows.1": "longer than a file\n", "flows.2": "three\n"})

	// logrotate moves it, or somebody removes it.
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	write(f, "six\n")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(f, "seven\n")
	wants(map[string]string{"flows": "seven\n", "flows.old": "four\n5\n", "flows.1": "longer than a file\n", "flows.2": "three\n"})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	// With no previous files the memory is all that is kept.
	if f, err = OpenFile(path, 8, 0); err != nil {
		t.Fatal(err)
	}
	write(f, "eight\n")
	wants(map[string]string{"flows": "eight\n", "flows.old": "four\n5\n", "flows.1": "longer than a file\n", "flows.2": "three\n"})
}

func TestFileThatIsNone(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/etc/passwd", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, link, "/dev/null", filepath.Join(dir, "missing", "flows")} {
		if f, err := OpenFile(path, 8, 1); err == nil {
			t.Errorf("%s is opened", path)
			_ = f.Close()
		}
	}
	// A directory is where the previous file should be: the write fails, and a later one may not.
	path := filepath.Join(dir, "flows")
	f, err := OpenFile(path, 4, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(path+".1/x", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("one\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("two\n")); err == nil {
		t.Error("a file that cannot be moved grows")
	}
	if err := os.RemoveAll(path + ".1"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("two\n")); err != nil {
		t.Error(err)
	}
}

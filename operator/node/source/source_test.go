// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/manifest"
)

// named is a manifest of an object with a name of its own.
func named(name, word string) string {
	return strings.Replace(object(word), "name: x", "name: "+name, 1)
}

// check reads and compares what the objects say, and what is refused.
func check(t *testing.T, s *Source, want string, refused ...string) {
	t.Helper()
	if got := words(t, s); got != want {
		t.Errorf("read %q, want %q", got, want)
	}
	result, err := s.Read()
	if err != nil {
		result = &Result{Refused: strings.Split(err.Error(), "\n")}
	}
	if got := strings.Join(result.Refused, "\n"); got != strings.Join(refused, "\n") {
		t.Errorf("refused:\n%s\nwant:\n%s", got, strings.Join(refused, "\n"))
	}
}

const goesOn = lastGood

func TestRefusedFileDelaysNoOther(t *testing.T) {
	dir := write(t, "a.yaml", named("a", "one"), "b.yaml", named("b", "one"))
	s := open(t, Options{Paths: []string{dir}})
	check(t, s, "one one")
	put(t, filepath.Join(dir, "a.yaml"), "kind: [")
	put(t, filepath.Join(dir, "b.yaml"), named("b", "two"))
	put(t, filepath.Join(dir, "docker-compose.yml"), "services: {web: {image: nginx}}\n")
	put(t, filepath.Join(dir, "empty.yaml"), "")
	check(t, s, "one two",
		goesOn+"a.yaml:2: did not find expected node content",
		"the file is left out: docker-compose.yml:1: apiVersion and kind are needed: this looks like a Docker Compose file, so move it out of the directory",
		"the file is left out: empty.yaml: the file is empty: remove it, or write a comment into it")
	put(t, filepath.Join(dir, "a.yaml"), named("a", "three"))
	must(t, os.Remove(filepath.Join(dir, "docker-compose.yml")))
	must(t, os.Remove(filepath.Join(dir, "empty.yaml")))
	check(t, s, "three two")
}

func TestWhoServesAnObjectKeepsIt(t *testing.T) {
	dir := write(t, "b.yaml", named("x", "old"))
	s := open(t, Options{Paths: []string{dir}})
	check(t, s, "old")
	put(t, filepath.Join(dir, "a.yaml"), named("x", "new"))
	put(t, filepath.Join(dir, "c.yaml"), named("x", "newer"))
	check(t, s, "old",
		"the file is left out: a.yaml:1: Namespace x: is defined at b.yaml:1 already",
		"the file is left out: c.yaml:1: Namespace x: is defined at b.yaml:1 already")
	// The object moves to another file: the first that claims it.
	must(t, os.Remove(filepath.Join(dir, "b.yaml")))
	check(t, s, "new", "the file is left out: c.yaml:1: Namespace x: is defined at a.yaml:1 already")
	// Two files exchange their objects.
	put(t, filepath.Join(dir, "c.yaml"), named("why", "second"))
	check(t, s, "new second")
	put(t, filepath.Join(dir, "a.yaml"), named("why", "moved"))
	check(t, s, "new second", goesOn+"a.yaml:1: Namespace why: is defined at c.yaml:1 already")
	put(t, filepath.Join(dir, "c.yaml"), named("x", "moved too"))
	check(t, s, "moved moved too")
}

func TestADirectoryThatGoesIsNoOrder(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "conf")
	must(t, os.Mkdir(dir, 0o755))
	put(t, filepath.Join(dir, "a.yaml"), named("a", "one"))
	put(t, filepath.Join(dir, "b.yaml"), named("b", "two"))
	s := open(t, Options{Paths: []string{dir}})
	check(t, s, "one two")
	must(t, os.Rename(dir, dir+".away"))
	check(t, s, "one two", goesOn+"read "+dir+": no such file or directory")
	must(t, os.Mkdir(dir, 0o755)) // what is left when it is unmounted
	check(t, s, "one two", goesOn+"read directory "+dir+": no *.yaml, *.yml or *.json files")
	put(t, filepath.Join(dir, "c.yaml"), "kind: [")
	check(t, s, "one two", "the file is left out: c.yaml:2: did not find expected node content",
		goesOn+"read directory "+dir+": none of its files is valid")
	must(t, os.RemoveAll(dir))
	put(t, dir, "a file")
	check(t, s, "one two", "the file is left out: "+dir+":1: want a Kubernetes object with apiVersion and kind", goesOn+"read directory "+dir+": none of its files is valid")
	must(t, os.Remove(dir))
	must(t, os.Rename(dir+".away", dir))
	check(t, s, "one two")
	must(t, os.Remove(filepath.Join(dir, "a.yaml")))
	check(t, s, "two")
}

// class is a GatewayClass, as each file has it that is complete.
func class(controller string) string {
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: blixt}\nspec: {controllerName: " + controller + "}\n---\n"
}

// Files may have the same GatewayClass as long as they agree. One that changes alone is
// refused, whichever is first, and the others go on.
func TestFilesAgreeAboutAClass(t *testing.T) {
	const was, is = "example.com/was", "example.com/is"
	for _, changed := range []string{"a.yaml", "b.yaml"} {
		other := map[string]string{"a.yaml": "b.yaml", "b.yaml": "a.yaml"}[changed]
		dir := write(t, "a.yaml", class(was)+named("a", "one"), "b.yaml", class(was)+named("b", "one"))
		s := open(t, Options{Paths: []string{dir}})
		check(t, s, "one one")
		result, err := s.Read()
		must(t, err)
		if n := len(result.Set().Objects.GatewayClasses); n != 1 {
			t.Errorf("%d classes", n)
		}
		put(t, filepath.Join(dir, changed), class(is)+named(changed[:1], "two"))
		check(t, s, "one one", goesOn+changed+":1: GatewayClass blixt: is defined at "+other+":1 already")
		put(t, filepath.Join(dir, other), class(is)+named(other[:1], "two"))
		check(t, s, "two two")
		// Nobody needs the one that goes.
		must(t, os.Remove(filepath.Join(dir, changed)))
		check(t, s, "two")
		put(t, filepath.Join(dir, changed), class(was)+named(changed[:1], "three"))
		check(t, s, "two", "the file is left out: "+changed+":1: GatewayClass blixt: is defined at "+other+":1 already")
	}
}

// What flags say counts like a file that never changes, and has no lines. Neither it nor a
// file takes an object from the other.
func TestGivenTextIsAFile(t *testing.T) {
	const flag, other = "--listen 192.0.2.10:80", "--listen :53/udp"
	dir, state := write(t, "a.yaml", named("a", "one")), t.TempDir()
	o := Options{Paths: []string{dir}, StateDir: state, Given: []Given{{flag, named("x", "given")}, {other, named("z", "too")}}}
	s := open(t, o)
	check(t, s, "given too one")
	result, err := s.Read()
	must(t, err)
	if at := result.At("Namespace x", ""); at != flag {
		t.Errorf("it is at %q", at)
	}
	put(t, filepath.Join(dir, "a.yaml"), named("x", "two"))
	check(t, s, "given too one", goesOn+"a.yaml:1: Namespace x: is defined at "+flag+" already")
	put(t, filepath.Join(dir, "a.yaml"), named("a", "three"))
	check(t, s, "given too three")
	s.Close()

	// Who served an object first keeps it in the next start, too.
	o.Given = append(o.Given, Given{"--listen :81", named("a", "new")})
	check(t, open(t, o), "given too three", "this is left out: --listen :81: Namespace a: is defined at a.yaml:1 already")
	// Of what was given there is no memory.
	o.Given = nil
	check(t, open(t, o), "three")

	// It is enough, and says what is missing all the same.
	empty := t.TempDir()
	s = open(t, Options{Paths: []string{empty}, Given: []Given{{flag, named("x", "given")}}})
	check(t, s, "given", "read directory "+empty+": no *.yaml, *.yml or *.json files")
	check(t, open(t, Options{Given: []Given{{flag, named("x", "given")}}}), "given")
}

// Which of several conflicts comes first does not depend on chance.
func TestConflictsAreDecidedAlike(t *testing.T) {
	for range 20 {
		dir := write(t, "b.yaml", named("x", "b")+"---\n"+named("why", "b"), "c.yaml", named("z", "c"))
		s := open(t, Options{Paths: []string{dir}})
		check(t, s, "b b c")
		// c wants why from b, and a wants z from c.
		put(t, filepath.Join(dir, "a.yaml"), named("z", "a"))
		put(t, filepath.Join(dir, "c.yaml"), named("why", "c")+"---\n"+named("z", "c2"))
		put(t, filepath.Join(dir, "b.yaml"), named("x", "b2")+"---\n"+named("why", "b2"))
		check(t, s, "b2 b2 c", "the file is left out: a.yaml:1: Namespace z: is defined at c.yaml:1 already",
			goesOn+"c.yaml:1: Namespace why: is defined at b.yaml:5 already")
		if t.Failed() {
			break
		}
	}
}

// None of these may block, be read without end, or keep the others from being served.
func TestWhatIsNoFile(t *testing.T) {
	dir := write(t, "a.yaml", named("a", "one"), "loop.yaml", "")
	must(t, os.Remove(filepath.Join(dir, "loop.yaml")))
	must(t, os.Symlink("loop.yaml", filepath.Join(dir, "loop.yaml")))
	must(t, os.Symlink("absent", filepath.Join(dir, "dangling.yaml")))
	must(t, os.Symlink("/dev/zero", filepath.Join(dir, "device.yaml")))
	must(t, unix.Mkfifo(filepath.Join(dir, "pipe.yaml"), 0o644))
	put(t, filepath.Join(dir, "large.yaml"), "")
	must(t, os.Truncate(filepath.Join(dir, "large.yaml"), maxSize+1))
	put(t, filepath.Join(dir, "new\nline.yaml"), "")
	s := open(t, Options{Paths: []string{dir}})
	left := "the file is left out: "
	check(t, s, "one",
		left+"dangling.yaml: no such file or directory",
		left+"device.yaml: this is a device: remove it, or give it another name",
		left+"large.yaml: the file has 32 MB, and 32 MB is the limit: divide it into several",
		left+"loop.yaml: too many levels of symbolic links",
		left+`"new\nline.yaml": the file is empty: remove it, or write a comment into it`,
		left+"pipe.yaml: this is a named pipe: remove it, or give it another name")
	// A file becomes a directory.
	must(t, os.Remove(filepath.Join(dir, "a.yaml")))
	must(t, os.Mkdir(filepath.Join(dir, "a.yaml"), 0o755))
	if got := words(t, s); got != "one" {
		t.Errorf("a file that became a directory: %q", got)
	}
}

func TestSeveralPaths(t *testing.T) {
	base := write(t, "a.yaml", named("a", "one"), "a.txt", "x")
	other := write(t, "b.yaml", named("a", "two"), "c.yaml", named("c", "three"))
	file := filepath.Join(write(t, "manifest", named("d", "four")), "manifest")
	s := open(t, Options{Paths: []string{base, other, file, Stdin}, Stdin: strings.NewReader(named("e", "five"))})
	check(t, s, "one three four five", fmt.Sprintf("the file is left out: %s/b.yaml:1: Namespace a: is defined at %s/a.yaml:1 already", other, base))
	// What is given twice counts once.
	check(t, open(t, Options{Paths: []string{base, base + "/", filepath.Join(base, "a.yaml")}}), "one")
	check(t, open(t, Options{Paths: []string{Stdin}, Stdin: strings.NewReader("")}), "standard input: the file is empty: remove it, or write a comment into it",
		"standard input: the file is empty: remove it, or write a comment into it")
}

func TestSubdirectories(t *testing.T) {
	dir := write(t, "a.yaml", named("a", "one"))
	for _, sub := range []string{"sub/deep", ".hidden", "empty"} {
		must(t, os.MkdirAll(filepath.Join(dir, sub), 0o755))
	}
	put(t, filepath.Join(dir, "sub", "b.yaml"), named("b", "two"))
	put(t, filepath.Join(dir, "sub", "deep", "c.yaml"), named("c", "three"))
	put(t, filepath.Join(dir, ".hidden", "d.yaml"), named("d", "four"))
	must(t, os.Symlink("..", filepath.Join(dir, "sub", "loop")))
	put(t, filepath.Join(dir, "CAPITALS.YAML"), named("e", "five"))
	s := open(t, Options{Paths: []string{dir}})
	check(t, s, "five one")
	result, err := s.Read()
	must(t, err)
	want := fmt.Sprintf("%s/sub has manifests, which are not read: give -R, or -f %s/sub as well", dir, dir)
	if got := strings.Join(result.Notes, "\n"); got != want {
		t.Errorf("notes:\n%s\nwant:\n%s", got, want)
	}
	s = open(t, Options{Paths: []string{dir}, Recursive: true})
	check(t, s, "five one two three")
	result, err = s.Read()
	must(t, err)
	want = fmt.Sprintf("%s/sub/loop has manifests, which are not read: links to directories are not followed: give -f %s/sub/loop as well", dir, dir)
	if got := strings.Join(result.Notes, "\n"); got != want {
		t.Errorf("notes:\n%s\nwant:\n%s", got, want)
	}
	must(t, os.RemoveAll(filepath.Join(dir, "sub", "deep")))
	check(t, s, "five one two")
}

// A file that its writer has open counts with what it had before. Files of others need
// CAP_LEASE; these are the test's own.
func TestWhatIsBeingWrittenDoesNotCount(t *testing.T) {
	dir := write(t, "a.yaml", named("a", "one")+"---\n"+named("b", "two"))
	s := open(t, Options{Paths: []string{dir}})
	check(t, s, "one two")
	for _, flag := range []int{os.O_TRUNC, 0, os.O_APPEND} {
		f, err := os.OpenFile(filepath.Join(dir, "a.yaml"), os.O_RDWR|flag, 0)
		must(t, err)
		for _, text := range []string{"---\n" + named("a", "three") + "---\n", named("b", "four") + "---\n", "# the end\n---\n"} {
			_, err = f.WriteString(text)
			must(t, err)
			if flag == os.O_APPEND {
				break
			}
			check(t, s, "one two")
		}
		must(t, f.Close())
		if flag == os.O_APPEND {
			words(t, s)
			if result, err := s.Read(); err != nil || len(result.Refused) != 1 || !strings.Contains(result.Refused[0], "is defined at a.yaml:1 already") {
				t.Errorf("a duplicate is not refused: %+v, %v", result, err)
			}
			continue
		}
		check(t, s, "three four")
		put(t, filepath.Join(dir, "a.yaml"), named("a", "one")+"---\n"+named("b", "two"))
		check(t, s, "one two")
	}
}

// Neither a file that stays open nor one that is written without end waits for ever.
func TestWritersHaveABound(t *testing.T) {
	dir := write(t, "a.yaml", named("a", "one"))
	s := open(t, Options{Paths: []string{dir}})
	check(t, s, "one")
	f, err := os.OpenFile(filepath.Join(dir, "a.yaml"), os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteString(named("a", "two"))
	must(t, err)
	check(t, s, "one")
	known := s.files[filepath.Join(dir, "a.yaml")]
	known.changed = time.Now().Add(-stalled)
	check(t, s, "two")
	_, err = f.WriteString("# more\n---\n" + named("b", "three"))
	must(t, err)
	known.writing = time.Now()
	check(t, s, "two")
	known.writing = time.Now().Add(-slowest)
	check(t, s, "two three")
}

// A content is seen whatever the times of a file say.
func TestTimesDoNotMatter(t *testing.T) {
	dir := write(t, "a.yaml", named("a", "one"))
	path := filepath.Join(dir, "a.yaml")
	s := open(t, Options{Paths: []string{dir}})
	check(t, s, "one")
	info, err := os.Stat(path)
	must(t, err)
	for i, when := range []time.Time{info.ModTime(), info.ModTime().AddDate(-1, 0, 0), info.ModTime().AddDate(1, 0, 0), time.Unix(0, 0)} {
		word := fmt.Sprint("w0", i) // of the same length
		put(t, path, named("a", word))
		must(t, os.Chtimes(path, when, when))
		check(t, s, word)
	}
}

func TestLastGoodTextsOutliveTheProcess(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state", "name")
	dir := write(t, "a.yaml", named("a", "one"), "b.yaml", named("b", "two"), "c.yaml", named("c", "three"))
	first := func() *Source { return open(t, Options{Paths: []string{dir}, StateDir: state}) }
	s := first()
	check(t, s, "one two three")
	s.Close()
	put(t, filepath.Join(dir, "a.yaml"), "kind: [")
	must(t, os.Remove(filepath.Join(dir, "b.yaml")))
	s = first()
	check(t, s, "one three", goesOn+"a.yaml:2: did not find expected node content")
	s.Close()
	// What was removed does not come back, even if the directory goes.
	must(t, os.Rename(dir, dir+".away"))
	s = first()
	check(t, s, "one three", goesOn+"read "+dir+": no such file or directory")
	s.Close()
	must(t, os.Rename(dir+".away", dir))
	// Damaged, foreign and newer files are passed over.
	entries, err := os.ReadDir(state)
	must(t, err)
	if len(entries) != 2 {
		t.Fatalf("%d files are kept, want 2", len(entries))
	}
	kept := filepath.Join(state, entries[0].Name())
	whole, err := os.ReadFile(kept)
	must(t, err)
	for _, text := range []string{"", "{", string(whole[:len(whole)/2]), strings.Replace(string(whole), `"format":1`, `"format":2`, 1), strings.Replace(string(whole), "annotations", "Annotations", 1)} {
		put(t, kept, text)
		put(t, filepath.Join(state, "notes.txt"), "x")
		s = first()
		if got := words(t, s); got != "three" && !strings.HasPrefix(got, "one three") {
			t.Errorf("read %q with a damaged state", got)
		}
		if s.store.err() == nil {
			t.Errorf("nothing is said of a damaged state: %s", text)
		}
		s.Close()
	}
	// Others may keep files there, and be writing them.
	put(t, kept, string(whole))
	half, foreign := filepath.Join(state, "."+filepath.Base(kept)+"456"), filepath.Join(state, ".boot.json456")
	put(t, half, "half of a file")
	put(t, foreign, "half of a file")
	put(t, filepath.Join(state, "boot.json"), "{}")
	s = first()
	check(t, s, "one three", goesOn+"a.yaml:2: did not find expected node content")
	if err := s.store.err(); err != nil {
		t.Errorf("a file of others counts: %v", err)
	}
	s.Close()
	if left, err := filepath.Glob(filepath.Join(state, ".*")); err != nil || !slices.Equal(left, []string{foreign}) {
		t.Errorf("left behind: %v, %v, want %s alone", left, err, foreign)
	}
	// A directory that cannot be written costs nothing else.
	must(t, os.RemoveAll(state))
	put(t, state, "a file")
	put(t, filepath.Join(dir, "a.yaml"), named("a", "one"))
	s = first()
	check(t, s, "one three")
	s.Close()
	if err := s.store.err(); err == nil || !strings.Contains(err.Error(), "--state-dir") {
		t.Errorf("error of a state directory that is a file: %v", err)
	}
}

// Where it is not known who writes, a file that is rewritten in place counts when it has
// been quiet.
func TestUnknownWriters(t *testing.T) {
	dir := write(t, "a.yaml", named("a", "one"))
	path := filepath.Join(dir, "a.yaml")
	f := &file{root: &root{}, path: path, name: "a.yaml"}
	begin := time.Now()
	look := func(after time.Duration, state writer, want string) {
		t.Helper()
		leaseOf = func(*os.File) writer { return state }
		defer func() { leaseOf = writerOf }()
		f.look(begin.Add(after), false, false)
		if got := f.read.Objects.Namespaces[0].Annotations["says"]; got != want {
			t.Errorf("after %v it says %q, want %q", after, got, want)
		}
	}
	look(0, unknown, "one") // a new file
	put(t, path, named("a", "two"))
	look(10*time.Second, unknown, "one")
	put(t, path, named("a", "three"))
	look(10*time.Second+paused, unknown, "one") // it has changed again
	look(10*time.Second+2*paused, unknown, "three")
	put(t, path, named("a", "four"))
	look(20*time.Second, isClosed, "four")
	put(t, path+".new", named("a", "five")) // what is renamed into place is whole
	must(t, os.Rename(path+".new", path))
	look(30*time.Second, unknown, "five")
}

func TestWriterOf(t *testing.T) {
	path := filepath.Join(write(t, "a.yaml", "x"), "a.yaml")
	r, err := os.Open(path)
	must(t, err)
	defer r.Close()
	if got := writerOf(r); got != isClosed {
		t.Errorf("nobody writes: %d", got)
	}
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	if got := writerOf(r); got != isOpen {
		t.Errorf("somebody has it open for writing: %d", got)
	}
	must(t, w.Close())
	if got := writerOf(r); got != isClosed {
		t.Errorf("it is closed: %d", got)
	}
}

// One look at thousands of files takes little, or the look each second would not.
func BenchmarkLook(b *testing.B) {
	dir := b.TempDir()
	for i := range 5000 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i, ".yaml")), []byte(named(fmt.Sprint("n", i), "x")), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	s, err := Open(Options{Paths: []string{dir}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	s.look(false)
	s.look(false)
	for b.Loop() {
		s.look(false)
	}
}

func TestManyErrorsOfAFile(t *testing.T) {
	dir := write(t, "a.yaml", named("a", "one"), "b.yaml", strings.Repeat("kind: Service\n---\n", 1000))
	s := open(t, Options{Paths: []string{dir}})
	words(t, s)
	result, err := s.Read()
	must(t, err)
	if n := len(result.Refused); n != maxErrors+1 || result.Refused[maxErrors] != "the file is left out: b.yaml: and 990 more" {
		t.Errorf("%d lines, the last %q", n, result.Refused[n-1])
	}
}

// Asking who writes a file fails no writer, and its signal ends no process.
func TestWriterOfHarmsNobody(t *testing.T) {
	path := filepath.Join(write(t, "a.yaml", "x"), "a.yaml")
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if f, err := os.Open(path); err == nil {
				writerOf(f)
				f.Close()
			}
		}
	}()
	for range 2000 {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		must(t, f.Close())
	}
	close(stop)
	<-done
}

// A file that has not changed says what it said: the same contents. One that has changed
// does not, even if the change is undone at once.
func TestUnchangedFilesAreTheSame(t *testing.T) {
	dir := write(t, "a.yaml", named("a", "one"), "b.yaml", named("b", "one"))
	s := open(t, Options{Paths: []string{dir}})
	files := func() []*manifest.Set {
		t.Helper()
		s.Look()
		result, err := s.Read()
		must(t, err)
		return result.Files
	}
	before := files()
	put(t, filepath.Join(dir, "b.yaml"), named("b", "two"))
	after := files()
	put(t, filepath.Join(dir, "b.yaml"), named("b", "one"))
	undone := files()
	if after[0] != before[0] || undone[0] != before[0] {
		t.Error("a file that has not changed is another one")
	}
	if after[1] == before[1] || undone[1] == after[1] || said(s) != "one one" {
		t.Errorf("a file has changed twice, and says %q", said(s))
	}
}

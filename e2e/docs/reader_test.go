// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"errors"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/document"
)

// A reader says what is wrong with a document by file and line, and what was expected and
// seen.
func TestDocumentsThatAreWrong(t *testing.T) {
	n := network(t, "wrong", []string{"host"})
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"a command that fails": {"# A\n\n<!-- run: host -->\n```sh\ntrue\nls /nowhere\n```", []string{"a.md:5", "it fails", "/nowhere"}},
		"a pipe that fails":    {"<!-- run: host -->\n```sh\nls /nowhere | cat\n```", []string{"a.md:3"}},
		"an unset name":        {"<!-- run: host -->\n```sh\nnosuchprogram\n```", []string{"nosuchprogram: command not found"}},
		"other output":         {"<!-- run: host -->\n```console\n$ echo one\none\n$ echo two\nthree\n```", []string{"a.md:5", "expected", "three", "seen", "two"}},
		"output not shown":     {"<!-- run: host -->\n```console\n$ echo one\n```", []string{"a.md:3", "(nothing)", "one"}},
		"a failure not shown":  {"<!-- run: host -->\n```console\n$ false\n```", []string{"exit code 1"}},
		"an end of the shell":  {"<!-- run: host -->\n```sh\nexit 0\n```\n", []string{"a.md:3"}},
		"the shell is killed":  {"<!-- run: host -->\n```sh\nkill -9 $$\n```\n", []string{"a.md:3"}},
		"an unfinished quote":  {"<!-- run: host -->\n```sh\necho 'one\n```\n", []string{"unexpected EOF"}},
		"a console of output":  {"<!-- run: host -->\n```console\none\n```", []string{"a console begins with"}},
		"no such machine":      {"<!-- run: moon -->\n```sh\nls\n```", []string{"there is no machine moon"}},
		"it serves nothing": {"<!-- run: host, background -->\n```sh\nblixt run --listen web:80 --backend 10.0.0.1\n```",
			[]string{"a.md:3", "exit code 1", "names are not looked up"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := n.reader(t)
			err := errors.Join(r.Follow(document.Parse("a.md", []byte(c.text))), r.Close())
			if err == nil {
				t.Fatal("nothing is found wrong")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %v\nlacks %q", err, want)
				}
			}
		})
	}
}

func TestDocumentsThatAreRight(t *testing.T) {
	n := network(t, "right", []string{"host", "client"})
	for name, text := range map[string]string{
		"blocks share a shell":    "<!-- run: host -->\n```sh\ncd /tmp\nA=1\n```\n\nThen\n\n- <!-- run: host -->\n  ```console\n  $ pwd; echo $A\n  /tmp\n  1\n  ```",
		"sudo":                    "<!-- run: host -->\n```console\n$ echo on | sudo tee /etc/x\non\n$ sudo sh -c 'cat /etc/x; echo $SUDO_USER'\non\nalice\n```",
		"lines of Windows":        "<!-- run: host -->\r\n```console\r\n$ hostname\r\nhost\r\n```\r\n",
		"it goes on":              "<!-- run: host -->\n```console\n$ echo a |\n  tr a b\nb\n$ echo a \\\n  c\na c\n```",
		"a failure that is shown": "<!-- run: host -->\n```console\n$ ls /nowhere\n…No such file or directory\n```",
		"a fence in a command":    "<!-- run: host -->\n````sh\ncat >x <<'E'\n```\nE\ntest \"$(cat x)\" = '```'\n````",
		"machines":                "<!-- run: client -->\n```console\n$ hostname\nclient\n```\n<!-- run: host -->\n```console\n$ hostname\nhost\n```",
		"something else":          "<!-- tested: TestElsewhere -->\n```sh\nfalse\n```\n\n<!-- not run: it fails -->\n```sh\nfalse\n```",
		"what stays in the background": "<!-- run: host, background -->\n```console\n$ echo one; sleep 1h\none\n```\n<!-- run: host, background -->\n" +
			"```sh\necho two\nsleep 0\n```\n<!-- run: host -->\n```sh\n! pgrep -x sleep -a | grep 1h\n```",
	} {
		t.Run(name, func(t *testing.T) {
			r := n.reader(t)
			if err := errors.Join(r.Follow(document.Parse("a.md", []byte(text))), r.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// A command that does not end is ended with its children.
func TestCommandsThatHang(t *testing.T) {
	n := network(t, "hang", []string{"host"})
	for name, text := range map[string]string{
		"in front":          "<!-- run: host -->\n```sh\nsleep 1h & sleep 1h\n```",
		"in the background": "<!-- run: host, background -->\n```sh\nsleep 1h\n```",
		"deaf":              "<!-- run: host -->\n```sh\ntrap '' INT TERM; sleep 1h\n```",
		"it asks":           "<!-- run: host -->\n```console\n$ read answer; sleep 1h\n```",
	} {
		t.Run(name, func(t *testing.T) {
			r := n.reader(t)
			r.Limit = 1e9
			err := r.Follow(document.Parse("a.md", []byte(text)))
			if err == nil || !strings.Contains(err.Error(), "has not ended after 1s") {
				t.Errorf("error %v", err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if out, err := n.machines["host"].Run(5e9, "sh", "-c", "pgrep -x sleep -a | grep 1h || true"); err != nil || out != "" {
				t.Errorf("left over: %s (%v)", out, err)
			}
		})
	}
}

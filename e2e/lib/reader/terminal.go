// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/document"
	"github.com/kubernetes-sigs/blixt/e2e/lib/machine"
)

// scripts is where a machine has what was typed, and what runs in the background prints.
const scripts = "/run/reader"

// exitError says that a command has ended with another exit code than 0.
type exitError struct {
	code    int
	printed string
}

func (e exitError) Error() string {
	return fmt.Sprintf("it ends with exit code %d, and has printed\n%s", e.code, indent(e.printed))
}

// terminal is a shell of a machine, and beside it a second window in which one command runs
// at a time, until Ctrl-C.
type terminal struct {
	m     *machine.Machine
	shell *exec.Cmd
	in    io.WriteCloser
	out   *output
	typed int
	// job is the group of processes in the second window, 0 if there is none, and log the
	// number of the files that have what it prints and how it has ended.
	job, log int
}

func open(m *machine.Machine, dir string) (*terminal, error) {
	t := &terminal{m: m, out: newOutput()}
	// Nobody answers, and nobody turns pages.
	t.shell = m.Command(context.Background(), "env", "PAGER=cat", "SYSTEMD_PAGER=", "DEBIAN_FRONTEND=noninteractive", "bash", "--norc", "--noprofile")
	t.shell.Stdout, t.shell.Stderr = t.out, t.out
	var err error
	if t.in, err = t.shell.StdinPipe(); err != nil {
		return nil, err
	}
	if err := errors.Join(os.MkdirAll(m.Path(scripts), 0o755), t.shell.Start()); err != nil {
		return nil, err
	}
	go func() {
		_ = t.shell.Wait() // how it ends, its last command says
		t.out.end()
	}()
	_, err = t.run("", "mkdir -p "+dir+" && cd "+dir, 10*time.Second)
	return t, err
}

// close kills the shell, and what it has started.
func (t *terminal) close() {
	if !t.ended() {
		_ = t.shell.Cancel() // it may just have ended
	}
	_ = t.in.Close()
}

// ended reports whether the shell has, by exit or because a command took too long.
func (t *terminal) ended() bool { return t.out.isEnd() }

// file returns a file of the machine that belongs to the command that was typed last.
func (t *terminal) file(suffix string) string {
	return filepath.Join(scripts, strconv.Itoa(t.typed)+suffix)
}

// run has the shell run a text with options, and returns what it prints.
func (t *terminal) run(options, text string, limit time.Duration) (string, error) {
	if t.ended() {
		return "", errors.New("the shell has ended before")
	}
	t.typed++
	if err := os.WriteFile(t.m.Path(t.file("")), []byte(text), 0o600); err != nil {
		return "", err
	}
	end := fmt.Sprintf("\x01%d ", t.typed)
	t.out.take()
	if options == "" {
		options = ":"
	}
	fmt.Fprintf(t.in, "%s; . %s </dev/null; printf '%s%%s\\n' \"$?\"; set +eo pipefail\n", options, t.file(""), end)
	printed, code, found := t.out.await(end, limit)
	if !found {
		if t.ended() {
			return printed, fmt.Errorf("it fails, and has printed\n%s", indent(printed))
		}
		_ = t.shell.Cancel()
		return printed, fmt.Errorf("it has not ended after %s, and has printed\n%s", limit, indent(printed))
	}
	if code != "0" {
		n, _ := strconv.Atoi(code) // a shell's
		return printed, exitError{n, printed}
	}
	return printed, nil
}

// serves matches a command of which is known when it is ready, and ready what it says then.
var (
	serves = regexp.MustCompile(`\bblixt run\b`)
	ready  = "INFO serving "
)

// background has the second window run a command, once what runs there has been interrupted,
// and returns when it has ended or says what is shown.
func (t *terminal) background(c document.Command, limit time.Duration) error {
	if err := t.interrupt(); err != nil {
		return err
	}
	if c.Prints == "" && serves.MatchString(c.Text) {
		c.Prints = ready + "…\n"
	}
	// With job control the command has a group of its own, and does not ignore interrupts.
	t.log = t.typed + 1
	out, code := filepath.Join(scripts, strconv.Itoa(t.log)+".out"), filepath.Join(scripts, strconv.Itoa(t.log)+".code")
	command := fmt.Sprintf("set -m; { trap : INT; ( trap - INT\n%s\n); echo $? >%s; } </dev/null >%s 2>&1 &\nset +m; echo $!", c.Text, code, out)
	printed, err := t.run("", command, limit)
	if err != nil {
		return err
	}
	if t.job, err = strconv.Atoi(strings.TrimSpace(printed)); err != nil {
		return err
	}
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		exit, ended := t.exit()
		text, _ := os.ReadFile(t.m.Path(out)) // not there yet
		said := string(text)
		switch shown := compareParts(c.Prints, said); {
		case c.Prints != "" && shown == nil:
			return nil
		case ended && exit == "0" && c.Prints == "":
			return nil
		case ended:
			return fmt.Errorf("it ends with exit code %s, and has printed\n%s", exit, indent(said))
		case time.Since(begin) < limit:
		case c.Prints == "":
			return fmt.Errorf("it has not ended after %s, and has printed\n%s", limit, indent(said))
		default:
			return fmt.Errorf("after %s, %w", limit, shown)
		}
	}
}

// exit returns with what exit code the command in the second window has ended.
func (t *terminal) exit() (code string, ended bool) {
	text, err := os.ReadFile(t.m.Path(filepath.Join(scripts, strconv.Itoa(t.log)+".code")))
	return strings.TrimSpace(string(text)), err == nil && len(text) > 0
}

// interrupt ends what runs in the second window, as Ctrl-C does.
func (t *terminal) interrupt() error {
	if t.job == 0 {
		return nil
	}
	job := "-" + strconv.Itoa(t.job)
	t.job = 0
	if _, ended := t.exit(); ended {
		return nil
	}
	if _, err := t.m.Run(10*time.Second, "bash", "-c", "kill -s INT -- "+job); err != nil {
		return err
	}
	const patience = 20 * time.Second
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(20 * time.Millisecond) {
		if _, ended := t.exit(); ended {
			return nil
		}
	}
	_, _ = t.m.Run(10*time.Second, "bash", "-c", "kill -s KILL -- "+job)
	text, _ := os.ReadFile(t.m.Path(filepath.Join(scripts, strconv.Itoa(t.log)+".out")))
	return fmt.Errorf("what runs in the background does not end after %s, and has printed\n%s", patience, indent(string(text)))
}

// output is what a shell has printed since somebody took it last.
type output struct {
	mu    sync.Mutex
	more  *sync.Cond
	text  bytes.Buffer
	ended bool
}

func newOutput() *output {
	o := &output{}
	o.more = sync.NewCond(&o.mu)
	return o
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.more.Broadcast()
	return o.text.Write(p)
}

// take returns what there is.
func (o *output) take() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.text.Reset()
	return o.text.String()
}

func (o *output) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.more.Broadcast()
}

func (o *output) isEnd() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ended
}

// await waits for a line that begins with the mark, wherever it begins, and returns what came
// before and the rest of it.
func (o *output) await(mark string, limit time.Duration) (before, rest string, found bool) {
	late := false
	timer := time.AfterFunc(limit, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		late = true
		o.more.Broadcast()
	})
	defer timer.Stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		before, after, is := strings.Cut(o.text.String(), mark)
		if rest, _, whole := strings.Cut(after, "\n"); is && whole {
			o.text.Reset()
			return before, rest, true
		}
		if o.ended || late {
			return before, "", false
		}
		o.more.Wait()
	}
}

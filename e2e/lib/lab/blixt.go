// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// startLimit is how long a start may take: loading the program verifies it.
const startLimit = 20 * time.Second

// serving is what blixt logs whenever it has put a new configuration to work.
const serving = "INFO serving "

// Build has make compile blixt into the directory, as it is released, and returns the
// binary's path. BLIXT_BINARY names a binary to use instead, where there is no Go, or where
// several packages are tested.
func Build(dir string) (string, error) {
	if path := os.Getenv("BLIXT_BINARY"); path != "" {
		return path, nil
	}
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/kubernetes-sigs/blixt").Output()
	if err != nil {
		return "", fmt.Errorf("find blixt's source: %w", err)
	}
	path := filepath.Join(dir, "blixt")
	out, err := exec.Command("make", "-C", strings.TrimSpace(string(root)), "build", "BIN="+path).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build blixt: %w\n%s", err, out)
	}
	return path, nil
}

// Blixt is a `blixt run` on a node.
type Blixt struct {
	Node *Node
	// Binary is what Build returned.
	Binary string
	// Name of the data plane: the lab's.
	Name string
	// Dir holds the YAML; "": there is none.
	Dir string
	// Args are further arguments of run.
	Args []string
	// Lasting leaves the defaults of what outlasts a file: removals wait, and what was
	// good last is kept on disk. Else what is served is what is written, at once.
	Lasting bool
	// Via is the command that is to run it, such as Bpfman.Via; none: directly.
	Via []string

	cmd  *exec.Cmd
	done chan struct{}
	exit error
	log  logbook
}

// Blixt prepares a load balancer that serves c on interfaces of the node.
func (l *Lab) Blixt(n *Node, binary string, c *Config, interfaces ...string) (*Blixt, error) {
	if l.err != nil {
		return nil, l.err
	}
	b := &Blixt{Node: n, Binary: binary, Name: l.name, Dir: filepath.Join(l.dir, n.Name)}
	b.Args = []string{"--node-name", n.Name, "--flows", "65536"}
	for _, i := range interfaces {
		b.Args = append(b.Args, "--interface", i)
	}
	if err := os.MkdirAll(b.Dir, 0o755); err != nil {
		return nil, err
	}
	l.atEnd(b.Stop)
	if c == nil {
		return b, nil
	}
	return b, c.Write(b.Dir)
}

// Command returns the command that Start runs.
func (b *Blixt) Command() []string {
	args := slices.Concat(b.Via, []string{b.Binary, "run", "--name", b.Name})
	if !b.Lasting {
		args = append(args, "--removal-grace", "0s", "--state-dir", "")
	}
	args = append(args, b.Args...) // which may say otherwise
	if b.Dir != "" {
		args = append(args, "--filename", b.Dir)
	}
	return args
}

// HasFlag reports whether run has a flag, which that of an earlier version may lack.
func (b *Blixt) HasFlag(flag string) (bool, error) {
	out, err := b.Node.Run(10*time.Second, b.Binary, "run", "--help")
	return strings.Contains(out, flag+" "), err
}

// Start runs blixt and returns when it serves.
func (b *Blixt) Start() error {
	from := b.log.mark()
	if err := b.Begin(); err != nil {
		return err
	}
	return b.await(from, serving, startLimit)
}

// Begin runs blixt and does not wait for it.
func (b *Blixt) Begin() error {
	args := b.Command()
	b.cmd = b.Node.Command(context.Background(), args[0], args[1:]...)
	b.cmd.Stdout, b.cmd.Stderr = &b.log, &b.log
	if err := b.Node.Start(b.cmd); err != nil {
		b.cmd = nil
		return fmt.Errorf("start blixt: %w", err)
	}
	b.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		b.exit = cmd.Wait()
		close(done)
	}(b.cmd, b.done)
	return nil
}

// await waits for a line of the log that contains text and was written after the mark.
func (b *Blixt) await(from int, text string, limit time.Duration) error {
	deadline := time.After(limit)
	for {
		said := b.log.since(from)
		if strings.Contains(said, text) {
			return nil
		}
		select {
		case <-b.done:
			return fmt.Errorf("blixt has ended: %w\n%s", b.exit, b.log.since(from))
		case <-deadline:
			return fmt.Errorf("after %s blixt has not said %q:\n%s", limit, text, said)
		case <-time.After(time.Millisecond):
		}
	}
}

// Apply writes the configuration and returns when it is served. It must differ from the
// previous one.
func (b *Blixt) Apply(c *Config) error {
	from := b.log.mark()
	if err := c.Write(b.Dir); err != nil {
		return err
	}
	return b.await(from, serving, 5*time.Second)
}

// AwaitLog calls do and waits until blixt logs text.
func (b *Blixt) AwaitLog(text string, limit time.Duration, do func() error) error {
	from := b.log.mark()
	if err := do(); err != nil {
		return err
	}
	return b.await(from, text, limit)
}

// Log returns what blixt has printed, over all its starts.
func (b *Blixt) Log() string { return b.log.since(0) }

// LastLog returns the last line that blixt has printed, without its time.
func (b *Blixt) LastLog() string {
	lines := strings.Split(strings.TrimSpace(b.Log()), "\n")
	_, line, _ := strings.Cut(lines[len(lines)-1], "INFO ")
	return line
}

// Pid returns the process's id, 0 if there is none.
func (b *Blixt) Pid() int {
	if b.cmd == nil {
		return 0
	}
	return b.cmd.Process.Pid
}

// Signal sends a signal, after which the process may go on.
func (b *Blixt) Signal(signal syscall.Signal) error {
	if b.cmd == nil {
		return nil
	}
	return b.cmd.Process.Signal(signal)
}

// Ended reports whether there is no process, or it has ended by itself.
func (b *Blixt) Ended() bool {
	if b.cmd == nil {
		return true
	}
	select {
	case <-b.done:
		return true
	default:
		return false
	}
}

// Stop sends SIGTERM and waits until blixt ends. Returns the error that blixt reports.
func (b *Blixt) Stop() error {
	return b.end(syscall.SIGTERM)
}

// Kill sends SIGKILL, so that blixt cleans up nothing.
func (b *Blixt) Kill() error {
	if err := b.end(syscall.SIGKILL); err != nil && !isExit(err) {
		return err
	}
	return nil
}

func isExit(err error) bool {
	_, is := errors.AsType[*exec.ExitError](err)
	return is
}

func (b *Blixt) end(signal syscall.Signal) error {
	if b.cmd == nil {
		return nil
	}
	_ = b.cmd.Process.Signal(signal) // it may have ended by itself
	select {
	case <-b.done:
	case <-time.After(10 * time.Second):
		_ = b.cmd.Process.Kill()
		<-b.done
		return fmt.Errorf("blixt does not end after %s:\n%s", signal, b.Log())
	}
	b.cmd = nil
	return b.exit
}

// Run runs another of blixt's commands for this data plane, such as status.
func (b *Blixt) Run(args ...string) (string, error) {
	args = slices.Concat(b.Via, []string{b.Binary}, args, []string{"--name", b.Name})
	return b.Node.Run(10*time.Second, args[0], args[1:]...)
}

// logbook records what a process prints.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) mark() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Len()
}

func (l *logbook) since(mark int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text.Bytes()[mark:])
}

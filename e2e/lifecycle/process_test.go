// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// startFails runs blixt with further arguments, and fails the test unless it ends with an
// error that contains all these words.
func startFails(w *labtest.World, via, args []string, words ...string) {
	w.Helper()
	b := w.Blixt
	all := slices.Concat(via, []string{b.Binary, "run", "--filename", b.Dir, "--name", b.Name}, b.Args, args)
	out, err := b.Node.Run(20*time.Second, all[0], all[1:]...)
	if err == nil {
		w.Fatalf("blixt run %v starts:\n%s", args, out)
	}
	for _, word := range words {
		if text := out + err.Error(); !strings.Contains(text, word) {
			w.Errorf("blixt run %v says %s, not %q", args, text, word)
		}
	}
}

// TestFailedStartBreaksNoFlow kills Blixt, and starts it in ways that fail. The kernel
// goes on serving through all of them.
func TestFailedStartBreaksNoFlow(t *testing.T) {
	w := labtest.New(t, "failed", 1, 0)
	w.StartBlixt(one(w.Backends[0]), "eth0", "eth1")
	clients := w.StartClients(20, "tcp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	before := w.Status()
	w.Check(w.Blixt.Kill())
	for _, c := range []struct {
		name  string
		via   []string
		args  []string
		words []string
	}{
		{"an unknown flag", nil, []string{"--no-such-flag"}, []string{"no-such-flag"}},
		{"a directory that does not exist", nil, []string{"--filename", "/nonexistent"}, []string{"/nonexistent"}},
		{"SNAT ports of the host", nil, []string{"--snat-ports", "20000-60000"}, []string{"--snat-ports"}},
		{"tables of another size", nil, []string{"--flows", "131072"}, []string{"--replace"}},
		{"no bytecode image", nil, []string{"--bytecode", "/nonexistent"}, []string{"/nonexistent"}},
		{"no seed", nil, []string{"--seed-file", "/nonexistent"}, []string{"/nonexistent"}},
		{"an unknown loader", nil, []string{"--loader", "magic"}, []string{"magic"}},
		{"no bpfman", nil, []string{"--loader", "bpfman"}, []string{"builtin"}},
		{"no directory for state", nil, []string{"--run-dir", "/proc/nonexistent"}, []string{"/proc/nonexistent"}},
		{"no capability", []string{"setpriv", "--bounding-set", "-all", "--inh-caps", "-all"}, nil, []string{"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"}},
		{"one capability less", []string{"setpriv", "--bounding-set", "-perfmon,-sys_admin"}, nil, []string{"CAP_PERFMON"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.In(t)
			startFails(w, c.via, c.args, c.words...)
			clients.CheckUnharmed(c.name)
			after := w.Status()
			if before.Program.ProgramID != after.Program.ProgramID || len(before.Program.Links) != len(after.Program.Links) {
				t.Errorf("of program %d with %d links became %d with %d", before.Program.ProgramID, len(before.Program.Links), after.Program.ProgramID, len(after.Program.Links))
			}
			if got, err := w.Answerer(labtest.VIP(4, 80)); got != "backend-1" {
				t.Errorf("%q answers a new connection: %v", got, err)
			}
		})
	}
	w.Check(w.Blixt.Start())
	clients.CheckUnharmed("a start that succeeds")
	clients.Stop()
	w.Check(w.Blixt.Stop())
	checkNothingLeft(w)
}

// TestUnloadRemovesWhatAProcessLeft has blixt unload remove what a process leaves that
// keeps or is killed.
func TestUnloadRemovesWhatAProcessLeft(t *testing.T) {
	w := labtest.New(t, "unload", 1, 0)
	w.StartBlixt(one(w.Backends[0]), "eth0", "eth1")
	b := w.Blixt
	if out, err := b.Run("unload"); err == nil || !strings.Contains(out+err.Error(), "process") {
		t.Fatalf("unload under a running process: %v\n%s", err, out)
	}
	w.Check(b.Stop())
	b.Args = append(b.Args, "--keep")
	for _, end := range []func() error{b.Kill, b.Stop} {
		w.Check(b.Start())
		clients := w.StartClients(5, "tcp", labtest.VIP(4, 80))
		w.Check(end())
		clients.CheckUnharmed("no process")
		clients.Stop()
		out, err := b.Run("unload", "--dry-run")
		w.Check(err)
		for _, what := range []string{"would remove", lab.VIP4, lab.VIP6, "ingress of eth0", "egress of eth1", lab.Pins(b.Name), "state.json"} {
			if !strings.Contains(out, what) {
				t.Errorf("a dry run does not name %s:\n%s", what, out)
			}
		}
		if n := len(w.Programs("eth0")); n != 2 {
			t.Fatalf("after a dry run eth0 has %d programs, want 2", n)
		}
		out, err = b.Run("unload")
		w.Check(err)
		if !strings.Contains(out, "removed") {
			t.Errorf("unload says %s", out)
		}
		checkNothingLeft(w)
		out, err = b.Run("unload")
		w.Check(err)
		if !strings.Contains(out, "Nothing is left") {
			t.Errorf("unload says %s", out)
		}
	}
}

// TestNoNotesAreNeeded removes the files in the run directory after a kill, as a container
// or a reboot with a kept BPF file system does: what the killed process left is removed by
// blixt unload, and taken over and removed by the next process.
func TestNoNotesAreNeeded(t *testing.T) {
	w := labtest.New(t, "notes", 1, 0)
	w.StartBlixt(one(w.Backends[0]), "eth0", "eth1")
	killed := func() {
		w.Check(w.Blixt.Kill())
		notes, err := filepath.Glob(filepath.Join(loader.DefaultRunDir, w.Blixt.Name+".*"))
		w.Check(err)
		for _, path := range notes {
			w.Check(os.RemoveAll(path))
		}
	}
	killed()
	out, err := w.Blixt.Run("unload")
	w.Check(err)
	if !strings.Contains(out, lab.VIP4) || !strings.Contains(out, lab.VIP6) {
		t.Errorf("unload says %s", out)
	}
	checkNothingLeft(w)

	w.Check(w.Blixt.Start())
	clients := w.StartClients(5, "tcp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	killed()
	w.Check(w.Blixt.Start())
	clients.CheckUnharmed("a start without notes")
	clients.Stop()
	w.Check(w.Blixt.Stop())
	checkNothingLeft(w)
}

// TestProgramWhosePinsAreHiddenIsRemovedByItsNumber kills Blixt, and starts it with another
// BPF file system: there is no pin of what still serves.
func TestProgramWhosePinsAreHiddenIsRemovedByItsNumber(t *testing.T) {
	w := labtest.New(t, "hidden", 1, 0)
	w.StartBlixt(one(w.Backends[0]), "eth0", "eth1")
	program := fmt.Sprint(w.Status().Program.ProgramID)
	unload := func(args ...string) (string, error) {
		return w.Balancer.Run(10*time.Second, w.Blixt.Binary, append([]string{"unload", "--program", program}, args...)...)
	}
	hidden := filepath.Join(t.TempDir(), "bpf")
	t.Cleanup(func() { _ = syscall.Unmount(hidden, syscall.MNT_DETACH) })
	w.Check(os.MkdirAll(hidden, 0o755))
	w.Check(syscall.Mount("bpf", hidden, "bpf", 0, ""))
	if out, err := unload("--bpffs", hidden); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Fatalf("while it runs: %v\n%s", err, out)
	}
	if out, err := unload(); err == nil || !strings.Contains(err.Error(), "--name "+w.Blixt.Name) {
		t.Errorf("its pins are there: %v\n%s", err, out)
	}
	w.Check(w.Blixt.Kill())
	startFails(w, nil, []string{"--bpffs", hidden}, "blixt unload --program "+program)
	out, err := unload("--bpffs", hidden, "--dry-run")
	w.Check(err)
	if n := len(w.Programs("eth0")); n != 2 || !strings.Contains(out, "would remove") {
		t.Errorf("a dry run leaves %d programs, and says %s", n, out)
	}
	_, err = unload("--bpffs", hidden)
	w.Check(err)
	if n := len(w.Programs("eth0")); n != 0 {
		t.Errorf("eth0 has %d programs", n)
	}
	_, err = w.Blixt.Run("unload") // pins, addresses, files
	w.Check(err)
	checkNothingLeft(w)
	if _, err := unload(); err == nil || !strings.Contains(err.Error(), "none of Blixt's") {
		t.Errorf("there is none: %v", err)
	}
}

// TestHangupEndsNoDaemon sends SIGHUP to a process without a terminal.
func TestHangupEndsNoDaemon(t *testing.T) {
	w := labtest.New(t, "hangup", 1, 0)
	b, err := w.Standard.Blixt(w.Balancer, labtest.Binary, one(w.Backends[0]), "eth0", "eth1")
	w.Check(err)
	b.Via = []string{"env", "--default-signal=HUP", "setsid", "--wait"} // it has no terminal and no nohup, whoever runs the test
	w.Blixt = b
	w.Check(b.Start())
	clients := w.StartClients(5, "tcp", labtest.VIP(4, 80))
	text, err := os.ReadFile(filepath.Join(loader.DefaultRunDir, b.Name+".lock"))
	w.Check(err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	w.Check(err)
	w.Check(b.AwaitLog("read", labtest.Patience, func() error { return syscall.Kill(pid, syscall.SIGHUP) }))
	clients.CheckUnharmed("SIGHUP")
	clients.Stop()
	w.Check(b.AwaitLog("nothing is left", labtest.Patience, func() error { return syscall.Kill(pid, syscall.SIGTERM) }))
	await(t, b.Ended) // and setsid, which waited for it
	checkNothingLeft(w)
}

// TestHangupOfTheTerminalLeavesNothing closes the terminal that Blixt runs in.
func TestHangupOfTheTerminalLeavesNothing(t *testing.T) {
	w := labtest.New(t, "terminal", 1, 0)
	w.StartBlixt(one(w.Backends[0]), "eth0", "eth1") // writes the files
	b := w.Blixt
	w.Check(b.Stop())
	args := append([]string{b.Binary, "run", "--filename", b.Dir, "--name", b.Name}, b.Args...)
	log := filepath.Join(t.TempDir(), "log")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// script holds the terminal's other end: it hangs up when script ends.
	terminal := w.Balancer.Command(ctx, "env", "--default-signal=HUP", "script", "-qefc", strings.Join(args, " ")+" 2>"+log, "/dev/null")
	w.Check(w.Balancer.Start(terminal))
	await(t, func() bool {
		text, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(text), "INFO serving")
	})
	cancel()
	_ = terminal.Wait() // it was killed
	await(t, func() bool {
		return exec.Command("pgrep", "-f", "run --filename "+b.Dir).Run() != nil
	})
	checkNothingLeft(w)
}

// await waits until f returns true.
func await(t *testing.T, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it takes too long")
		}
	}
}

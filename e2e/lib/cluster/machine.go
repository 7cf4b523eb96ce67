// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// Machine is a computer of the cluster. As a lab.Node it is only its network namespace,
// in which sockets are opened and the host's commands are run. Exec runs commands with
// its files and processes. Outside has only a network.
type Machine struct {
	*lab.Node
	dir string
}

// makeFolders makes the folders in which files are written for the machine.
func (m *Machine) makeFolders() error {
	for _, dir := range []string{"daemons", "pid", "log"} {
		if err := os.MkdirAll(filepath.Join(m.dir, dir), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// boot starts process 1 and returns when it has made its root file system. If there is
// a listener, it forwards the listener's connections.
func (m *Machine) boot(binary, path string, l *net.TCPListener, args ...string) error {
	log, err := os.Create(filepath.Join(m.dir, "log", "machine.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(binary, append([]string{"-dir", m.dir, "-hostname", m.Name}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "PATH="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC}
	if l != nil {
		file, err := l.File()
		if err != nil {
			return err
		}
		defer file.Close()
		cmd.ExtraFiles = []*os.File{file}
	}
	if err := m.Start(cmd); err != nil {
		return fmt.Errorf("start machine %s: %w", m.Name, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := os.WriteFile(m.path("init.pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644); err != nil {
		return err
	}
	return lab.Eventually(10*time.Second, func() error {
		select {
		case err := <-ended:
			ended <- err
			return fmt.Errorf("machine %s has ended: %w\n%s", m.Name, err, m.Log("machine"))
		default:
		}
		_, err := os.Stat(m.path("ready"))
		return err
	})
}

// kill kills all processes of the machine.
func (m *Machine) kill() error {
	pid := readPid(m.path("init.pid"))
	if pid == 0 {
		return fmt.Errorf("power off %s: it is off", m.Name)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("power off %s: %w", m.Name, err)
	}
	for _, name := range []string{"ready", "init.pid", "pid"} {
		if err := os.RemoveAll(m.path(name)); err != nil {
			return err
		}
	}
	if err := m.makeFolders(); err != nil {
		return err
	}
	return lab.Eventually(10*time.Second, func() error {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("process %d of %s has not ended: %w", pid, m.Name, err)
		}
		return nil
	})
}

func (m *Machine) path(name string) string { return filepath.Join(m.dir, name) }

// Launch has the machine run a daemon, and restart it whenever it ends.
func (m *Machine) Launch(name string, args ...string) error {
	written := m.path("daemons/." + name) // not read before it is complete
	if err := os.WriteFile(written, []byte(strings.Join(args, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(written, m.path("daemons/"+name))
}

// Halt ends a daemon until Resume.
func (m *Machine) Halt(name string) error {
	if err := os.Rename(m.path("daemons/"+name), m.path("daemons/.halted-"+name)); err != nil {
		return fmt.Errorf("halt %s: %w", name, err)
	}
	return lab.Eventually(10*time.Second, func() error {
		if m.Pid(name) != 0 {
			return fmt.Errorf("%s on %s has not ended", name, m.Name)
		}
		return nil
	})
}

// Remove ends a daemon for good.
func (m *Machine) Remove(name string) error {
	if err := m.Halt(name); err != nil {
		return err
	}
	return os.Remove(m.path("daemons/.halted-" + name))
}

// Resume starts a daemon again that was halted.
func (m *Machine) Resume(name string) error {
	return os.Rename(m.path("daemons/.halted-"+name), m.path("daemons/"+name))
}

// Kill kills a daemon. The machine restarts it.
func (m *Machine) Kill(ctx context.Context, name string) error {
	pid := m.Pid(name)
	if pid == 0 {
		return fmt.Errorf("kill %s on %s: it does not run", name, m.Name)
	}
	_, err := m.Exec(ctx, "kill", "-KILL", strconv.Itoa(pid))
	return err
}

// Pid returns a daemon's process id in the machine, 0 if it does not run.
func (m *Machine) Pid(name string) int { return readPid(m.path("pid/" + name)) }

func readPid(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(string(text)) // 0 while it is being written
	return pid
}

// Daemons returns the names of the daemons that run, or are to run.
func (m *Machine) Daemons() ([]string, error) {
	files, err := os.ReadDir(m.path("daemons"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it has only a network
	}
	var names []string
	for _, f := range files {
		if !strings.HasPrefix(f.Name(), ".") {
			names = append(names, f.Name())
		}
	}
	return names, err
}

// Log returns the last lines that a daemon has written.
func (m *Machine) Log(name string) string {
	text, err := os.ReadFile(m.path("log/" + name + ".log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// Command prepares a command that sees the files and processes of the machine.
func (m *Machine) Command(ctx context.Context, args ...string) *exec.Cmd {
	enter := []string{"--net=" + m.Node.Path(), "--"}
	if pid := readPid(m.path("init.pid")); pid != 0 {
		enter = []string{"--target", strconv.Itoa(pid), "--mount", "--net", "--pid", "--uts", "--ipc", "--"}
	}
	return exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
}

// File returns the path by which the host finds a file of the machine.
func (m *Machine) File(path string) string {
	return fmt.Sprintf("/proc/%d/root%s", readPid(m.path("init.pid")), path)
}

// Exec runs a command in the machine and returns what it printed. The error has what it
// printed on stderr.
func (m *Machine) Exec(ctx context.Context, args ...string) (string, error) {
	return output(m.Command(ctx, args...))
}

func output(cmd *exec.Cmd) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, errs.String())
	}
	return out.String(), nil
}

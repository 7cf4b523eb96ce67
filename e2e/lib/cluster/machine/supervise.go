// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// daemon is a process that has to run as long as its file exists.
type daemon struct {
	pid  int
	next time.Time // not started before
}

// supervise runs a daemon for each file in "daemons", which has one word of the command
// on each line. It restarts those that end, and kills those whose file is gone. The
// folder "pid" has the process ids of those that run. It returns an error if it cannot
// go on.
func (m *machine) supervise() error {
	m.daemons = map[string]*daemon{}
	if err := os.WriteFile(filepath.Join(m.dir, "ready"), nil, 0o644); err != nil {
		return err
	}
	for {
		if err := m.reap(); err != nil {
			return err
		}
		if err := m.compare(); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (m *machine) compare() error {
	files, err := os.ReadDir(filepath.Join(m.dir, "daemons"))
	if err != nil {
		return fmt.Errorf("read daemons: %w", err)
	}
	wanted := map[string]bool{}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".") {
			continue // being written
		}
		wanted[f.Name()] = true
		d := m.daemons[f.Name()]
		if d == nil {
			d = &daemon{}
			m.daemons[f.Name()] = d
		}
		if d.pid == 0 && time.Now().After(d.next) {
			if err := m.start(f.Name(), d); err != nil {
				return fmt.Errorf("start %s: %w", f.Name(), err)
			}
		}
	}
	for name, d := range m.daemons {
		switch {
		case wanted[name]:
		case d.pid == 0:
			delete(m.daemons, name)
		default:
			_ = syscall.Kill(d.pid, syscall.SIGKILL) // its end is reaped later
		}
	}
	return nil
}

func (m *machine) start(name string, d *daemon) error {
	text, err := os.ReadFile(filepath.Join(m.dir, "daemons", name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // gone meanwhile
	}
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(m.dir, "log", name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	args := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	d.next = time.Now().Add(time.Second)
	if err := cmd.Start(); err != nil {
		_, _ = fmt.Fprintln(log, "machine:", err)
		return nil
	}
	d.pid = cmd.Process.Pid
	_ = cmd.Process.Release() // reap waits for it
	return os.WriteFile(m.pidFile(name), []byte(strconv.Itoa(d.pid)), 0o644)
}

func (m *machine) pidFile(name string) string { return filepath.Join(m.dir, "pid", name) }

// reap waits for ended processes: daemons, and the orphans that process 1 inherits.
func (m *machine) reap() error {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if pid <= 0 {
			return nil // also when there is no process
		}
		for name, d := range m.daemons {
			if d.pid != pid {
				continue
			}
			d.pid = 0
			fmt.Printf("%s %s has ended: exit status %d, signal %d\n", time.Now().Format(time.TimeOnly), name, status.ExitStatus(), status.Signal())
			if err := os.Remove(m.pidFile(name)); err != nil {
				return err
			}
		}
	}
}

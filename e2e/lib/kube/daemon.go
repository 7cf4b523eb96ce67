// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// What .ci/kubernetes builds.
const (
	kubernetes = "kubernetes-v1.37.2"
	etcd       = "etcd-v3.7.3"
)

// daemon is a process that the server has started.
type daemon struct {
	name, log string
	cmd       *exec.Cmd
	done      chan struct{} // closed when it has ended
}

// run starts what .ci/kubernetes has built, with a log in the server's folder.
func (s *Server) run(project, name string, args ...string) (*daemon, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(cache, "blixt", project, name)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("no %s: run .ci/kubernetes (%w)", name, err)
	}
	d := &daemon{name: name, log: filepath.Join(s.dir, name+".log"), cmd: exec.Command(path, args...), done: make(chan struct{})}
	log, err := os.Create(d.log)
	if err != nil {
		return nil, err
	}
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the signal comes when this thread ends, not the process
		defer runtime.UnlockOSThread()
		err := d.cmd.Start()
		_ = log.Close()
		started <- err
		if err == nil {
			_ = d.cmd.Wait()
		}
		close(d.done)
	}()
	return d, <-started
}

func (d *daemon) kill() {
	if d.cmd.Process == nil {
		return
	}
	_ = d.cmd.Process.Kill() // it may have ended
	<-d.done
}

// failure returns the end of the daemon's log.
func (d *daemon) failure() error {
	log, err := os.ReadFile(d.log)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return fmt.Errorf("%s said:\n%s", d.name, strings.Join(lines[max(0, len(lines)-10):], "\n"))
}

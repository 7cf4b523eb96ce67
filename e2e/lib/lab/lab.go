// SPDX-License-Identifier: Apache-2.0

// Package lab makes small networks of network namespaces and runs Blixt in them. In
// comes a topology, by a few calls; out come nodes in which sockets are opened and
// commands are run. No packet leaves the namespaces, and Close leaves nothing behind.
// What a killed run has left, the next one of the same name removes.
package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

const (
	netnsDir = "/run/netns"
	lockDir  = "/run/lock"
)

// ErrNotRoot says that namespaces cannot be made.
var ErrNotRoot = errors.New("network namespaces and eBPF need root: run this with sudo")

// Lab is a network of namespaces. After the first error of building it further calls do
// nothing, and Err returns that error.
type Lab struct {
	name  string
	dir   string   // for files, removed at the end
	lock  *os.File // keeps a second run of the same name waiting
	bpffs *os.File // keeps the BPF file system mounted
	home  int      // the namespace that we came from
	nodes []*Node
	plugs []plug
	ends  []func() error
	err   error
}

// New begins a network. The name is that of the data plane, and, with a dot behind it,
// the prefix of namespaces and files. It has no dot itself, so that nothing of a lab
// with a longer name is taken for a leftover of this one.
func New(name string) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	if err := os.MkdirAll(lockDir, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(lockDir, name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		fmt.Fprintf(os.Stderr, "waiting for another run of %s to end\n", name)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	l := &Lab{name: name, lock: lock, home: -1}
	err = l.holdBPFFS()
	if err == nil {
		err = l.removeLeftovers()
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.home, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		l.dir, err = os.MkdirTemp("", name+".")
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Err returns why the network could not be built, or nil.
func (l *Lab) Err() error { return l.err }

// Dir returns a directory that lives as long as the network.
func (l *Lab) Dir() string { return l.dir }

// try records the first error.
func (l *Lab) try(err error) {
	if l.err == nil {
		l.err = err
	}
}

// atEnd has Close call f. The function that was given last is called first.
func (l *Lab) atEnd(f func() error) { l.ends = append(l.ends, f) }

// Close ends every process, and removes every namespace, pin and file.
func (l *Lab) Close() error {
	var errs []error
	for _, end := range slices.Backward(l.ends) {
		errs = append(errs, end())
	}
	for _, n := range l.nodes {
		errs = append(errs, n.close())
	}
	l.ends, l.nodes = nil, nil
	if l.home >= 0 {
		errs = append(errs, unix.Close(l.home))
		l.home = -1
	}
	errs = append(errs, l.removeFiles(), l.releaseBPFFS(), l.lock.Close())
	return errors.Join(errs...)
}

// removeLeftovers removes what a killed run of the same name has left. Its processes
// are those in its namespaces, as no other lab has these names.
func (l *Lab) removeLeftovers() error {
	spaces, err := filepath.Glob(filepath.Join(netnsDir, l.name+".*"))
	if err != nil {
		return err
	}
	for _, path := range spaces {
		name := filepath.Base(path)
		out, err := exec.Command("ip", "netns", "pids", name).Output()
		if err != nil {
			out = nil // a file that is no namespace any more
		}
		for _, word := range strings.Fields(string(out)) {
			if pid, err := strconv.Atoi(word); err == nil && pid != os.Getpid() {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
			}
		}
		if err := ip("", "netns del "+name); err != nil {
			return err
		}
	}
	return l.removeFiles()
}

// Pins returns where a data plane of that name is pinned.
func Pins(name string) string { return loader.Pins(loader.DefaultBPFFS, name) }

// removeFiles removes pins, the state files of a data plane that was killed, and the
// lab's own files.
func (l *Lab) removeFiles() error {
	errs := []error{os.RemoveAll(Pins(l.name))}
	for _, dir := range []string{loader.DefaultRunDir, "/var/lib/blixt", os.TempDir()} {
		files, err := filepath.Glob(filepath.Join(dir, l.name+".*"))
		errs = append(errs, err)
		for _, file := range files {
			errs = append(errs, os.RemoveAll(file))
		}
	}
	_ = os.Remove(filepath.Dir(Pins(l.name))) // only if nobody else uses it
	return errors.Join(errs...)
}

// Eventually calls f until it returns nil. After the limit it returns f's last error.
func Eventually(limit time.Duration, f func() error) error {
	deadline := time.Now().Add(limit)
	pause := time.Millisecond
	for {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %s: %w", limit, err)
		}
		time.Sleep(pause)
		pause = min(pause*2, 50*time.Millisecond)
	}
}

// ip runs ip(8) with commands, in the namespace if one is named.
func ip(namespace string, commands ...string) error {
	args := []string{"-batch", "-"}
	if namespace != "" {
		args = append([]string{"-n", namespace}, args...)
	}
	cmd := exec.Command("ip", args...)
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %s: %w", namespace, strings.TrimSpace(string(out)), err)
	}
	return nil
}

// MayRaiseLimits reports whether root has CAP_SYS_RESOURCE here. bpfman does not start
// without it.
func MayRaiseLimits() (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0, err
}

// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	seccomp "github.com/elastic/go-seccomp-bpf"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/umask"
)

// childOf names the directory of the process that confines itself, startOf that
// of a process that a profile confines first.
const (
	childOf = "BLIXT_TEST_CONFINE"
	startOf = "BLIXT_TEST_START"
)

func TestMain(m *testing.M) {
	if dir, underProfile := strings.CutPrefix(os.Getenv(startOf), "profile:"); underProfile {
		fmt.Println(start(dir))
		os.Exit(1)
	} else if dir != "" {
		if err := work(dir); err != nil {
			fmt.Println(err)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(childOf); dir != "" {
		for _, err := range child(dir) {
			fmt.Println(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Even root, with all its capabilities, cannot do what is forbidden: it is the
// filter that forbids it, and nothing else.
func TestConfinedProcessCanDoNothingElse(t *testing.T) {
	dir := t.TempDir()
	for _, file := range []string{"open/file", "closed/file"} {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), childOf+"="+dir)
	out, err := c.CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

// The profile allows an unprivileged user to start in a container and to
// confine itself.
func TestProfileIsEnoughToStart(t *testing.T) {
	umask.Open(t)
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), startOf+"=profile:"+dir)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
	if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

// start installs the profile, as a container runtime would, and becomes the
// process that works.
func start(dir string) error {
	p, err := policy(starting)
	if err != nil {
		return err
	}
	if err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: p}); err != nil {
		return err
	}
	if err := os.Setenv(startOf, dir); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
}

func work(dir string) error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := Process(Options{Read: []string{dir}}); err != nil {
		return err
	}
	if _, err := os.ReadFile(filepath.Join(dir, "file")); err != nil {
		return err
	}
	return connect(l)
}

// bpfLast is more than the last command of bpf(2).
const bpfLast = 64

// child tries everything, before and after, and returns what differs from what
// should be.
func child(dir string) (wrong []error) {
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	before := commands()
	listening, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return []error{err}
	}
	for name, try := range forbidden(dir) {
		if err := try(); errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			bad("%s is refused before anything is confined: %w", name, err)
		}
	}
	// A thread that is there already is confined as well.
	threads, tried := make(chan struct{}), make(chan error)
	go func() {
		<-threads
		tried <- exec.Command("/bin/true").Run()
	}()
	if err := Process(Options{Read: []string{filepath.Join(dir, "open")}}); err != nil {
		return append(wrong, err)
	}
	close(threads)
	if err := <-tried; !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		bad("another thread starts a program: %w", err)
	}
	for command, errno := range commands() {
		switch allowed := slices.Contains(bpfCommands, uint64(command)); {
		case allowed && errno != before[command]:
			bad("bpf command %d: %w, before: %w", command, errno, before[command])
		case !allowed && errno != unix.EPERM:
			bad("bpf command %d is allowed: %w", command, errno)
		case !allowed && before[command] == unix.EPERM:
			bad("bpf command %d is refused before anything is confined: the test proves nothing", command)
		}
	}
	for name, try := range forbidden(dir) {
		if err := try(); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
			bad("%s is allowed: %w", name, err)
		}
	}
	if _, err := os.ReadFile(filepath.Join(dir, "open", "file")); err != nil {
		bad("a file that was asked for: %w", err)
	}
	if err := connect(listening); err != nil {
		bad("a TCP port: %w", err)
	}
	// The runtime still works: memory, threads that block, timers.
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			_ = bytes.Repeat([]byte("x"), 4<<20)
			_, _ = unix.Poll(nil, 1) // refused or not
			time.Sleep(time.Millisecond)
		})
	}
	all.Wait()
	return wrong
}

// commands returns the result of each command of bpf(2) with invalid
// attributes, which no command accepts.
func commands() []syscall.Errno {
	all := make([]syscall.Errno, bpfLast)
	for command := range all {
		var attr [128]byte
		// Above what the kernel knows of each command: E2BIG for all, unless EPERM
		// comes first.
		attr[127] = 1
		_, _, all[command] = syscall.Syscall(unix.SYS_BPF, uintptr(command), uintptr(unsafe.Pointer(&attr)), 4096)
	}
	return all
}

func connect(l net.Listener) error {
	c, err := net.DialTimeout("tcp4", l.Addr().String(), time.Second)
	if err == nil {
		c.Close()
	}
	return err
}

// forbidden are actions of a process that was taken over.
func forbidden(dir string) map[string]func() error {
	socket := func(family, kind, protocol int) func() error {
		return func() error {
			fd, err := unix.Socket(family, kind, protocol)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}
	}
	call := func(number, a, b, c uintptr) func() error {
		return func() error {
			_, _, errno := syscall.Syscall(number, a, b, c)
			if errno == 0 {
				return nil
			}
			return errno
		}
	}
	all := map[string]func() error{
		"starting a program": func() error { return exec.Command("/bin/true").Run() },
		"forking":            call(unix.SYS_CLONE, unix.CLONE_SIGHAND, 0, 0), // without CLONE_VM: EINVAL
		"new code": func() error {
			m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
			if err == nil {
				err = unix.Munmap(m)
			}
			return err
		},
		"memory becoming code": func() error {
			m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
			if err != nil {
				return nil
			}
			defer func() { _ = unix.Munmap(m) }()
			return unix.Mprotect(m, unix.PROT_READ|unix.PROT_EXEC)
		},
		"tracing":          call(unix.SYS_PTRACE, 0xffff, 0, 0),
		"mounting":         call(unix.SYS_MOUNT, 1, 1, 1),
		"loading a module": call(unix.SYS_FINIT_MODULE, ^uintptr(0), 1, 0),
		"keys":             call(unix.SYS_KEYCTL, 0xffff, 0, 0),
		"namespaces":       call(unix.SYS_UNSHARE, 1, 0, 0),
		"io_uring":         call(unix.SYS_IO_URING_SETUP, 0, 0, 0),
		"user faults":      call(unix.SYS_USERFAULTFD, 0xffff, 0, 0),
		"other memory":     call(unix.SYS_PROCESS_VM_READV, ^uintptr(0), 0, 0),
		"renaming itself":  call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 99, 0),
		"UNIX socket":      socket(unix.AF_UNIX, unix.SOCK_STREAM, 0),
		"netlink":          socket(unix.AF_NETLINK, unix.SOCK_RAW, 0),
		"raw socket":       socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW),
		"Multipath TCP":    socket(unix.AF_INET, unix.SOCK_STREAM, 262),
	}
	if version, err := ll.LandlockGetABIVersion(); err == nil && version >= 1 {
		all["reading another file"] = func() error {
			_, err := os.ReadFile(filepath.Join(dir, "closed", "file"))
			return err
		}
		all["writing a file"] = func() error {
			return os.WriteFile(filepath.Join(dir, "open", "new"), nil, 0o644)
		}
	}
	return all
}

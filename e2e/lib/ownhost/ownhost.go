// SPDX-License-Identifier: Apache-2.0

// Package ownhost is for packages whose tests change the network of the host that they
// run on: it gives them one of their own.
package ownhost

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Main runs the tests in a process with network and mount namespaces of its own, which
// end with it. All its threads are in them, as code under test starts goroutines. In
// there, setUp comes before the tests. It does not return.
func Main(m *testing.M, setUp func() error) {
	const inside = "BLIXT_TEST_INSIDE"
	if os.Getenv(inside) != "" {
		if err := setUp(); err != nil {
			fail("set up the tests' host", err)
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig kills the child when this thread ends
	err := cmd.Run()
	if exit, ran := errors.AsType[*exec.ExitError](err); ran {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fail("these tests need root", err)
	}
	os.Exit(0)
}

// LoopbackUp is a setUp for Main: in a new network namespace that device is down.
func LoopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

func fail(what string, err error) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
	os.Exit(1)
}

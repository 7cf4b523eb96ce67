// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNameIsClaimedInTheNetworkNamespace(t *testing.T) {
	for _, name := range []string{"web", strings.Repeat("x", 200)} {
		c, err := NewClaim(name)
		must(t, err)
		if _, err := NewClaim(name); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
			t.Errorf("claimed twice: %v", err)
		}
		if running, err := Running(name); err != nil || running[name] != os.Getpid() {
			t.Errorf("there run %v, %v", running, err)
		}
		other, err := NewClaim(name + "2")
		must(t, err)
		must(t, other.Close())
		must(t, c.Close())
		c, err = NewClaim(name)
		must(t, err)
		must(t, c.Close())
	}
	// Another namespace has names of its own.
	c, err := NewClaim("web")
	must(t, err)
	n := newNeighbour(t)
	must(t, n.do(func() error {
		other, err := NewClaim("web")
		if err != nil {
			return err
		}
		return other.Close()
	}))
	must(t, c.Close())
}

func TestSecondInstanceWithOtherDirectoriesIsRefused(t *testing.T) {
	i := serving(t, false)
	o := i.Options
	o.RunDir, o.Files.StateDir = filepath.Join(t.TempDir(), "run"), ""
	if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "--name") {
		t.Errorf("a second one of the name: %v", err)
	}
	i.serves(near4 + ":80")
	eventuallyHas(t, "eth0", host4, near4)
}

// TestNameTakenByAnybodyKeepsNothingFromStarting has a user without rights take the name
// and never accept.
func TestNameTakenByAnybodyKeepsNothingFromStarting(t *testing.T) {
	taken := make(chan error)
	var ln *net.UnixListener
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, which has another user, ends here
		const nobody, unchanged = 65534, ^uintptr(0)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, unchanged, nobody, unchanged); errno != 0 {
			taken <- errno
			return
		}
		var err error
		ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: "@blixt/test", Net: "unix"})
		taken <- err
	}()
	must(t, <-taken)
	t.Cleanup(func() { ln.Close() })
	if _, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@blixt/test", Net: "unix"}); err == nil {
		t.Fatal("nobody has the name")
	}
	if running, err := Running(); err != nil || len(running) > 0 {
		t.Errorf("there run %v, %v", running, err)
	}
	veth(t, "eth0")
	up(t, "peer-eth0")
	assign(t, "eth0", host4+"/24")
	i := prepare(t, files(80, near4))
	i.start()
	i.serves(near4 + ":80")
}

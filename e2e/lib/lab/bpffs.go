// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// bpffsSource names, in the table of mounts, a BPF file system that a lab has
// mounted: one that the machine has is left as it is.
const bpffsSource = "blixt-lab"

// holdBPFFS mounts a BPF file system where Blixt pins by default, unless there is one,
// as systemd would. It stays until the last lab of all runs ends: a lab's blixt, which
// would mount it too, must not unmount it while another one is about to pin.
func (l *Lab) holdBPFFS() (err error) {
	if l.bpffs, err = share("bpffs"); err != nil {
		return err
	}
	// Two labs that begin at once would mount two, one over the other.
	begin, err := os.OpenFile(filepath.Join(lockDir, "blixt-bpffs.begin"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer begin.Close()
	if err := unix.Flock(int(begin.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", begin.Name(), err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(loader.DefaultBPFFS, &st); err != nil {
		return fmt.Errorf("stat %s: %w", loader.DefaultBPFFS, err)
	}
	if st.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	err = unix.Mount(bpffsSource, loader.DefaultBPFFS, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0711") // as blixt does
	if err != nil {
		return fmt.Errorf("mount BPF file system at %s: %w", loader.DefaultBPFFS, err)
	}
	return nil
}

// releaseBPFFS unmounts the BPF file system, if this is the last lab and nothing is
// pinned there.
func (l *Lab) releaseBPFFS() error {
	if l.bpffs == nil {
		return nil
	}
	defer l.bpffs.Close()
	if !last(l.bpffs) {
		return nil
	}
	ours, err := mountedFrom(loader.DefaultBPFFS, bpffsSource)
	if err != nil || !ours {
		return err
	}
	entries, err := os.ReadDir(loader.DefaultBPFFS)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".debug") { // the kernel's own, in every new one
			return nil
		}
	}
	if err := unix.Unmount(loader.DefaultBPFFS, 0); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("unmount BPF file system: %w", err)
	}
	return nil
}

// mountedFrom reports whether the topmost mount at a directory has this source.
func mountedFrom(dir, source string) (is bool, err error) {
	table, err := os.ReadFile("/proc/thread-self/mountinfo")
	for line := range strings.Lines(string(table)) {
		mount, kind, _ := strings.Cut(line, " - ")
		if at, of := strings.Fields(mount), strings.Fields(kind); len(at) > 4 && len(of) > 1 && at[4] == dir {
			is = of[1] == source
		}
	}
	return is, err
}

// share takes a lock that all labs share while they use something which the first of
// them creates and the last one removes.
func share(name string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(lockDir, "blixt-"+name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", lock.Name(), err), lock.Close())
	}
	return lock, nil
}

// last reports whether no other lab shares the lock. If so, none can until it is
// closed.
func last(lock *os.File) bool {
	return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

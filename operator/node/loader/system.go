// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// CheckPrivileges returns an error that names the missing capabilities, unless
// this process may load and attach programs.
func CheckPrivileges() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	var missing []string
	for _, c := range []struct {
		name string
		bit  int
		// CAP_SYS_ADMIN stood for some of them before they were there, and still does.
		byAdmin bool
	}{
		{"CAP_BPF", unix.CAP_BPF, true},
		{"CAP_PERFMON", unix.CAP_PERFMON, true}, // the verifier forbids arithmetic with pointers without
		{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, false},
	} {
		has := func(bit int) bool { return data[bit/32].Effective&(1<<(bit%32)) != 0 }
		if !has(c.bit) && !(c.byAdmin && has(unix.CAP_SYS_ADMIN)) {
			missing = append(missing, c.name)
		}
	}
	if missing != nil {
		return noPrivilege(missing...)
	}
	return nil
}

// CheckKernel returns an error if the kernel has no TCX. It runs before anything
// is loaded: the verifiers of earlier kernels refuse the program as well, with
// messages that do not help an administrator.
func CheckKernel() error {
	next, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, tcxNext), asm.Return()},
	})
	if err != nil {
		return fmt.Errorf("load a program of two instructions: %w", err)
	}
	defer next.Close()
	// A kernel that has TCX answers that there is no such interface.
	_, err = link.AttachTCX(link.TCXOptions{Interface: math.MaxInt32, Program: next, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, link.ErrNotSupported) {
		return noFeature("TCX links", "6.6", err)
	}
	return nil
}

// tcxNext is TCX_NEXT of linux/bpf.h.
const tcxNext = -1

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "(unknown)"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// mountBPFFS mounts a BPF file system at dir unless there is one already.
// Returns an error if this process may not.
func mountBPFFS(dir string) (mounted bool, err error) {
	var st unix.Statfs_t
	err = unix.Statfs(dir, &st)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return false, fmt.Errorf("make mount point: %w", err)
		}
		err = unix.Statfs(dir, &st)
	}
	if err != nil {
		return false, fmt.Errorf("stat %s: %w", dir, err)
	}
	if st.Type == unix.BPF_FS_MAGIC {
		return false, nil
	}
	err = unix.Mount("bpf", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0711")
	if errors.Is(err, unix.EPERM) {
		return false, fmt.Errorf("no BPF file system at %s: %w", dir, noPrivilege("CAP_SYS_ADMIN (for mounting it)"))
	}
	if err != nil {
		return false, fmt.Errorf("mount BPF file system at %s: %w", dir, err)
	}
	return true, nil
}

// unmountBPFFS unmounts a BPF file system unless others have pinned something
// there.
func unmountBPFFS(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read %s: %w", dir, err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".debug") { // the kernel's own, in every new one
			return nil
		}
	}
	if err := unix.Unmount(dir, 0); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("unmount BPF file system: %w", err)
	}
	return nil
}

// permit lets the group use the maps, and nothing else: a writer of that group
// opens them by path, reads and writes them, and cannot unpin or attach anything.
func (l *Loader) permit() error {
	if l.group == 0 {
		return nil
	}
	give := func(path string, mode fs.FileMode) error {
		if err := os.Chown(path, 0, l.group); err != nil {
			return fmt.Errorf("permit group %d: %w", l.group, err)
		}
		if err := os.Chmod(path, mode); err != nil {
			return fmt.Errorf("permit group %d: %w", l.group, err)
		}
		return nil
	}
	if err := os.Chmod(filepath.Dir(l.dir), 0o711); err != nil {
		return fmt.Errorf("permit group %d: %w", l.group, err)
	}
	for _, dir := range []string{l.dir, l.Dir()} {
		if err := give(dir, 0o750); err != nil {
			return err
		}
	}
	for name := range l.maps {
		if err := give(filepath.Join(l.Dir(), name), 0o660); err != nil {
			return err
		}
	}
	return nil
}

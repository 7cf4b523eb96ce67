// SPDX-License-Identifier: Apache-2.0

package bpfman

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// netnsDir is where ip(8) mounts network namespaces that have names.
const netnsDir = "/run/netns"

// findNetns returns a path under which bpfman, of process pid, can open this
// network namespace; "": bpfman is in it already. It prefers a name in netnsDir,
// which outlives this process.
func findNetns(pid int) (string, error) {
	own, err := inode("/proc/self/ns/net")
	if err != nil {
		return "", fmt.Errorf("read network namespace: %w", err)
	}
	if pid != 0 {
		if theirs, err := inode(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && theirs == own {
			return "", nil
		}
	}
	paths, err := filepath.Glob(filepath.Join(netnsDir, "*"))
	if err != nil {
		return "", fmt.Errorf("list network namespaces: %w", err)
	}
	for _, path := range paths {
		if other, err := inode(path); err == nil && other == own {
			return path, nil
		}
	}
	return fmt.Sprintf("/proc/%d/ns/net", os.Getpid()), nil
}

// inode returns the inode number of a file, which identifies a namespace.
func inode(path string) (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return st.Ino, err
}

// listener returns the process that listens at a socket, 0: it is in another PID
// namespace. If systemd listens for bpfman, it is systemd, which is in the network
// namespace that bpfman will be in.
func listener(socket string) (pid int, err error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := raw.Control(func(fd uintptr) {
		var peer *unix.Ucred
		if peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(peer.Pid)
		}
	}); e != nil {
		return 0, e
	}
	return pid, err
}

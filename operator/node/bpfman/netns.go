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

// named is where ip(8) mounts the network namespaces that have names.
const named = "/run/netns"

// findNetns returns the path by which bpfman, of which pid listens, finds
// this network namespace; "" if it is in the same one. A name outlives this
// process, which its own path does not.
func findNetns(pid int) (string, error) {
	own, err := inode("/proc/self/ns/net")
	if err != nil {
		return "", fmt.Errorf("look at network namespace: %w", err)
	}
	if pid != 0 {
		if theirs, err := inode(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && theirs == own {
			return "", nil
		}
	}
	paths, err := filepath.Glob(filepath.Join(named, "*"))
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

func inode(path string) (uint64, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return st.Ino, err
}

// listener returns the process that listens at a socket, 0 if that is one
// that we do not see. Where systemd listens for bpfman, that is systemd, in
// the namespace that bpfman will be in.
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

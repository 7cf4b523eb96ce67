// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

type machine struct {
	dir, hostname   string
	shared, sysctls list
	daemons         map[string]*daemon
}

type mount struct {
	source, target, kind string
	flags                uintptr
	options              string
	optional             bool // not every kernel has it
}

// makeRoot makes the mount namespace of this process look like a machine. No mount,
// file or write inside reaches the host.
func (m *machine) makeRoot() error {
	if err := unix.Sethostname([]byte(m.hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	root := filepath.Join(m.dir, "root")
	for _, dir := range []string{"root", "upper", "work", "kubelet", "containerd"} {
		if err := os.MkdirAll(filepath.Join(m.dir, dir), 0o755); err != nil {
			return err
		}
	}
	overlay := fmt.Sprintf("lowerdir=/,upperdir=%s/upper,workdir=%s/work", m.dir, m.dir)
	mounts := []mount{
		{target: "/", flags: unix.MS_REC | unix.MS_PRIVATE},
		{source: "overlay", target: root, kind: "overlay", options: overlay},
		{source: "proc", target: root + "/proc", kind: "proc"},
		// The network's own, with the host's cgroups: those have no namespace here.
		{source: "sysfs", target: root + "/sys", kind: "sysfs"},
		{source: "/sys/fs/cgroup", target: root + "/sys/fs/cgroup", flags: unix.MS_BIND | unix.MS_REC},
		{source: "bpf", target: root + "/sys/fs/bpf", kind: "bpf"},
		{source: "debugfs", target: root + "/sys/kernel/debug", kind: "debugfs", optional: true},
		{source: "tracefs", target: root + "/sys/kernel/tracing", kind: "tracefs", optional: true},
		{source: "/dev", target: root + "/dev", flags: unix.MS_BIND | unix.MS_REC},
		{source: "tmpfs", target: root + "/run", kind: "tmpfs", options: "mode=755"},
		{source: "tmpfs", target: root + "/tmp", kind: "tmpfs", options: "mode=1777"},
		// An overlay cannot lie on an overlay.
		{source: m.dir + "/containerd", target: root + "/var/lib/containerd", flags: unix.MS_BIND},
		{source: m.dir + "/kubelet", target: root + "/var/lib/kubelet", flags: unix.MS_BIND},
	}
	for _, dir := range m.shared {
		mounts = append(mounts, mount{source: dir, target: root + dir, flags: unix.MS_BIND})
	}
	for _, mount := range mounts {
		if err := mount.do(); err != nil {
			return err
		}
	}
	if err := m.pretend(root); err != nil {
		return err
	}
	return enter(root)
}

func (m mount) do() error {
	if m.source != "" {
		if err := os.MkdirAll(m.target, 0o755); err != nil && !m.optional {
			return err
		}
	}
	err := unix.Mount(m.source, m.target, m.kind, m.flags, m.options)
	if err != nil && !m.optional {
		return fmt.Errorf("mount %s at %s: %w", m.source, m.target, err)
	}
	return nil
}

// pretend shows kernel parameters, of which the host has only one set, with the values
// that the kubelet wants. Else it would change the host's.
func (m *machine) pretend(root string) error {
	for _, sysctl := range m.sysctls {
		name, value, _ := strings.Cut(sysctl, "=")
		file := filepath.Join(m.dir, name)
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		target := filepath.Join(root, "proc/sys", strings.ReplaceAll(name, ".", "/"))
		if err := unix.Mount(file, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("hide kernel parameter %s: %w", name, err)
		}
	}
	return nil
}

// enter makes a folder the root, and unmounts the old one.
func enter(root string) error {
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("enter %s: %w", root, err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("make %s the root: %w", root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil { // the old one lies over the new one
		return fmt.Errorf("unmount old root: %w", err)
	}
	// Pods' mounts propagate as on a machine that systemd has started.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	return os.Chdir("/")
}

// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

const cgroupDir = "/sys/fs/cgroup"

// hierarchies returns the folders of cgroup v2, or of each of v1.
func hierarchies() ([]string, error) {
	if _, err := os.Stat(filepath.Join(cgroupDir, "cgroup.controllers")); err == nil {
		return []string{cgroupDir}, nil
	}
	entries, err := os.ReadDir(cgroupDir)
	var dirs []string
	for _, e := range entries {
		if e.IsDir() { // cpu,cpuacct and such are; their links are not
			dirs = append(dirs, filepath.Join(cgroupDir, e.Name()))
		}
	}
	return dirs, err
}

// makeCgroup makes the cgroup for a node's pods that the kubelet expects.
func makeCgroup(name string) error {
	dirs, err := hierarchies()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		group := filepath.Join(dir, name)
		if err := os.MkdirAll(group, 0o755); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // in v1 a new one has none
			all, err := os.ReadFile(filepath.Join(dir, file))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(group, file), all, 0)
			}
			if err != nil {
				return fmt.Errorf("fill cgroup: %w", err)
			}
		}
	}
	return nil
}

// removeCgroups removes the cgroups whose names have a prefix, with all processes in
// them.
func removeCgroups(prefix string) error {
	dirs, err := hierarchies()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		groups, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
		if err != nil {
			return err
		}
		for _, group := range groups {
			// The kernel lets go of the last processes a moment after they ended.
			if err := lab.Eventually(10*time.Second, func() error { return removeCgroup(group) }); err != nil {
				return fmt.Errorf("remove cgroup: %w", err)
			}
		}
	}
	return nil
}

func removeCgroup(group string) error {
	var all []string
	err := filepath.WalkDir(group, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(all) {
		if err := os.Remove(dir); err != nil {
			return err
		}
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// Down ends the cluster and removes all of it.
func (c *Cluster) Down() error {
	var errs []error
	for _, m := range c.Machines() {
		errs = append(errs, m.Leave())
	}
	return errors.Join(append(errs, Down(c.Options.Name))...)
}

// Down removes a cluster, or what is left of it. The name "" stands for e2e.
func Down(name string) error {
	name = cmp.Or(name, "e2e")
	unlock, err := lock(name)
	if err != nil {
		return err
	}
	defer unlock()
	return remove(name)
}

func remove(name string) error {
	if err := removeNetwork(prefix + name + "."); err != nil {
		return err
	}
	if err := removeCgroups(prefix + name + "."); err != nil {
		return err
	}
	return os.RemoveAll(dirOf(name))
}

// lock has other processes wait that use a cluster of the same name.
func lock(name string) (unlock func(), err error) {
	if strings.ContainsAny(name, "./*?[,:") {
		return nil, fmt.Errorf("cluster %q: a name must be letters, digits and dashes", name)
	}
	if os.Geteuid() != 0 {
		return nil, lab.ErrNotRoot
	}
	path := filepath.Join(os.TempDir(), prefix+name+".lock")
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		ours, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if there, err := os.Stat(path); err == nil && os.SameFile(ours, there) {
			return func() {
				_ = os.Remove(path)
				_ = f.Close()
			}, nil
		}
		_ = f.Close() // whoever had it before has removed it
	}
}

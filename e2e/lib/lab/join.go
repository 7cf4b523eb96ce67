// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Join returns a node for an existing network namespace, by its name for ip(8). The
// caller has to call Leave.
func Join(name, space string) (*Node, error) {
	n := &Node{Name: name, lab: &Lab{name: space}, space: space}
	var err error
	if n.lab.home, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	if n.fd, err = unix.Open(n.Path(), unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		_ = unix.Close(n.lab.home)
		return nil, fmt.Errorf("open network namespace %s: %w", space, err)
	}
	return n, nil
}

// Leave ends what was started in a node that was joined. The namespace stays.
func (n *Node) Leave() error {
	var errs []error
	for _, end := range slices.Backward(n.lab.ends) {
		errs = append(errs, end())
	}
	n.lab.ends = nil
	return errors.Join(append(errs, unix.Close(n.fd), unix.Close(n.lab.home))...)
}

// Err returns the first error of changing the node, or nil.
func (n *Node) Err() error { return n.lab.err }

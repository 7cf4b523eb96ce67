// SPDX-License-Identifier: Apache-2.0

package dist

// Die does what the kernel does when the process is killed.
func (d *Dir) Die() error { return d.lock.Close() }

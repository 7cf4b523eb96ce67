// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// noPrivilege returns the error of a process that lacks capabilities.
func noPrivilege(capabilities ...string) error {
	return fmt.Errorf("loading eBPF needs %s: run as root, or with these capabilities", phrase.Join(capabilities))
}

// noFeature returns the error of a kernel that lacks a feature. since is the
// first version of Linux that has it.
func noFeature(feature, since string, err error) error {
	return fmt.Errorf("kernel %s has no %s, which came with Linux %s: %w", kernelRelease(), feature, since, err)
}

// AttachError is the failure to attach to one interface.
type AttachError struct {
	Interface string
	Direction string // ingress or egress
	// Others are the ids of the programs that are attached there already.
	Others []uint32
	Err    error
}

func (e *AttachError) Error() string {
	at := e.Interface + " " + e.Direction
	if len(e.Others) > 0 {
		return fmt.Sprintf("attach to %s, where programs %v are: %v", at, e.Others, e.Err)
	}
	return fmt.Sprintf("attach to %s: %v", at, e.Err)
}

func (e *AttachError) Unwrap() error { return e.Err }

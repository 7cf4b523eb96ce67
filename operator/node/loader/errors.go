// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"fmt"
	"strings"
)

// PrivilegeError says which capabilities the process lacks.
type PrivilegeError struct {
	Missing []string
}

func (e *PrivilegeError) Error() string {
	return fmt.Sprintf("loading eBPF needs %s: run as root, or with these capabilities", strings.Join(e.Missing, " and "))
}

// FeatureError says what the kernel lacks.
type FeatureError struct {
	Feature string
	// Needs is the first kernel that has it.
	Needs string
	Err   error
}

func (e *FeatureError) Error() string {
	return fmt.Sprintf("kernel %s has no %s, which came with Linux %s: %v", kernelRelease(), e.Feature, e.Needs, e.Err)
}

func (e *FeatureError) Unwrap() error { return e.Err }

// LockedError says who holds a name.
type LockedError struct {
	Name string
	// PID of the holder, 0 if unknown.
	PID int
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("data plane %q is held by process %d: stop that one first, or choose another name", e.Name, e.PID)
}

// MismatchError says in what the loaded maps differ from the object's.
type MismatchError struct {
	Dir     string
	Differs []string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("what is loaded at %s does not fit this program and these options (%s): use the options of then, or replace it, which ends all its flows",
		e.Dir, strings.Join(e.Differs, "; "))
}

// AttachError says which interface could not be attached to.
type AttachError struct {
	Interface string
	// Direction is ingress, egress or, if there is no such interface, empty.
	Direction string
	// Others are the ids of the programs that are attached there.
	Others []uint32
	Err    error
}

func (e *AttachError) Error() string {
	at := e.Interface
	if e.Direction != "" {
		at += " " + e.Direction
	}
	if len(e.Others) > 0 {
		return fmt.Sprintf("attach to %s, where programs %v are: %v", at, e.Others, e.Err)
	}
	return fmt.Sprintf("attach to %s: %v", at, e.Err)
}

func (e *AttachError) Unwrap() error { return e.Err }

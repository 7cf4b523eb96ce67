// SPDX-License-Identifier: Apache-2.0

package bpfman

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// UnreachableError says that there is no bpfman to ask.
type UnreachableError struct {
	Socket string
	Err    error
}

func (e *UnreachableError) Error() string {
	advice := ""
	switch {
	case errors.Is(e.Err, fs.ErrNotExist), errors.Is(e.Err, unix.ECONNREFUSED):
		advice = ": is bpfman running? Start it (systemctl start bpfman.socket), or name its socket with --bpfman-socket"
	case errors.Is(e.Err, fs.ErrPermission):
		advice = ": run as root, or in the group that the socket belongs to"
	}
	return fmt.Sprintf("no bpfman at %s (%v)%s", e.Socket, e.Err, advice)
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// RefusedError says what bpfman answered.
type RefusedError struct {
	// What was asked of it.
	What string
	// Said is its answer.
	Said string
	// Advice is what may help, or empty.
	Advice string
	Err    error
}

func (e *RefusedError) Error() string {
	text := fmt.Sprintf("bpfman: %s: %s", e.What, e.Said)
	if e.Advice != "" {
		text += " (" + e.Advice + ")"
	}
	return text
}

func (e *RefusedError) Unwrap() error { return e.Err }

// refused turns the error of a call into a RefusedError.
func refused(what string, err error) error {
	s := status.Convert(err)
	e := &RefusedError{What: what, Said: s.Message(), Err: err}
	switch s.Code() {
	case codes.Unavailable, codes.DeadlineExceeded:
		e.Advice = "bpfman has ended or is stuck, as it is after a full disk: see its log, make room if need be, restart it and try again"
		return e
	case codes.Unimplemented:
		e.Advice = "this is no bpfman, or one before v0.6.0"
		return e
	}
	for _, a := range advices {
		if strings.Contains(e.Said, a.said) {
			e.Advice = a.advice
			break
		}
	}
	return e
}

const wantsSignatures = "bpfman.toml wants signatures: let bpfman reach tuf-repo-cdn.sigstore.dev, or set verify_enabled = false there and use --verify-key here"

// advices are by words that bpfman says, the first that fits: it has no codes.
var advices = []struct{ said, advice string }{
	{"database lock", "another process uses bpfman's database: try again; after a full disk, restart bpfman"},
	{"netns file", "bpfman does not see this network namespace by that path; name one that it sees with --netns"},
	{"namespace path", "bpfman does not see this network namespace by that path; name one that it sees with --netns"},
	{"nvalid Interface", "bpfman sees no such interface there; name this network namespace with --netns"},
	{"bpf_mprog_attach", "its database names programs of this interface that the kernel does not have there: bpfman list links shows them, bpfman detach or unload removes them; Linux 6.6 is needed for TCX"},
	{"Operation not permitted", "the kernel refuses it to bpfman: it needs root, and no second BPF file system may be mounted over " + pins},
	{"resource busy", "another program has the interface for itself"},
	{"ImageManager", wantsSignatures},
	{"sigstore", wantsSignatures},
	{"triangulating", wantsSignatures},
	{"signature", wantsSignatures},
	{"Digest error", "the image or its layer is damaged, there or on the way: try again, and if that does not help push the image again"},
	{"pull bytecode", "bpfman pulls it itself: the registry must be reachable for it by HTTPS, with a certificate that its machine trusts; or pull it with blixt bytecode pull and name that directory"},
}

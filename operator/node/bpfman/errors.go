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

// unreachable returns the error of a socket at which no bpfman answers, with what
// may help.
func unreachable(socket string, err error) error {
	advice := ""
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		advice = ": is bpfman running? Start it (systemctl start bpfman.socket), or name its socket with --bpfman-socket"
	case errors.Is(err, fs.ErrPermission):
		advice = ": run as root, or in the group that the socket belongs to"
	}
	return fmt.Errorf("no bpfman at %s (%w)%s", socket, err, advice)
}

// refused returns the error of a call that bpfman refused: its answer, and what
// may help.
func refused(call string, err error) error {
	s := status.Convert(err)
	text := fmt.Sprintf("bpfman: %s: %s", call, s.Message())
	if advice := adviceOn(s); advice != "" {
		text += " (" + advice + ")"
	}
	return errors.New(text)
}

// adviceOn returns what may help against an answer of bpfman; "": unknown.
func adviceOn(s *status.Status) string {
	switch s.Code() {
	case codes.Unavailable, codes.DeadlineExceeded:
		return "bpfman has ended or is stuck, as it is after a full disk: see its log, make room if need be, restart it and try again"
	case codes.Unimplemented:
		return "this is no bpfman, or one before v0.6.0"
	}
	for _, a := range advices {
		if strings.Contains(s.Message(), a.answer) {
			return a.advice
		}
	}
	return ""
}

const wantsSignatures = "bpfman.toml wants signatures: let bpfman reach tuf-repo-cdn.sigstore.dev, or set verify_enabled = false there and use --verify-key here"

// advices maps words of bpfman's answers, which have no codes, to advice. The first
// that fits counts.
var advices = []struct{ answer, advice string }{
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

// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
)

// directions in the order of attaching: replies are translated before a flow can
// begin.
var directions = []struct {
	name   string
	attach ebpf.AttachType
}{{"egress", ebpf.AttachTCXEgress}, {"ingress", ebpf.AttachTCXIngress}}

// linkKey is the name of a link's pin. It has the interface's index, as a name may
// change, and may contain a dot, which a BPF file system forbids.
type linkKey struct {
	ifindex   int
	direction string
}

func (k linkKey) String() string { return fmt.Sprintf("%d-%s", k.ifindex, k.direction) }

func parseLinkKey(name string) (linkKey, bool) {
	index, direction, ok := strings.Cut(name, "-")
	n, err := strconv.Atoi(index)
	return linkKey{n, direction}, ok && err == nil
}

// attached is a link, and the interface that it was last seen at.
type attached struct {
	link    link.Link
	path    string
	to      hostnet.Interface
	adopted bool // it is of an earlier run
	// revision is the hook's when nothing was wrong there, and yields the error of a
	// link that is left behind a program of somebody else.
	revision uint64
	yields   error
}

// id returns the kernel's number of the link, 0: unknown.
func (a *attached) id() link.ID {
	info, err := a.link.Info()
	if err != nil {
		return 0
	}
	return info.ID
}

// alive reports whether the link's interface still exists: the kernel sets the
// index of a link to 0 when its interface is removed.
func (a *attached) alive() bool {
	info, err := a.link.Info()
	return err == nil && info.TCX() != nil && info.TCX().Ifindex != 0
}

func (a *attached) close() error { return a.link.Close() }

func (a *attached) detach() error {
	if err := a.link.Detach(); err != nil {
		return fmt.Errorf("detach link: %w", err)
	}
	return nil
}

// drop detaches and unpins the link. Removing the pin and closing the descriptor
// would end it as well, but later, when a worker of the kernel frees it.
func (a *attached) drop() error {
	if err := a.detach(); err != nil {
		return err
	}
	if err := os.Remove(a.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unpin link: %w", err)
	}
	return a.link.Close()
}

// SetInterfaces attaches to exactly these interfaces. Links of others are dropped, and
// an interface that is gone meanwhile is no error. Where an interface cannot be attached
// to, it goes on with the others and returns AttachError. What has not changed costs no
// system call.
func (l *Loader) SetInterfaces(interfaces []hostnet.Interface) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.interfaces = interfaces
	return l.setInterfaces()
}

// setInterfaces attaches to exactly l.interfaces.
func (l *Loader) setInterfaces() error {
	var errs []error
	want := map[int]bool{}
	for _, i := range l.interfaces {
		want[i.Index] = true
		for _, d := range directions {
			k := linkKey{i.Index, d.name}
			if a := l.links[k]; a != nil && (i.Same(a.to) || a.alive()) {
				a.to = i
				continue
			}
			if err := l.attach(k, i, d.attach); err != nil && !errors.Is(err, unix.ENODEV) {
				errs = append(errs, &AttachError{Interface: i.Name, Direction: d.name, Others: others(i.Index, d.attach), Err: err})
			}
		}
	}
	if err := errors.Join(errs...); err != nil && l.starting {
		return err // the links that an earlier run left go on serving
	}
	for k, a := range l.toDetach() {
		if want[k.ifindex] {
			continue
		}
		errs = append(errs, a.drop())
		delete(l.links, k)
		delete(l.restored, k)
	}
	return errors.Join(errs...)
}

// toDetach yields all links, in the reverse order of attaching: those at egress go on translating
// answers to what was the last to come in.
func (l *Loader) toDetach() iter.Seq2[linkKey, *attached] {
	return func(yield func(linkKey, *attached) bool) {
		for _, d := range slices.Backward(directions) {
			for k, a := range l.links {
				if k.direction == d.name && !yield(k, a) {
					return
				}
			}
		}
	}
}

func (l *Loader) attach(k linkKey, to hostnet.Interface, attach ebpf.AttachType) error {
	if a := l.links[k]; a != nil { // of a previous interface with this index
		if err := a.drop(); err != nil {
			return err
		}
		delete(l.links, k)
	}
	// It is attached in front of all others: a program that ends with TCX_PASS
	// would hide packets from it, while it passes on what is not its own.
	ln, err := link.AttachTCX(link.TCXOptions{Interface: k.ifindex, Program: l.program, Attach: attach, Anchor: link.Head()})
	if errors.Is(err, link.ErrNotSupported) {
		return noFeature("TCX links", "6.6", err)
	}
	if err != nil {
		return err
	}
	a := &attached{link: ln, path: filepath.Join(l.dir, "links", k.String()), to: to}
	if err := a.pin(); err != nil {
		return errors.Join(err, ln.Close())
	}
	l.links[k] = a
	return nil
}

// others returns the ids of the programs on an interface, for AttachError.
func others(ifindex int, attach ebpf.AttachType) (ids []uint32) {
	at, err := queryHook(ifindex, attach)
	if err != nil {
		return nil
	}
	for _, p := range at.programs {
		ids = append(ids, p.ID)
	}
	return ids
}

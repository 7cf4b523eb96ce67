// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
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

type attached struct {
	link link.Link
	path string
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

// SetInterfaces attaches to exactly these interfaces. Links of an interface that is
// gone are dropped without an error. Where an interface does not exist or cannot be
// attached to, it goes on with the others and returns AttachError.
func (l *Loader) SetInterfaces(names []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	want := map[int]bool{}
	for _, name := range names {
		ifc, err := net.InterfaceByName(name)
		if err != nil {
			errs = append(errs, &AttachError{Interface: name, Err: err})
			continue
		}
		want[ifc.Index] = true
		for _, d := range directions {
			k := linkKey{ifc.Index, d.name}
			if a := l.links[k]; a != nil && a.alive() {
				continue
			}
			if err := l.attach(k, d.attach); err != nil {
				errs = append(errs, &AttachError{Interface: name, Direction: d.name, Others: others(ifc.Index, d.attach), Err: err})
			}
		}
	}
	for k, a := range l.links {
		if want[k.ifindex] {
			continue
		}
		errs = append(errs, a.drop())
		delete(l.links, k)
	}
	return errors.Join(errs...)
}

func (l *Loader) attach(k linkKey, attach ebpf.AttachType) error {
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
	path := filepath.Join(l.dir, "links", k.String())
	if err := ln.Pin(path); err != nil {
		return errors.Join(fmt.Errorf("pin link: %w", err), ln.Close())
	}
	l.links[k] = &attached{link: ln, path: path}
	return nil
}

// others returns the ids of the programs on an interface, for AttachError.
func others(ifindex int, attach ebpf.AttachType) (ids []uint32) {
	res, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: attach})
	if err != nil {
		return nil
	}
	for _, p := range res.Programs {
		ids = append(ids, uint32(p.ID))
	}
	return ids
}

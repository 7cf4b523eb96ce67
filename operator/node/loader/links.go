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

// directions in the order of attaching: replies are translated before there
// can be any.
var directions = []struct {
	name   string
	attach ebpf.AttachType
}{{"egress", ebpf.AttachTCXEgress}, {"ingress", ebpf.AttachTCXIngress}}

// linkKey is the name of a link's pin. An interface's name may contain a
// dot, which a BPF file system forbids, and it may change: hence the index.
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

// alive tells whether the link's interface still exists: the kernel sets the
// index of a link to 0 when its interface goes.
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

// drop detaches. Without its pin and its descriptor a link ends too, but some
// time later: the kernel has a worker free it.
func (a *attached) drop() error {
	if err := a.detach(); err != nil {
		return err
	}
	if err := os.Remove(a.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unpin link: %w", err)
	}
	return a.link.Close()
}

// SetInterfaces attaches to exactly these interfaces. Links of an interface
// that is gone are dropped without an error. Returns AttachError where an
// interface does not exist or refuses, having done all others.
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
	if a := l.links[k]; a != nil { // of an interface before this one
		if err := a.drop(); err != nil {
			return err
		}
		delete(l.links, k)
	}
	// First in line: a program before this one that ends with TCX_PASS would
	// hide packets, while this one hands on what is not its own.
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

// others returns the ids of the programs on an interface, for the message
// that says who is in the way.
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

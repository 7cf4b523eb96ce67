// SPDX-License-Identifier: Apache-2.0

package bpfman

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"

	pb "github.com/bpfman/bpfman/clients/gobpfman/v1"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/loader"
)

// directions in the order of attaching: replies are translated before there
// can be any.
var directions = []string{"egress", "ingress"}

// SetInterfaces has bpfman attach to exactly these interfaces. It asks the
// kernel what is attached, and bpfman only if something is to change: it need
// not be there otherwise. Links of an interface that is gone are dropped without
// an error. Returns loader.AttachError where an interface does not exist or
// bpfman refuses, having done all others.
func (d *DataPlane) SetInterfaces(names []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	var missing []loader.LinkInfo
	keep := map[uint32]bool{}
	for _, name := range names {
		ifc, err := net.InterfaceByName(name)
		if err != nil {
			errs = append(errs, &loader.AttachError{Interface: name, Err: err})
			continue
		}
		for _, direction := range directions {
			there, err := attached(ifc.Index, direction, d.note.Program)
			i := slices.IndexFunc(d.note.Links, func(l loader.LinkInfo) bool { return l.Index == ifc.Index && l.Direction == direction })
			if i >= 0 && (there || err != nil) { // who may not look believes the note
				keep[d.note.Links[i].ID] = true
				continue
			}
			if there { // by a link of which there is no note
				continue
			}
			missing = append(missing, loader.LinkInfo{Interface: name, Index: ifc.Index, Direction: direction, ProgramID: d.note.Program})
		}
	}
	if len(missing) == 0 && len(keep) == len(d.note.Links) {
		return errors.Join(errs...)
	}
	err := d.session(func(ctx context.Context, c *client) error {
		// The dead first: bpfman orders the others by them.
		for _, l := range slices.Clone(d.note.Links) {
			if keep[l.ID] {
				continue
			}
			if err := c.detach(ctx, l.ID); err != nil {
				errs = append(errs, fmt.Errorf("%s %s: %w", l.Interface, l.Direction, err))
				continue
			}
			d.note.Links = slices.DeleteFunc(d.note.Links, func(other loader.LinkInfo) bool { return other.ID == l.ID })
		}
		failed := 0
		for _, l := range missing {
			if l.Index == failed { // by egress already: ingress alone would lose replies
				continue
			}
			if err := d.attach(ctx, c, l); err != nil {
				errs = append(errs, &loader.AttachError{Interface: l.Interface, Direction: l.Direction, Err: err})
				failed = l.Index
			}
		}
		return d.note.write(d.RunDir, d.Name)
	})
	return errors.Join(append(errs, err)...)
}

// attach has bpfman attach, and looks whether it did.
func (d *DataPlane) attach(ctx context.Context, c *client, l loader.LinkInfo) error {
	to := &pb.TCXAttachInfo{Priority: int32(d.Priority), Iface: l.Interface, Direction: l.Direction}
	netns := d.Netns
	if netns == "" {
		var err error
		if netns, err = findNetns(c.pid); err != nil {
			return err
		}
	}
	if netns != "" {
		to.Netns = &netns
	}
	id, err := c.attach(ctx, l.ProgramID, to)
	if err != nil {
		return err
	}
	// A path may lead bpfman to another namespace than us.
	if there, err := attached(l.Index, l.Direction, l.ProgramID); err == nil && !there {
		return errors.Join(fmt.Errorf("bpfman attached it in another network namespace than this one: name this one by a path that bpfman sees, with --netns (tried: %q)", netns), c.detach(ctx, id))
	}
	l.ID = id
	d.note.Links = append(d.note.Links, l)
	return nil
}

// pinnedLink returns where a link of bpfman leads, as the kernel says. Not
// every version of bpfman pins it there, and not everybody may look.
func pinnedLink(id uint32) (l loader.LinkInfo, err error) {
	ln, err := link.LoadPinnedLink(filepath.Join(pins, "links", fmt.Sprint(id)), nil)
	if err != nil {
		return l, err
	}
	defer ln.Close()
	info, err := ln.Info()
	if err != nil {
		return l, err
	}
	tcx := info.TCX()
	if tcx == nil {
		return l, errors.New("it is no TCX link")
	}
	l = loader.LinkInfo{ID: id, Index: int(tcx.Ifindex), Direction: "ingress", ProgramID: uint32(info.Program)}
	if ebpf.AttachType(tcx.AttachType) == ebpf.AttachTCXEgress {
		l.Direction = "egress"
	}
	if ifc, err := net.InterfaceByIndex(l.Index); err == nil {
		l.Interface = ifc.Name
	}
	return l, nil
}

// attached tells whether the kernel runs a program at an interface of this
// network namespace. Returns an error without CAP_NET_ADMIN.
func attached(ifindex int, direction string, id uint32) (bool, error) {
	at := ebpf.AttachTCXIngress
	if direction == "egress" {
		at = ebpf.AttachTCXEgress
	}
	found, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: at})
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(found.Programs, func(p link.AttachedProgram) bool { return uint32(p.ID) == id }), nil
}

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

	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// directions in the order of attaching: replies are translated before there
// can be any.
var directions = []string{"egress", "ingress"}

// SetInterfaces has bpfman attach to exactly these interfaces. It asks the
// kernel what is attached, and bpfman only if something is to change: it need
// not be there otherwise. Links of an interface that is gone are dropped without
// an error. Returns loader.AttachError where an interface does not exist or
// bpfman refuses, having done all others.
func (d *Loader) SetInterfaces(names []string) error {
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
	needless := func(l loader.LinkInfo) bool { return !keep[l.ID] }
	dead := func(o *Older) bool { return slices.ContainsFunc(o.Links, noInterface) }
	if len(missing) == 0 && !slices.ContainsFunc(d.note.Links, needless) && !slices.ContainsFunc(d.note.Older, dead) {
		return errors.Join(errs...)
	}
	err := d.session(func(ctx context.Context, c *client) error {
		// The dead first: bpfman orders the others by them. Older programs
		// get no new ones: behind this one they would be no use.
		errs = append(errs, d.note.detach(ctx, c, needless))
		for _, o := range d.note.Older {
			errs = append(errs, o.detach(ctx, c, noInterface))
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

// detach has bpfman detach links, but those that others have had it detach.
func (h *held) detach(ctx context.Context, c *client, needless func(loader.LinkInfo) bool) error {
	var errs []error
	h.Links = slices.DeleteFunc(h.Links, func(l loader.LinkInfo) bool {
		if !needless(l) {
			return false
		}
		err := c.detach(ctx, l.ID)
		if err == nil {
			return true
		}
		if p, e := c.get(ctx, h.Program); e == nil && !slices.Contains(p.links, l.ID) {
			return true
		}
		errs = append(errs, fmt.Errorf("%s %s: %w", l.Interface, l.Direction, err))
		return false
	})
	return errors.Join(errs...)
}

// noInterface tells whether a link's interface is gone.
func noInterface(l loader.LinkInfo) bool {
	_, err := net.InterfaceByIndex(l.Index)
	return err != nil
}

// attach has bpfman attach, and looks whether it did, behind older programs:
// before them it would take their flows for new ones. Until it has maps that
// are not empty it takes none.
func (d *Loader) attach(ctx context.Context, c *client, l loader.LinkInfo) error {
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
	if order, err := attachedIn(l.Index, l.Direction); err == nil {
		wrong := d.misplaced(order, l.ProgramID, netns)
		if wrong != nil {
			return errors.Join(wrong, c.detach(ctx, id))
		}
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

// misplaced tells what is wrong with the place of a program among those of an
// interface.
func (d *Loader) misplaced(order []uint32, id uint32, netns string) error {
	own := slices.Index(order, id)
	if own < 0 {
		return fmt.Errorf("bpfman attached it in another network namespace than this one: name this one by a path that bpfman sees, with --netns (tried: %q)", netns)
	}
	for _, o := range d.note.Older {
		if slices.Index(order, o.Program) > own {
			return fmt.Errorf("bpfman attached it before %s, whose flows it would break: give it the --priority of that one, or a higher number", o)
		}
	}
	return nil
}

// attached tells whether the kernel runs a program at an interface of this
// network namespace. Returns an error without CAP_NET_ADMIN.
func attached(ifindex int, direction string, id uint32) (bool, error) {
	order, err := attachedIn(ifindex, direction)
	return slices.Contains(order, id), err
}

// attachedIn returns the programs that the kernel runs at an interface of this
// network namespace, in order. Returns an error without CAP_NET_ADMIN.
func attachedIn(ifindex int, direction string) (order []uint32, err error) {
	at := ebpf.AttachTCXIngress
	if direction == "egress" {
		at = ebpf.AttachTCXEgress
	}
	found, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: at})
	if errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, p := range found.Programs {
		order = append(order, uint32(p.ID))
	}
	return order, nil
}

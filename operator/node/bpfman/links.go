// SPDX-License-Identifier: Apache-2.0

package bpfman

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"time"

	pb "github.com/bpfman/bpfman/clients/gobpfman/v1"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// directions in the order of attaching: replies are translated before a flow can
// begin.
var directions = []string{"egress", "ingress"}

// SetInterfaces has bpfman attach to exactly these interfaces. It asks the kernel
// what is attached, and connects to bpfman only if something is to change. Links of
// other interfaces are dropped. Where bpfman refuses, it goes on with the others and
// returns loader.AttachError.
func (d *Loader) SetInterfaces(interfaces []hostnet.Interface) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.interfaces = interfaces
	return d.setInterfaces()
}

// retryEvery is how often to ask bpfman again for what it has refused.
const retryEvery = 10 * time.Second

// Check is SetInterfaces for the same interfaces.
func (d *Loader) Check() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refused != nil && time.Since(d.asked) < retryEvery {
		return nil, d.refused
	}
	return nil, d.setInterfaces()
}

func (d *Loader) setInterfaces() (err error) {
	defer func() { d.asked, d.refused = time.Now(), err }()
	var errs []error
	var missing []loader.LinkInfo
	keep := map[uint32]bool{}
	type hook struct {
		index     int
		direction string
	}
	recorded := map[hook]uint32{}
	for _, l := range d.record.Links {
		recorded[hook{l.Index, l.Direction}] = l.ID
	}
	for _, ifc := range d.interfaces {
		for _, direction := range directions {
			there, err := attached(ifc.Index, direction, d.record.Program)
			id, known := recorded[hook{ifc.Index, direction}]
			if known && (there || err != nil) { // without the right to ask the kernel, the record counts
				keep[id] = true
				continue
			}
			if there { // by a link that is not in the record
				continue
			}
			missing = append(missing, loader.LinkInfo{Interface: ifc.Name, Index: ifc.Index, Direction: direction, ProgramID: d.record.Program})
		}
	}
	if err := errors.Join(errs...); err != nil && d.starting {
		return err // the links that there are go on serving
	}
	needless := func(l loader.LinkInfo) bool { return !keep[l.ID] }
	stale := func(p *Previous) bool { return slices.ContainsFunc(p.Links, interfaceGone) }
	if len(missing) == 0 && !slices.ContainsFunc(d.record.Links, needless) && !slices.ContainsFunc(d.record.Previous, stale) {
		return errors.Join(errs...)
	}
	err = d.session(func(ctx context.Context, c *client) error {
		// Links whose interface is gone come first: bpfman counts them when it
		// orders the others. Previous programs get no new links: behind this
		// program no packet would reach them.
		errs = append(errs, d.record.detach(ctx, c, needless))
		for _, p := range d.record.Previous {
			errs = append(errs, p.detach(ctx, c, interfaceGone))
		}
		failed := 0
		for _, l := range missing {
			if l.Index == failed { // at egress: with ingress alone, replies would be lost
				continue
			}
			if err := d.attach(ctx, c, l); err != nil {
				errs = append(errs, &loader.AttachError{Interface: l.Interface, Direction: l.Direction, Err: err})
				failed = l.Index
			}
		}
		return d.record.write(d.RunDir, d.Name)
	})
	return errors.Join(append(errs, err)...)
}

// detach has bpfman detach the needless links. It is no error if bpfman has
// detached one already.
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

// interfaceGone reports whether a link's interface is gone.
func interfaceGone(l loader.LinkInfo) bool {
	_, err := link.QueryPrograms(link.QueryOptions{Target: l.Index, Attach: ebpf.AttachTCXIngress})
	return errors.Is(err, unix.ENODEV)
}

// attach has bpfman attach the program, and checks that it is attached here and
// behind the previous programs: in front of them it would take their flows for new
// ones, as soon as its maps are written.
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
	// In bpfman's mount namespace the path may name another network namespace.
	if order, err := attachedPrograms(l.Index, l.Direction); err == nil {
		wrong := d.checkOrder(order, l.ProgramID, netns)
		if wrong != nil {
			return errors.Join(wrong, c.detach(ctx, id))
		}
	}
	l.ID = id
	d.record.Links = append(d.record.Links, l)
	return nil
}

// pinnedLink asks the kernel where a link of bpfman leads. Returns an error if
// this version of bpfman does not pin it, or this process may not open the pin.
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

// checkOrder returns an error if a program is not among those of an interface, or
// packets reach it before a previous one. order is from attachedPrograms.
func (d *Loader) checkOrder(order []uint32, id uint32, netns string) error {
	own := slices.Index(order, id)
	if own < 0 {
		return fmt.Errorf("bpfman attached it in another network namespace than this one: name this one by a path that bpfman sees, with --netns (tried: %q)", netns)
	}
	for _, p := range d.record.Previous {
		if slices.Index(order, p.Program) > own {
			return fmt.Errorf("bpfman attached it before %s, whose flows it would break: give it the --priority of that one, or a higher number", p)
		}
	}
	return nil
}

// attached reports whether the kernel runs a program at an interface of this
// network namespace. Returns an error without CAP_NET_ADMIN.
func attached(ifindex int, direction string, id uint32) (bool, error) {
	order, err := attachedPrograms(ifindex, direction)
	return slices.Contains(order, id), err
}

// attachedPrograms returns the programs that the kernel runs at an interface of
// this network namespace, in the order in which packets reach them. Returns an
// error without CAP_NET_ADMIN.
func attachedPrograms(ifindex int, direction string) (order []uint32, err error) {
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

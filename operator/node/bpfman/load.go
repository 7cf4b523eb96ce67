// SPDX-License-Identifier: Apache-2.0

package bpfman

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// load makes d.record describe what bpfman has of this name: one program that is
// to serve, loaded now if need be, and the previous ones.
func (d *Loader) load() error {
	return d.session(func(ctx context.Context, c *client) error {
		found, err := c.find(ctx, d.Name)
		if err != nil {
			return err
		}
		d.adopted = len(found) > 0
		if err := d.readHandovers(found); err != nil {
			return err
		}
		own, previous, needless := d.classify(found)
		if d.ports, err = d.choosePorts(own, previous); err != nil {
			return err
		}
		if own == nil {
			own, err = d.loadNew(ctx, c)
		} else {
			d.addNote("adopted program %d of bpfman, with its maps and %d links", own.id, len(own.links))
		}
		if err != nil {
			return err
		}
		ended := d.stored.Ended
		for p, why := range needless {
			if err := c.unload(ctx, p.id); err != nil {
				return err
			}
			d.addNote("bpfman unloaded program %d of this name (%s): %s", p.id, p.digest, why)
			if p.Draining {
				ended = &Ended{Program: p.id, Digest: p.digest, Time: time.Now(), Cut: why.cut}
			}
		}
		if own.Draining { // with Replace: no program is behind it any more
			if err := datapath.Drain(own.dir, false); err != nil {
				return d.unreadable(own, err)
			}
		}
		d.record = record{Socket: d.Socket, held: d.hold(own), Ended: ended}
		for _, p := range previous {
			d.record.Previous = append(d.record.Previous, d.newPrevious(p))
		}
		return d.record.write(d.RunDir, d.Name)
	})
}

// loadNew has bpfman load the program. undo unloads it if a later step fails.
func (d *Loader) loadNew(ctx context.Context, c *client) (*program, error) {
	p, err := c.load(ctx, &d.Options, d.digest())
	if err != nil {
		return nil, err
	}
	d.fresh, d.record.Program = true, p.id
	if _, err := d.Unfinished(p.dir); err != nil { // its maps cannot be opened, or have another layout
		return nil, d.unreadable(p, err)
	}
	return p, nil
}

// readHandovers fills in what the programs' maps say of them.
func (d *Loader) readHandovers(found []*program) (err error) {
	for _, p := range found {
		p.Handover, err = d.readHandover(p.dir)
		if err != nil && !d.Replace { // then it is unloaded, whatever it is
			return d.unreadable(p, err)
		}
	}
	return nil
}

// unreadable explains why a program's maps cannot be read.
func (d *Loader) unreadable(p *program, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("bpfman says that the maps of program %d are pinned at %s, which this process does not see (%w): run it where bpfman's %s is mounted", p.id, p.dir, err, pins)
	}
	return fmt.Errorf("program %d of bpfman: %w", p.id, err)
}

// pins is the BPF file system in which bpfman pins everything.
const pins = "/run/bpfman/fs"

// classify divides the programs of this name into the one to adopt, nil: none, the
// previous ones that may still have flows, and those that can be unloaded at once,
// with the reason.
//
// A program that drains is not adopted: a program behind it has flows that it would
// take for new ones. (In a cluster it may serve again: rollout first moves it behind
// the other one.)
func (d *Loader) classify(found []*program) (own *program, previous []*program, needless map[*program]reason) {
	digest := d.digest()
	for _, better := range []func(*program) bool{
		func(p *program) bool { return p.id == d.stored.Program },
		func(p *program) bool { return p.SNAT != lb.PortRange{} }, // it serves
		func(*program) bool { return true },
	} {
		i := slices.IndexFunc(found, func(p *program) bool { return p.digest == digest && (!p.Draining || d.Replace) && better(p) })
		if own == nil && i >= 0 {
			own = found[i]
		}
	}
	needless = map[*program]reason{}
	for _, p := range found {
		if p == own {
			continue
		}
		if why := d.whyNeedless(p); why.text != "" {
			needless[p] = why
		} else {
			previous = append(previous, p)
		}
	}
	return own, previous, needless
}

// reason is why a program can be unloaded.
type reason struct {
	text string
	cut  *uint64 // how many flows are lost, nil: unknown
}

func (r reason) String() string {
	if r.cut != nil && *r.cut > 0 {
		return fmt.Sprintf("%s, %d flows are lost", r.text, *r.cut)
	}
	return r.text
}

// whyNeedless returns why a program that is not adopted can be unloaded at once;
// without a text: it cannot.
//
// A program without flows need not be settled here, as it must be while standalone
// watches it drain: if it stayed, it would keep its half of the ports from the
// program that is to be loaded.
func (d *Loader) whyNeedless(p *program) (why reason) {
	if n, err := d.Unfinished(p.dir); err == nil {
		why.cut = &n
	}
	draining := d.draining(p)
	switch {
	case d.Replace:
		why.text = "it is replaced"
	case p.SNAT == lb.PortRange{}: // a start that was killed
		why.text = "it has never served"
	case p.Draining && why.cut != nil && *why.cut == 0:
		why.text = "it has drained"
	case p.Draining && draining.Expired(time.Now()):
		why.text = "it had until " + draining.Until.Local().Format(time.DateTime) + " to drain"
	}
	return why
}

// hold describes a program and its links.
func (d *Loader) hold(p *program) held {
	h := held{Program: p.id, Tag: p.tag, Digest: p.digest, Image: p.image, Dir: p.dir, Links: []loader.LinkInfo{}}
	known := d.stored.linksOf(p.id)
	for _, id := range p.links {
		if i := slices.IndexFunc(known, func(l loader.LinkInfo) bool { return l.ID == id }); i >= 0 {
			h.Links = append(h.Links, known[i])
			continue
		}
		// It is not detached as a precaution: a moment without the program would
		// reset every connection.
		l, err := pinnedLink(id)
		if err != nil {
			d.addNote("link %d of program %d stays until the end, as nothing tells where it leads: %v", id, p.id, err)
			continue
		}
		h.Links = append(h.Links, l)
	}
	return h
}

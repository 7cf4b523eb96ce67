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

// load makes d.note describe what bpfman has of this name: one program that is
// to serve, loaded now if need be, and those that are older.
func (d *Loader) load() error {
	return d.session(func(ctx context.Context, c *client) error {
		found, err := c.find(ctx, d.Name)
		if err != nil {
			return err
		}
		if err := d.lookAt(found); err != nil {
			return err
		}
		own, older, needless := d.sort(found)
		if d.ports, err = d.choosePorts(own, older); err != nil {
			return err
		}
		if own == nil {
			own, err = d.loadNew(ctx, c)
		} else {
			d.say("adopted program %d of bpfman, with its maps and %d links", own.id, len(own.links))
		}
		if err != nil {
			return err
		}
		ended := d.before.Ended
		for p, why := range needless {
			if err := c.unload(ctx, p.id); err != nil {
				return err
			}
			d.say("bpfman unloaded program %d of this name (%s): %s", p.id, p.digest, why)
			if p.Draining {
				ended = &Ended{Program: p.id, Digest: p.digest, Time: time.Now(), Cut: why.cut}
			}
		}
		if own.Draining { // and nothing is behind it any more
			if err := datapath.Drain(own.dir, false); err != nil {
				return d.unseen(own, err)
			}
		}
		d.note = note{Socket: d.Socket, held: d.hold(own), Ended: ended}
		for _, p := range older {
			d.note.Older = append(d.note.Older, d.newOlder(p))
		}
		return d.note.write(d.RunDir, d.Name)
	})
}

// loadNew has bpfman load the program, which is to be undone if all that
// follows fails.
func (d *Loader) loadNew(ctx context.Context, c *client) (*program, error) {
	p, err := c.load(ctx, &d.Options, d.digest())
	if err != nil {
		return nil, err
	}
	d.fresh, d.note.Program = true, p.id
	if _, err := d.Unfinished(p.dir); err != nil { // its maps are out of sight, or of a kind that we cannot write
		return nil, d.unseen(p, err)
	}
	return p, nil
}

// lookAt reads what the programs' maps say.
func (d *Loader) lookAt(found []*program) (err error) {
	for _, p := range found {
		p.Handover, err = d.look(p.dir)
		if err != nil && !d.Replace { // then it is unloaded, whatever it is
			return d.unseen(p, err)
		}
	}
	return nil
}

// unseen explains why maps cannot be read.
func (d *Loader) unseen(p *program, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("bpfman says that the maps of program %d are pinned at %s, which this process does not see (%w): run it where bpfman's %s is mounted", p.id, p.dir, err, pins)
	}
	return fmt.Errorf("program %d of bpfman: %w", p.id, err)
}

// pins is where bpfman pins everything.
const pins = "/run/bpfman/fs"

// sort tells the program to adopt, nil: none, from the older ones and from
// those that nobody needs, and says why. One that drains is not adopted: those
// behind it have flows that it would take for new ones.
func (d *Loader) sort(found []*program) (own *program, older []*program, needless map[*program]reason) {
	digest := d.digest()
	for _, better := range []func(*program) bool{
		func(p *program) bool { return p.id == d.before.Program },
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
		if why := d.needless(p); why.text != "" {
			needless[p] = why
		} else {
			older = append(older, p)
		}
	}
	return own, older, needless
}

// reason is why a program can go, and how many flows it cuts, nil: nobody
// can tell.
type reason struct {
	text string
	cut  *uint64
}

func (r reason) String() string {
	if r.cut != nil && *r.cut > 0 {
		return fmt.Sprintf("%s, %d flows are lost", r.text, *r.cut)
	}
	return r.text
}

// needless tells why a program that is not ours to adopt can go at once; the
// zero value: it cannot.
func (d *Loader) needless(p *program) (why reason) {
	if n, err := d.Unfinished(p.dir); err == nil {
		why.cut = &n
	}
	_, until := d.drains(p)
	switch {
	case d.Replace:
		why.text = "it is replaced"
	case p.SNAT == lb.PortRange{}: // a start that has not come to its end
		why.text = "it has never served"
	case p.Draining && why.cut != nil && *why.cut == 0:
		why.text = "it has drained"
	case p.Draining && !time.Now().Before(until):
		why.text = "it had until " + until.Local().Format(time.DateTime) + " to drain"
	}
	return why
}

// hold describes a program and its links.
func (d *Loader) hold(p *program) held {
	h := held{Program: p.id, Tag: p.tag, Digest: p.digest, Image: p.image, Dir: p.dir, Links: []loader.LinkInfo{}}
	known := d.before.linksOf(p.id)
	for _, id := range p.links {
		if i := slices.IndexFunc(known, func(l loader.LinkInfo) bool { return l.ID == id }); i >= 0 {
			h.Links = append(h.Links, known[i])
			continue
		}
		// Never detached to be on the safe side: a moment without the program
		// would reset every connection.
		l, err := pinnedLink(id)
		if err != nil {
			d.say("link %d of program %d stays until the end, as nothing tells where it leads: %v", id, p.id, err)
			continue
		}
		h.Links = append(h.Links, l)
	}
	return h
}

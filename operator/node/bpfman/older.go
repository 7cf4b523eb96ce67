// SPDX-License-Identifier: Apache-2.0

package bpfman

import (
	"fmt"
	"slices"
	"time"
)

// Older is a program of another version, from before. It goes on serving the
// flows that it has, and is unloaded when they have ended.
type Older struct {
	held
	// Since is when it began to drain, zero: it has not yet.
	Since time.Time `json:"since,omitzero"`
	// Until is when it is unloaded, whatever flows it has.
	Until time.Time `json:"until,omitzero"`

	plane *Loader
}

// Ended is what became of the older program that was unloaded last.
type Ended struct {
	Program uint32    `json:"program"`
	Digest  string    `json:"digest"`
	Time    time.Time `json:"time"`
	// Cut is how many flows it still had, nil: nobody can tell.
	Cut *uint64 `json:"cut"`
}

// newOlder makes one of a program that bpfman has. One that drains already
// goes on, from when the note says, or else from now.
func (d *Loader) newOlder(p *program) *Older {
	o := &Older{held: d.hold(p), plane: d}
	o.Since, o.Until = d.drains(p)
	return o
}

// drains tells since when and until when a program drains, zero: it does not.
func (d *Loader) drains(p *program) (since, until time.Time) {
	if !p.Draining {
		return since, until
	}
	since = time.Now()
	for _, o := range d.before.Older {
		if o.Program == p.id && !o.Since.IsZero() {
			since = o.Since
		}
	}
	return since, since.Add(d.DrainTimeout)
}

// Older returns the programs of other versions that are to go.
func (d *Loader) Older() []*Older {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.note.Older)
}

func (o *Older) String() string { return fmt.Sprintf("program %d (%s)", o.Program, o.Digest) }

// Dir returns the directory of the pinned maps.
func (o *Older) Dir() string { return o.held.Dir }

// Begin notes that the program drains from now on, unless it does already, and
// returns since when it does and until when it may.
func (o *Older) Begin() (since, until time.Time, err error) {
	o.plane.mu.Lock()
	defer o.plane.mu.Unlock()
	if o.Since.IsZero() {
		o.Since = time.Now()
		o.Until = o.Since.Add(o.plane.DrainTimeout)
		err = o.plane.note.write(o.plane.RunDir, o.plane.Name)
	}
	return o.Since, o.Until, err
}

// Unload has bpfman detach and unload it. cut is how many flows it still has,
// nil: nobody can tell.
func (o *Older) Unload(cut *uint64) error {
	o.plane.mu.Lock()
	defer o.plane.mu.Unlock()
	if err := o.plane.unload(&o.held); err != nil {
		return err
	}
	return o.forget(cut)
}

// Forget notes that somebody else has had it unloaded.
func (o *Older) Forget() error {
	o.plane.mu.Lock()
	defer o.plane.mu.Unlock()
	return o.forget(nil)
}

func (o *Older) forget(cut *uint64) error {
	n := &o.plane.note
	n.Older = slices.DeleteFunc(n.Older, func(other *Older) bool { return other == o })
	n.Ended = &Ended{Program: o.Program, Digest: o.Digest, Time: time.Now(), Cut: cut}
	return n.write(o.plane.RunDir, o.plane.Name)
}

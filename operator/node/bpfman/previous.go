// SPDX-License-Identifier: Apache-2.0

package bpfman

import (
	"fmt"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/clock"
)

// Previous is a program of another version that was there before. It goes on
// serving the flows that it has, and is unloaded when they have ended.
type Previous struct {
	held
	// Draining is zero until StartDraining.
	lb.Draining
	// Began is Since by the machine's own clock: the wall clock may be set before the
	// next start of this process.
	Began time.Duration `json:"began,omitzero"`

	loader *Loader
}

// Ended is what became of the previous program that was unloaded last.
type Ended struct {
	Program uint32    `json:"program"`
	Digest  string    `json:"digest"`
	Time    time.Time `json:"time"`
	// Cut is how many flows it still had, nil: unknown.
	Cut *uint64 `json:"cut"`
}

// newPrevious makes a Previous of a program that bpfman has.
func (d *Loader) newPrevious(p *program) *Previous {
	n := &Previous{held: d.hold(p), Draining: d.draining(p), loader: d}
	if !n.Since.IsZero() {
		n.Began = clock.Monotonic() - time.Since(n.Since)
	}
	return n
}

// draining returns the time that a program has for draining, by its record or
// else from now on; zero: it does not drain.
func (d *Loader) draining(p *program) lb.Draining {
	if !p.Draining {
		return lb.Draining{}
	}
	since := time.Now()
	for _, stored := range d.stored.Previous {
		if stored.Program == p.id {
			since = stored.since(since, clock.Monotonic())
		}
	}
	return lb.DrainingSince(since, d.DrainTimeout)
}

// since returns when a program began to drain, by a record that is read at a time: the
// wall clock and the machine's.
func (p *Previous) since(now time.Time, awake time.Duration) time.Time {
	switch {
	case p.Since.IsZero(), p.Began > awake: // of an earlier start of the machine
		return now
	case p.Began == 0: // a record of an earlier version
		return p.Since
	}
	since := now.Add(p.Began - awake)
	if since.Sub(p.Since).Abs() < time.Second { // nobody has set the wall clock
		return p.Since
	}
	return since
}

// Previous returns the programs of other versions that are to be unloaded.
func (d *Loader) Previous() []*Previous {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.record.Previous)
}

func (p *Previous) String() string { return fmt.Sprintf("program %d (%s)", p.Program, p.Digest) }

// Dir returns the directory of the pinned maps.
func (p *Previous) Dir() string { return p.held.Dir }

// StartDraining records that the program drains from now on, unless it does
// already, and returns the time that it has.
func (p *Previous) StartDraining() (lb.Draining, error) {
	p.loader.mu.Lock()
	defer p.loader.mu.Unlock()
	var err error
	if p.Since.IsZero() {
		p.Draining, p.Began = lb.DrainingSince(time.Now(), p.loader.DrainTimeout), clock.Monotonic()
		err = p.loader.record.write(p.loader.RunDir, p.loader.Name)
	}
	return p.Draining, err
}

// Unload has bpfman detach and unload it. cut is how many flows it still has,
// nil: unknown.
func (p *Previous) Unload(cut *uint64) error {
	p.loader.mu.Lock()
	defer p.loader.mu.Unlock()
	if err := p.loader.unload(&p.held); err != nil {
		return err
	}
	return p.forget(cut)
}

// Forget records that somebody else has had it unloaded.
func (p *Previous) Forget() error {
	p.loader.mu.Lock()
	defer p.loader.mu.Unlock()
	return p.forget(nil)
}

func (p *Previous) forget(cut *uint64) error {
	r := &p.loader.record
	r.Previous = slices.DeleteFunc(r.Previous, func(other *Previous) bool { return other == p })
	r.Ended = &Ended{Program: p.Program, Digest: p.Digest, Time: time.Now(), Cut: cut}
	return r.write(p.loader.RunDir, p.loader.Name)
}

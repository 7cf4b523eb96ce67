// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Op is one write of a plan.
type Op interface {
	// write carries it out.
	write(Tables) error
	// record enters the write into the contents.
	record(*Contents, time.Time)
	// count adds it to the number of entries written.
	count(*Written)
	fmt.Stringer
}

// addBackend assigns an id to an endpoint. No ring refers to the id yet.
type addBackend struct {
	id       uint32
	endpoint BackendKey
	backend  bpf.BlixtBackend
	used     bool // the id, by a previous backend
}

func (o addBackend) write(t Tables) error {
	if o.used {
		if err := t.ResetBackendFlows(o.id); err != nil {
			return err
		}
	}
	return t.PutBackend(o.id, o.backend)
}
func (o addBackend) record(c *Contents, now time.Time) { c.setBackend(o.id, o.backend, now) }
func (o addBackend) count(w *Written)                  { w.Backends++ }
func (o addBackend) String() string {
	return fmt.Sprintf("add backend %d %s of frontend %d", o.id, o.endpoint.Addr, o.backend.Frontend)
}

// changeBackend changes the flags and the backendRef of a backend in use, in place.
type changeBackend struct {
	id      uint32
	backend bpf.BlixtBackend // as it is to be
}

func (o changeBackend) write(t Tables) error              { return t.PutBackend(o.id, o.backend) }
func (o changeBackend) record(c *Contents, now time.Time) { c.setBackend(o.id, o.backend, now) }
func (o changeBackend) count(w *Written)                  { w.Backends++ }
func (o changeBackend) String() string {
	return fmt.Sprintf("set backend %d to flags %d, backendRef %d", o.id, o.backend.Flags, o.backend.Ref)
}

// giveRef gives an id to a backendRef. No backend has it.
type giveRef struct {
	id  uint32
	key uint64
	ref lb.BackendRef
}

func (o giveRef) write(t Tables) error            { return t.GiveRef(o.id, o.key) }
func (o giveRef) record(c *Contents, _ time.Time) { c.refIDs.give(o.id, o.key) }
func (o giveRef) count(w *Written)                { w.Refs++ }
func (o giveRef) String() string {
	return fmt.Sprintf("give id %d to the backendRef %s:%d of %s and %s", o.id, o.ref.Service, o.ref.Port, o.ref.Gateway, o.ref.Route)
}

// freeBackend frees a backend's id and ends its flows. No ring refers to the id
// any more.
type freeBackend struct {
	id      uint32
	backend bpf.BlixtBackend // with its next generation
}

func (o freeBackend) write(t Tables) error { return t.PutBackend(o.id, o.backend) }
func (o freeBackend) record(c *Contents, now time.Time) {
	c.setBackend(o.id, o.backend, now)
	if o.id != 0 {
		c.ids.release(o.id, now)
	}
}
func (o freeBackend) count(w *Written) { w.Backends++ }
func (o freeBackend) String() string   { return fmt.Sprintf("free backend %d", o.id) }

// writeRing writes slots to which no frontend refers yet.
type writeRing struct {
	offset uint32
	slots  []uint32
}

func (o writeRing) write(t Tables) error        { return t.WriteRing(o.offset, o.slots) }
func (o writeRing) record(*Contents, time.Time) {}
func (o writeRing) count(w *Written)            { w.Slots += len(o.slots) }
func (o writeRing) String() string {
	return fmt.Sprintf("write ring of %d slots at %d", len(o.slots), o.offset)
}

// publish switches a frontend index to another ring by a single store: each
// packet sees one ring or the other.
type publish struct {
	index uint32
	ref   RingRef
	freed span // of the ring that served until now
}

func (o publish) write(t Tables) error { return t.Publish(o.index, o.ref) }
func (o publish) record(c *Contents, now time.Time) {
	c.refs[o.index] = o.ref
	c.slab.release(o.freed.offset, o.freed.n, now)
}
func (o publish) count(w *Written) { w.Words++ }
func (o publish) String() string {
	return fmt.Sprintf("publish frontend %d: %d slots at %d", o.index, o.ref.Size(), o.ref.Offset())
}

// putFrontend maps a key to an index, or replaces its entry as a whole.
type putFrontend struct {
	key   lb.Key
	entry bpf.BlixtFrontend
	used  bool // the index, by a previous frontend
}

func (o putFrontend) write(t Tables) error {
	if o.used {
		if err := t.ResetFrontendCounters(o.entry.Index); err != nil {
			return err
		}
	}
	return t.PutFrontend(o.key, o.entry)
}
func (o putFrontend) record(*Contents, time.Time) {} // Apply records Served as a whole
func (o putFrontend) count(w *Written)            { w.Frontends++ }
func (o putFrontend) String() string {
	return fmt.Sprintf("put frontend %s: %d", o.key, o.entry.Index)
}

type deleteFrontend struct{ key lb.Key }

func (o deleteFrontend) write(t Tables) error { return t.DeleteFrontend(o.key) }
func (o deleteFrontend) record(c *Contents, _ time.Time) {
	c.count(c.Frontends[o.key], -1)
	delete(c.Frontends, o.key)
}
func (o deleteFrontend) count(w *Written) { w.Frontends++ }
func (o deleteFrontend) String() string   { return fmt.Sprintf("delete frontend %s", o.key) }

// retire removes the ring of an index to which no key leads any more.
type retire struct{ publish }

func (o retire) record(c *Contents, now time.Time) {
	o.publish.record(c, now)
	c.indexes.release(o.index, now)
}
func (o retire) String() string { return fmt.Sprintf("retire frontend %d", o.index) }

type putAddress struct {
	ip      netip.Addr
	address bpf.BlixtAddress
}

func (o putAddress) write(t Tables) error {
	if err := t.AddInterest(ToAddr(o.ip), AddressInterest(o.address)); err != nil {
		return err
	}
	return t.PutAddress(o.ip, o.address)
}
func (o putAddress) record(c *Contents, _ time.Time) { c.Addresses[o.ip] = o.address }
func (o putAddress) count(w *Written)                { w.Addresses++ }
func (o putAddress) String() string                  { return fmt.Sprintf("put address %s", o.ip) }

type deleteAddress struct{ ip netip.Addr }

func (o deleteAddress) write(t Tables) error            { return t.DeleteAddress(o.ip) }
func (o deleteAddress) record(c *Contents, _ time.Time) { delete(c.Addresses, o.ip) }
func (o deleteAddress) count(w *Written)                { w.Addresses++ }
func (o deleteAddress) String() string                  { return fmt.Sprintf("delete address %s", o.ip) }

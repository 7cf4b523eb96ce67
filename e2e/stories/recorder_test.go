// SPDX-License-Identifier: Apache-2.0

package stories

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

var errKilled = errors.New("the writer is killed")

// recorder looks at tables as packets do: before and after a change, and after each
// write if it is to watch them.
type recorder struct {
	writer.Tables
	watch  bool
	left   int // writes until the writer is killed; negative: never
	writes int // of the last apply
	// before and after are views at the start and the end of a change. What
	// packets saw between is in seen: one view per write. A writer that is
	// killed has not ended its change.
	before, after view
	seen          []view
	pending       bool
}

// begin starts a change, unless a killed writer has not ended the last one.
func (r *recorder) begin() (err error) {
	if r.pending {
		return nil
	}
	r.pending, r.seen = true, nil
	r.before, err = look(r.Tables)
	return err
}

// end ends a change.
func (r *recorder) end() (err error) {
	r.pending = false
	r.after, err = look(r.Tables)
	return err
}

// write calls f, unless the writer is dead.
func (r *recorder) write(f func() error) error {
	if r.left == 0 {
		return errKilled
	}
	r.left--
	r.writes++
	if err := f(); err != nil || !r.watch {
		return err
	}
	v, err := look(r.Tables)
	if err != nil {
		return fmt.Errorf("after write %d: %w", r.writes, err)
	}
	r.seen = append(r.seen, v)
	return nil
}

// checkVisible checks that packets found every address and frontend as it was
// before the last change or as it is after it, and once new never old again.
func (r *recorder) checkVisible() error {
	if r.pending {
		return errors.New("the change has not ended")
	}
	addresses, frontends := map[netip.Addr]bool{}, map[lb.Key]bool{}
	for _, v := range append(r.seen, r.before, r.after) {
		for ip := range v.addresses {
			addresses[ip] = true
		}
		for key := range v.frontends {
			frontends[key] = true
		}
	}
	for ip := range addresses {
		if err := r.checkPart("address "+ip.String(), func(v view) any {
			a, ok := v.addresses[ip]
			return [2]any{ok, a}
		}); err != nil {
			return err
		}
	}
	for key := range frontends {
		if err := r.checkPart("frontend "+key.String(), func(v view) any {
			f, ok := v.frontends[key]
			return [2]any{ok, f.backends}
		}); err != nil {
			return err
		}
	}
	return nil
}

// checkPart checks one part of all views.
func (r *recorder) checkPart(what string, part func(view) any) error {
	old, new, changed := part(r.before), part(r.after), false
	for i, v := range r.seen {
		switch part(v) {
		case new:
			changed = true
		case old:
			if changed {
				return fmt.Errorf("%s is the previous one again after write %d", what, i+1)
			}
		default:
			return fmt.Errorf("%s is neither the previous one nor the new one after write %d", what, i+1)
		}
	}
	return nil
}

// moved returns which part of a frontend's clients had a backend that still gets
// new flows, and would have another one now.
func (r *recorder) moved(name string) (float64, error) {
	key, err := parseKey(name)
	if err != nil {
		return 0, err
	}
	before, ok := r.before.frontends[key]
	after, still := r.after.frontends[key]
	if !ok || !still {
		return 0, fmt.Errorf("frontend %s is not there before and after the change", key)
	}
	stays := after.shares()
	moved := 0
	for i, b := range before.backends {
		if stays[b] > 0 && after.backends[i] != b {
			moved++
		}
	}
	return float64(moved) / clients, nil
}

// SetConfig implements datapath.Tables, as do all that follow.
func (r *recorder) SetConfig(c bpf.BlixtConfig) error {
	return r.write(func() error { return r.Tables.SetConfig(c) })
}

func (r *recorder) PutAddress(ip netip.Addr, a bpf.BlixtAddress) error {
	return r.write(func() error { return r.Tables.PutAddress(ip, a) })
}

func (r *recorder) DeleteAddress(ip netip.Addr) error {
	return r.write(func() error { return r.Tables.DeleteAddress(ip) })
}

func (r *recorder) PutFrontend(k lb.Key, e bpf.BlixtFrontend) error {
	return r.write(func() error { return r.Tables.PutFrontend(k, e) })
}

func (r *recorder) DeleteFrontend(k lb.Key) error {
	return r.write(func() error { return r.Tables.DeleteFrontend(k) })
}

func (r *recorder) Publish(index uint32, w datapath.RingRef) error {
	return r.write(func() error { return r.Tables.Publish(index, w) })
}

func (r *recorder) WriteRing(offset uint32, slots []uint32) error {
	return r.write(func() error { return r.Tables.WriteRing(offset, slots) })
}

func (r *recorder) PutBackend(id uint32, b bpf.BlixtBackend) error {
	return r.write(func() error { return r.Tables.PutBackend(id, b) })
}

func (r *recorder) ResetBackendFlows(id uint32) error {
	return r.write(func() error { return r.Tables.ResetBackendFlows(id) })
}

func (r *recorder) ResetFrontendCounters(index uint32) error {
	return r.write(func() error { return r.Tables.ResetFrontendCounters(index) })
}

// The check is of no use unless it fails where a packet sees something else.
func TestHalfAChangeIsSeen(t *testing.T) {
	ip := netip.MustParseAddr("192.0.2.1")
	exclusive := bpf.BlixtAddress{Flags: uint32(bpf.BlixtAddressFlagADDRESS_EXCLUSIVE)}
	put := func(a bpf.BlixtAddress) func(*recorder) error {
		return func(r *recorder) error { return r.PutAddress(ip, a) }
	}
	remove := func(r *recorder) error { return r.DeleteAddress(ip) }
	for want, writes := range map[string][]func(*recorder) error{
		"address 192.0.2.1 is neither the previous one nor the new one after write 1": {put(exclusive), put(bpf.BlixtAddress{})},
		"address 192.0.2.1 is the previous one again after write 2":                   {put(exclusive), remove, put(exclusive)},
	} {
		r := &recorder{Tables: datapath.NewFake(defaultSizes), watch: true, left: -1}
		err := r.begin()
		for _, write := range writes {
			err = errors.Join(err, write(r))
		}
		if err = errors.Join(err, r.end()); err != nil {
			t.Fatal(err)
		}
		if err := r.checkVisible(); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

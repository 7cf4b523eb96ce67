// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"fmt"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// interest collects, during a sweep, which bits of `interest` are needed: see
// bpf/interest.h. At the end of the sweep the map gets those that it lacks. It
// loses the others where nobody has added to a byte since the end of an earlier
// sweep: whatever needs a bit of such a byte was in its table before this sweep
// began, so this one has seen it, unless it was removed. What moves from one table
// to another meanwhile may be missed, but its insertion adds to the byte.
//
// A sweep that ends early changes nothing. Bits that are left cost time only.
type interest struct {
	began  time.Time
	needed []uint8 // by index
}

func newInterest(now time.Time) *interest {
	return &interest{now, make([]uint8, bpf.BlixtLimitINTEREST_SIZE)}
}

func (i *interest) need(a bpf.BlixtAddr, bits bpf.BlixtInterestFlag) {
	i.needed[bpf.InterestHash(a)] |= uint8(bits)
}

// has records what an entry needs.
func (i *interest) has(e datapath.FlowEntry) { i.need(bpf.EntryInterest(e.Key, e.Value)) }

// settleGrace is how long a packet may take from setting a bit until it has
// inserted the entry that needs it.
const settleGrace = time.Second

// settleInterest ends a sweep that has visited all entries.
func (w *Writer) settleInterest(i *interest) error {
	w.mu.Lock() // so nobody else adds an address meanwhile
	defer w.mu.Unlock()
	if !w.settled.IsZero() && i.began.Sub(w.settled) < settleGrace {
		return nil
	}
	addresses, err := w.tables.Addresses()
	if err != nil {
		return fmt.Errorf("read addresses: %w", err)
	}
	for ip, a := range addresses {
		i.need(datapath.ToAddr(ip), datapath.AddressInterest(a))
	}
	peers, err := w.tables.Peers()
	if err != nil {
		return fmt.Errorf("read peers: %w", err)
	}
	for ip := range peers {
		i.need(datapath.ToAddr(ip), datapath.InterestPeer)
	}
	for _, ip := range w.o.HostAddresses {
		i.need(datapath.ToAddr(ip), datapath.InterestHost)
	}
	err = w.tables.SettleInterest(i.needed, !w.settled.IsZero())
	w.settled = w.o.Clock()
	if err != nil {
		w.settled = time.Time{} // some bytes may be settled, others not
		return fmt.Errorf("write interest: %w", err)
	}
	return nil
}

// announceHost adds the bits of the host's own addresses.
func (w *Writer) announceHost() error {
	for _, ip := range w.o.HostAddresses {
		if err := w.tables.AddInterest(datapath.ToAddr(ip), datapath.InterestHost); err != nil {
			return fmt.Errorf("write interest: %w", err)
		}
	}
	return nil
}

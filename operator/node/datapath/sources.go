// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// SourceEntry is an entry of `sources`.
type SourceEntry struct {
	Key     bpf.BlixtSourceKey
	Verdict uint32 // bpf.BlixtSourceVerdict
}

// setBits is how many bits of a key are the set's id.
const setBits = 32

// sourceEntries returns the entries of a set under an id, in the order of compareSources.
func sourceEntries(s *lb.SourceSet, id uint32) []SourceEntry {
	all := make([]SourceEntry, 0, len(s.Allow)+len(s.Deny)+1)
	for _, p := range s.Allow {
		all = append(all, SourceEntry{sourceKey(p, id), uint32(bpf.BlixtSourceVerdictSOURCE_ALLOWED)})
	}
	for _, p := range s.Deny {
		all = append(all, SourceEntry{sourceKey(p, id), uint32(bpf.BlixtSourceVerdictSOURCE_DENIED)})
	}
	if coversIPv4(s) {
		all = append(all, SourceEntry{sourceKey(allIPv4, id), uint32(bpf.BlixtSourceVerdictSOURCE_UNLISTED)})
	}
	slices.SortFunc(all, compareSources)
	return all
}

var (
	allIPv4 = netip.MustParsePrefix("0.0.0.0/0")
	// mapped is where IPv4 addresses are among IPv6 ones.
	mapped = netip.MustParseAddr("::ffff:0:0")
)

// coversIPv4 reports whether a short prefix of IPv6, as ::/0, has all of IPv4 in it, and no other
// prefix has. It is not about them.
func coversIPv4(s *lb.SourceSet) bool {
	covers := func(p netip.Prefix) bool { return p.Contains(mapped) }
	return (slices.ContainsFunc(s.Allow, covers) || slices.ContainsFunc(s.Deny, covers)) &&
		!slices.Contains(s.Allow, allIPv4) && !slices.Contains(s.Deny, allIPv4)
}

// digest stands for the content of a set, whatever its id.
type digest [sha256.Size]byte

// digestOf returns that of entries in the order of compareSources.
func digestOf(entries []SourceEntry) digest {
	h := sha256.New()
	var b [24]byte
	for i := range entries {
		e := &entries[i]
		copy(b[:16], e.Key.Addr.Bytes[:])
		binary.LittleEndian.PutUint32(b[16:], e.Key.Bits)
		binary.LittleEndian.PutUint32(b[20:], e.Verdict)
		h.Write(b[:])
	}
	return digest(h.Sum(nil))
}

func compareSources(a, b SourceEntry) int {
	return cmp.Or(bytes.Compare(a.Key.Addr.Bytes[:], b.Key.Addr.Bytes[:]), cmp.Compare(a.Key.Bits, b.Key.Bits))
}

// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// What a Decoder accepts of policies. It is more than BlixtPolicy allows, and little
// enough for a node.
const (
	maxSettings = 64 << 10 // bytes of JSON
	maxPrefixes = 1 << 16  // of one SourceSet
	maxPriority = 1 << 10
)

// encodeSettings returns what policies say of a frontend, nil if there are none.
func encodeSettings(s *lb.Settings) []byte {
	if s.Equal(&lb.Settings{}) {
		return nil
	}
	text, err := json.Marshal(s)
	if err != nil { // plain data
		panic(err)
	}
	return text
}

// settings is the reverse of encodeSettings. It ignores what a later version has added:
// an operator must not add restrictions in such a way.
func (d *Decoder) settings(text []byte) (s lb.Settings) {
	if len(text) == 0 {
		return s
	}
	err := fmt.Errorf("%d bytes", len(text))
	if len(text) <= maxSettings {
		if err = json.Unmarshal(text, &s); err == nil {
			err = checkSettings(&s)
		}
	}
	if err != nil {
		d.fail("settings: %w", err)
	}
	return s
}

// checkSettings returns an error for settings that no translation has. Later stages count
// on what it checks.
func checkSettings(s *lb.Settings) error {
	if n := len(s.Restrictions); n > lb.MaxRestrictions {
		return fmt.Errorf("%d restrictions", n)
	}
	for i := range s.Restrictions {
		r := &s.Restrictions[i]
		if r.Policy == "" || r.Target == "" {
			return fmt.Errorf("restriction %d has no policy or no target", i)
		}
		if l := r.Limits; l != nil && !prefixLengths(l.Bits4, l.Bits6) {
			return fmt.Errorf("limits of %s are for prefixes of %d and %d bits", r.Policy, l.Bits4, l.Bits6)
		}
	}
	durations := []time.Duration{s.MaxAge}
	if a := s.Affinity; a != nil {
		durations = append(durations, a.Timeout)
		if !prefixLengths(a.Bits4, a.Bits6) {
			return fmt.Errorf("affinity is for prefixes of %d and %d bits", a.Bits4, a.Bits6)
		}
	}
	if f := s.Failover; f != nil {
		durations = append(durations, f.Hold)
	}
	if h := s.Health; h != nil && h.Passive != nil {
		durations = append(durations, h.Passive.AnswerWithin, h.Passive.Window, h.Passive.BaseEjection, h.Passive.MaxEjection)
	}
	if h := s.Health; h != nil && h.Active != nil {
		durations = append(durations, h.Active.Interval, h.Active.Timeout)
	}
	for _, t := range durations {
		if t < 0 {
			return fmt.Errorf("duration %s", t)
		}
	}
	return nil
}

func prefixLengths(bits4, bits6 int) bool {
	return 0 <= bits4 && bits4 <= 32 && 0 <= bits6 && bits6 <= 128
}

// EncodeSourceSet returns the message for a set of sources.
func EncodeSourceSet(s *lb.SourceSet) *SourceSet {
	w := &SourceSet{Policy: s.Policy, OnlyAllowed: s.OnlyAllowed}
	w.Allow4, w.Allow6 = encodePrefixes(s.Allow)
	w.Deny4, w.Deny6 = encodePrefixes(s.Deny)
	return w
}

func encodePrefixes(all []netip.Prefix) (v4, v6 []byte) {
	for _, p := range all {
		list := &v4
		if p.Addr().Is6() {
			list = &v6
		}
		*list = append(append(*list, p.Addr().AsSlice()...), byte(p.Bits()))
	}
	return v4, v6
}

// SourceSet is the reverse of EncodeSourceSet. It checks what lb.SourceSet promises.
func (d *Decoder) SourceSet(w *SourceSet) lb.SourceSet {
	s := lb.SourceSet{Policy: w.GetPolicy(), OnlyAllowed: w.GetOnlyAllowed()}
	if s.Policy == "" {
		d.fail("a set of sources has no policy")
	}
	s.Allow = append(d.prefixes(w.GetAllow4(), 4), d.prefixes(w.GetAllow6(), 16)...)
	s.Deny = append(d.prefixes(w.GetDeny4(), 4), d.prefixes(w.GetDeny6(), 16)...)
	if n := len(s.Allow) + len(s.Deny); n > maxPrefixes {
		d.fail("sources of %s are %d prefixes", s.Policy, n)
	}
	if err := s.Check(); err != nil {
		d.fail("%w", err)
	}
	return s
}

// prefixes decodes those with addresses of a size in bytes.
func (d *Decoder) prefixes(b []byte, size int) []netip.Prefix {
	each := size + 1
	if len(b)%each != 0 || len(b)/each > maxPrefixes {
		d.fail("prefixes of %d bytes", len(b))
		return nil
	}
	var all []netip.Prefix
	if len(b) > 0 {
		all = make([]netip.Prefix, 0, len(b)/each)
	}
	for ; len(b) > 0; b = b[each:] {
		all = append(all, netip.PrefixFrom(d.Addr(b[:size]), int(b[size])))
	}
	return all
}

// FailClosed returns a frontend as an agent gets it whose program knows no restrictions:
// if there are any, all new flows are refused. What began before goes on.
func FailClosed(f gateway.Frontend) gateway.Frontend {
	if !f.Restricted() {
		return f
	}
	refs := make([]gateway.Ref, len(f.Refs))
	for i, r := range f.Refs {
		r.Weight = 0
		refs[i] = r
	}
	f.Refs, f.Reject = refs, max(f.Reject, 1)
	f.Restrictions, f.Refused = nil, ""
	return f
}

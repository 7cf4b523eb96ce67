// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"cmp"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/health"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

const (
	// MaxJudged is how many backends a message about health has at most.
	MaxJudged = 8192
	// CheckersOfBackend is how many nodes check a backend.
	CheckersOfBackend = 3
	// MaxCheckers is how many nodes check any.
	MaxCheckers = 16

	maxWhy      = 300
	healthBytes = 48 << 10 // of one message; the operator takes 64 KB
)

// EncodeHealth returns the messages for what a node knows: at least one. The caller sends them in this order.
func EncodeHealth(flows []health.Observation, results []health.Result) []*Health {
	all, bytes := []*Health{{}}, 0
	room := func(k lb.EjectedKey, why string) *Health {
		if n := len(k.Policy) + len(why) + 80; bytes+n > healthBytes {
			all[len(all)-1].More = true
			all, bytes = append(all, &Health{}), n
		} else {
			bytes += n
		}
		return all[len(all)-1]
	}
	for _, o := range flows[:min(len(flows), MaxJudged)] {
		h := room(o.Key, "")
		h.Flows = append(h.Flows, &BackendFlows{
			Backend: encodeJudged(o.Key), Consecutive: o.Consecutive, Others: o.Others,
			Failures: o.Failures, Answers: o.Answers, Unanswered: o.Unanswered, Trial: o.Trial,
		})
	}
	for _, r := range results[:min(len(results), MaxJudged)] {
		why := strings.ToValidUTF8(r.Why[:min(len(r.Why), maxWhy)], "")
		h := room(r.Key, why)
		h.Results = append(h.Results, &CheckResult{Backend: encodeJudged(r.Key), Down: r.Down, Why: why})
	}
	return all
}

// DecodeHealth is the reverse of EncodeHealth. It leaves out what is invalid.
func DecodeHealth(h *Health) (flows []health.Observation, results []health.Result) {
	for _, f := range h.GetFlows()[:min(len(h.GetFlows()), MaxJudged)] {
		if key, ok := decodeJudged(f.GetBackend()); ok {
			flows = append(flows, health.Observation{
				Key: key, Consecutive: f.Consecutive, Others: f.Others,
				Failures: f.Failures, Answers: f.Answers, Unanswered: f.Unanswered, Trial: f.Trial,
			})
		}
	}
	for _, r := range h.GetResults()[:min(len(h.GetResults()), MaxJudged)] {
		if key, ok := decodeJudged(r.GetBackend()); ok {
			results = append(results, health.Result{Key: key, Down: r.Down, Why: strings.ToValidUTF8(r.Why[:min(len(r.Why), maxWhy)], "")})
		}
	}
	return flows, results
}

// EncodeEjected returns the message for what is ejected.
func EncodeEjected(set lb.EjectedSet, checkers []string) *Ejected {
	m := &Ejected{Checkers: checkers}
	for _, key := range slices.SortedFunc(maps.Keys(set), func(a, b lb.EjectedKey) int {
		return cmp.Or(cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Protocol, b.Protocol), a.Backend.Compare(b.Backend))
	}) {
		if len(m.List) == MaxJudged {
			break
		}
		e := set[key]
		one := &EjectedBackend{Backend: encodeJudged(key), Why: e.Why, Since: e.Since.UnixNano(), Trial: e.Trial}
		if !e.Until.IsZero() {
			one.Until = e.Until.UnixNano()
		}
		m.List = append(m.List, one)
	}
	return m
}

// EncodeKept returns the messages that tell a new operator what the agent ejects; none: it ejects nothing.
func EncodeKept(set lb.EjectedSet) (all []*Health) {
	bytes := healthBytes
	for _, one := range EncodeEjected(set, nil).List {
		n := len(one.Backend.Policy) + len(one.Why) + 100
		if bytes += n; bytes > healthBytes {
			all, bytes = append(all, &Health{More: true}), n
		}
		last := all[len(all)-1]
		last.Ejected = append(last.Ejected, one)
	}
	return all
}

// DecodeEjected is the reverse of EncodeEjected.
func DecodeEjected(m *Ejected) (lb.EjectedSet, []string) {
	return DecodeKept(m.GetList()), m.GetCheckers()
}

// DecodeKept returns what a list says, without what is invalid.
func DecodeKept(list []*EjectedBackend) lb.EjectedSet {
	set := lb.EjectedSet{}
	for _, one := range list[:min(len(list), MaxJudged)] {
		key, ok := decodeJudged(one.GetBackend())
		if !ok {
			continue
		}
		why := strings.ToValidUTF8(one.Why[:min(len(one.Why), maxWhy)], "")
		e := &lb.Ejected{Why: why, Since: time.Unix(0, one.Since), Trial: one.Trial}
		if one.Until != 0 {
			e.Until = time.Unix(0, one.Until)
		}
		set[key] = e
	}
	return set
}

func encodeJudged(k lb.EjectedKey) *JudgedBackend {
	return &JudgedBackend{Policy: k.Policy, Protocol: uint32(k.Protocol), Addr: k.Backend.Addr().AsSlice(), Port: uint32(k.Backend.Port())}
}

func decodeJudged(b *JudgedBackend) (k lb.EjectedKey, ok bool) {
	addr, ok := netip.AddrFromSlice(b.GetAddr())
	if !ok || b.Port > 65535 || b.Protocol > 255 {
		return k, false
	}
	return lb.EjectedKey{Policy: b.Policy, Protocol: lb.Protocol(b.Protocol), Backend: netip.AddrPortFrom(addr, uint16(b.Port))}, true
}

// Checks reports whether a node is one of those that check a backend: those with the highest hashes of
// both. So it changes for few backends when a node comes or goes.
func Checks(node string, checkers []string, k lb.EjectedKey) bool {
	of := func(name string) uint64 {
		h := fnv.New64a()
		h.Write([]byte(name + "\x00" + k.Policy + "\x00" + k.Backend.String() + "/" + k.Protocol.String()))
		return mix(h.Sum64())
	}
	own, higher := of(node), 0
	for _, name := range checkers {
		if h := of(name); name != node && (h > own || h == own && name < node) {
			higher++
		}
	}
	return higher < CheckersOfBackend && slices.Contains(checkers, node)
}

// Checkers returns which of the nodes check backends: the same ones as long as they are there.
func Checkers(nodes []string) []string {
	of := func(name string) uint64 {
		h := fnv.New64a()
		h.Write([]byte(name))
		return mix(h.Sum64())
	}
	all := slices.SortedFunc(slices.Values(nodes), func(a, b string) int { return cmp.Or(cmp.Compare(of(a), of(b)), cmp.Compare(a, b)) })
	all = all[:min(len(all), MaxCheckers)]
	slices.Sort(all)
	return all
}

// mix spreads what differs in the last bytes over all bits (the finalizer of MurmurHash3).
func mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/clock"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// A policy is one that a frontend has.
type policy struct {
	id   uint32
	name string // namespace/name, or its id
	bpf.BlixtPolicy
}

func (p *policy) has(f bpf.BlixtPolicyFlag) bool {
	return bpf.BlixtPolicyFlag(p.Sources>>32)&f != 0
}

// admit is admit in policy.h. It reports whether the packet may begin a flow; otherwise
// that was the end of it.
func (x *tracer) admit() bool {
	if bpf.BlixtFrontendFlag(x.frontend.Flags)&bpf.BlixtFrontendFlagFRONTEND_REFUSES != 0 {
		x.end(Rejected, bpf.BlixtCounterCOUNTER_REJECT_UNENFORCED, "refused: a policy of the frontend could not be enforced, as the tables have no room for it")
		return false
	}
	word, _ := find[datapath.PolicyWord](x, bpf.BlixtMapFrontendPolicies, x.frontend.Index)
	var asked []policy
	for _, id := range word.IDs() {
		if p, found := find[bpf.BlixtPolicy](x, bpf.BlixtMapPolicies, id); found {
			asked = append(asked, policy{id, x.policyName(id, p.Key), p})
		}
	}
	asked, ok := x.ask(asked, x.askSources)
	if !ok || !x.isProven() {
		return false
	}
	_, ok = x.ask(asked, x.askLimits)
	return ok
}

// ask has each policy judge the flow. It returns those that go on being asked: not one in
// DryRun that would refuse it.
func (x *tracer) ask(policies []policy, judge func(*policy) (bpf.BlixtCounter, string)) (rest []policy, ok bool) {
	for _, p := range policies {
		counter, why := judge(&p)
		switch {
		case why == "":
			rest = append(rest, p)
		case p.has(bpf.BlixtPolicyFlagPOLICY_DRY_RUN):
			x.note(fmt.Sprintf("The policy %s, which is in DryRun, would refuse it: %s.", p.name, why))
		default:
			x.refuse(&p, counter, why)
			return nil, false
		}
	}
	return rest, true
}

// refuse is refuse in policy.h.
func (x *tracer) refuse(p *policy, counter bpf.BlixtCounter, why string) {
	reset := bpf.BlixtPolicyFlagPOLICY_RESET_LIMITS
	if counter == bpf.BlixtCounterCOUNTER_REJECT_SOURCE {
		reset = bpf.BlixtPolicyFlagPOLICY_RESET_SOURCES
	}
	if p.has(reset) && !x.udp() {
		x.reject(counter, "refused by policy %s, with a RST: %s", p.name, why)
		return
	}
	x.end(Rejected, counter, "refused by policy %s, without an answer: %s", p.name, why)
}

// policyName finds out whose an id is.
func (x *tracer) policyName(id uint32, key uint64) string {
	for _, f := range x.o.Frontends {
		i := slices.IndexFunc(f.Restrictions, func(r lb.Restriction) bool { return datapath.PolicyKey(&r) == key })
		if i >= 0 {
			return f.Restrictions[i].Policy
		}
	}
	return fmt.Sprintf("number %d", id)
}

// askSources is ask_sources.
func (x *tracer) askSources(p *policy) (bpf.BlixtCounter, string) {
	const refused = bpf.BlixtCounterCOUNTER_REJECT_SOURCE
	verdict, found := uint32(0), false
	if set := uint32(p.Sources); set != 0 {
		verdict, found = find[uint32](x, bpf.BlixtMapSources, bpf.BlixtSourceKey{Bits: 32 + 128, Set: set, Addr: x.key.Src})
	}
	client := x.r.Client.Addr()
	switch {
	case found && bpf.BlixtSourceVerdict(verdict) == bpf.BlixtSourceVerdictSOURCE_DENIED:
		return refused, fmt.Sprintf("source %s is denied", client)
	case found && bpf.BlixtSourceVerdict(verdict) == bpf.BlixtSourceVerdictSOURCE_ALLOWED, !p.has(bpf.BlixtPolicyFlagPOLICY_ONLY_ALLOWED):
		return 0, ""
	}
	return refused, fmt.Sprintf("source %s is not allowed", client)
}

// source returns the prefix by which a policy counts the client, and what it has counted.
func (x *tracer) source(p *policy) (netip.Prefix, bpf.BlixtLimitedSource) {
	bits := int(p.SourceBits4) - 96
	if x.v6 {
		bits = int(p.SourceBits6)
	}
	prefix, err := x.r.Client.Addr().Prefix(max(bits, 0))
	if err != nil {
		x.err = err
	}
	key := bpf.BlixtLimitedSourceKey{Policy: p.id, Addr: datapath.ToAddr(prefix.Addr())}
	s, _ := find[bpf.BlixtLimitedSource](x, bpf.BlixtMapLimitedSources, key)
	return prefix, s
}

// askLimits is ask_limits.
func (x *tracer) askLimits(p *policy) (bpf.BlixtCounter, string) {
	const tooMany, tooFast = bpf.BlixtCounterCOUNTER_REJECT_CONCURRENT, bpf.BlixtCounterCOUNTER_REJECT_RATE
	perSecond := func(interval uint64) float64 { return 1e9 / float64(interval) }
	prefix, of := x.source(p)
	all, _ := find[bpf.BlixtPolicyState](x, bpf.BlixtMapPolicyStates, p.id)
	switch {
	case p.SourceConcurrent > 0 && int32(of.Concurrent) >= int32(p.SourceConcurrent):
		return tooMany, fmt.Sprintf("source %s has %d flows of %d", prefix, int32(of.Concurrent), p.SourceConcurrent)
	case p.SourceInterval > 0 && !x.charged && !hasToken(of.Full, p.SourceInterval, p.SourceBurst):
		return tooFast, fmt.Sprintf("source %s begins more than %.4g flows a second", prefix, perSecond(p.SourceInterval))
	case p.TotalConcurrent > 0 && int32(all.Concurrent) >= int32(p.TotalConcurrent):
		return tooMany, fmt.Sprintf("all sources have %d flows of %d", int32(all.Concurrent), p.TotalConcurrent)
	case p.TotalInterval > 0 && !x.charged && !hasToken(all.Full, p.TotalInterval, p.TotalBurst):
		return tooFast, fmt.Sprintf("all sources begin more than %.4g flows a second", perSecond(p.TotalInterval))
	}
	return 0, ""
}

// hasToken is has_token.
func hasToken(full, interval uint64, burst uint32) bool {
	now := uint64(clock.Monotonic())
	return max(full, now)+interval-now <= uint64(burst)*interval
}

// isProven is challenge in challenge.h, of a SYN. If it is false, that is the end of the packet.
func (x *tracer) isProven() bool {
	if x.frontend.Challenge == 0 || x.udp() || x.host {
		return true
	}
	if n, _ := find[bpf.BlixtSynCount](x, bpf.BlixtMapSynCounts, x.frontend.Index); x.frontend.Challenge > 1 {
		flooded := n.Tick == x.now && n.Number >= x.frontend.Challenge || n.Flood != 0 && x.now-n.Flood <= floodTicks
		if !flooded {
			return true
		}
	}
	if tick, found := find[uint32](x, bpf.BlixtMapProven, x.key.Src); found && x.now-tick <= provenTicks {
		return true
	}
	x.reject(bpf.BlixtCounterCOUNTER_REJECT_UNPROVEN, "the client has to prove first that its address is not forged: when it has answered, its next SYN gets a flow")
	return false
}

// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// unit is a part of a BlixtPolicy that is chosen as a whole: of all policies on the way from a
// Gateway to a route, one has the last word about it.
type unit int

const (
	unitAffinity unit = iota
	unitTCPIdle
	unitUDPIdle
	unitMaxAge
	unitPassive
	unitActive
	unitPanic
	unitNoBackend
	unitChallenge
	units // is how many there are
)

// String returns the field of spec.
func (u unit) String() string {
	return [units]string{
		"affinity", "idleTimeout.tcp", "idleTimeout.udp", "maxAge", "health.passive", "health.active", "health.panicPercent",
		"overload.noBackend", "overload.synChallenge",
	}[u]
}

// concerns reports whether the unit means something to a protocol. TCP alone has resets and SYNs.
func (u unit) concerns(p lb.Protocol) bool {
	switch u {
	case unitTCPIdle, unitNoBackend, unitChallenge:
		return p == lb.TCP
	case unitUDPIdle:
		return p == lb.UDP
	}
	return true
}

// readPolicy is the spec of a BlixtPolicy, read. It never changes: translations share it.
type readPolicy struct {
	spec *v1alpha1.BlixtPolicySpec
	// invalid are its mistakes, as sentences. What could be read is there nevertheless.
	invalid []string
	// warnings are about what is valid and cannot be meant.
	warnings []string

	dryRun, overrides bool
	// sources is nil if there are none, or if they cannot be read: unreadable is true then.
	sources    *lb.SourceSet
	unreadable bool
	reset      bool
	limits     *lb.Limits
	has        [units]bool
	affinity   lb.Affinity // without Group; Bits4 is 0 for None
	tcp, udp   time.Duration
	maxAge     time.Duration
	passive    *lb.PassiveHealth
	active     *lb.ActiveHealth
	panic      int
	drop       bool
	challenge  *lb.Challenge
	failover   *lb.Failover
	backends   []v1alpha1.FailoverBackend
	ports      *v1alpha1.PolicyPorts
}

// KnownPolicy is what translations have read of a BlixtPolicy. An equal spec is not read again.
type KnownPolicy struct {
	// UID is that of the policy. Another one of its name has no past.
	uid  types.UID
	read *readPolicy
	// good is the last one that was valid; nil: none was.
	good *readPolicy
}

// readPolicyOf reads a policy, unless it is known.
func readPolicyOf(obj *v1alpha1.BlixtPolicy, known KnownPolicy) KnownPolicy {
	if known.uid != obj.UID {
		known = KnownPolicy{uid: obj.UID}
	}
	if known.read == nil || !sameSpec(known.read.spec, &obj.Spec) {
		known.read = newReader(obj).readPolicy
	}
	if len(known.read.invalid) == 0 {
		known.good = known.read
	}
	return known
}

// sameSpec is reflect.DeepEqual, but quick for long lists whose strings are the same.
func sameSpec(a, b *v1alpha1.BlixtPolicySpec) bool {
	if a.Sources == nil || b.Sources == nil {
		return reflect.DeepEqual(a, b)
	}
	if !slices.Equal(a.Sources.Allow, b.Sources.Allow) || !slices.Equal(a.Sources.Deny, b.Sources.Deny) || a.Sources.Action != b.Sources.Action {
		return false
	}
	x, y := *a, *b
	x.Sources, y.Sources = nil, nil
	return reflect.DeepEqual(&x, &y)
}

// SourcesOf returns who a policy admits, as Translate has it among Unresolved.Sources if the policy
// restricts a frontend. It returns an error if there are no sources, or if anything in the spec is
// invalid: then Translate decides what goes on.
func SourcesOf(obj *v1alpha1.BlixtPolicy) (lb.SourceSet, error) {
	switch r := newReader(obj); {
	case len(r.invalid) > 0:
		return lb.SourceSet{}, fmt.Errorf("BlixtPolicy %s/%s is invalid: %s", obj.Namespace, obj.Name, strings.Join(r.invalid, " "))
	case r.sources == nil:
		return lb.SourceSet{}, fmt.Errorf("BlixtPolicy %s/%s has no sources", obj.Namespace, obj.Name)
	default:
		return *r.sources, nil
	}
}

// policyReader reads a spec. The API server has checked nearly all of it, but files do not pass
// through it, nor do objects that are older than a rule.
type policyReader struct {
	*readPolicy
	obj *v1alpha1.BlixtPolicy
}

func newReader(obj *v1alpha1.BlixtPolicy) policyReader {
	spec := &obj.Spec
	r := policyReader{&readPolicy{spec: spec, dryRun: spec.Mode == v1alpha1.ModeDryRun, overrides: spec.Strategy == v1alpha1.StrategyOverrides}, obj}
	r.oneOf("strategy", string(spec.Strategy), "", string(v1alpha1.StrategyDefaults), string(v1alpha1.StrategyOverrides))
	r.oneOf("mode", string(spec.Mode), "", string(v1alpha1.ModeEnforce), string(v1alpha1.ModeDryRun))
	if n := len(spec.TargetRefs); n < 1 || n > 16 {
		r.wrong("targetRefs has %d targets: name 1 to 16.", n)
	}
	r.readSources()
	r.readLimits()
	r.readAffinity()
	r.readTimes()
	r.readHealth()
	r.readFailover()
	r.readPorts()
	r.readOverload()
	return r
}

func (r *policyReader) wrong(format string, args ...any) {
	r.invalid = append(r.invalid, "spec."+fmt.Sprintf(format, args...))
}

func (r *policyReader) oneOf(field, value string, values ...string) {
	if !slices.Contains(values, value) {
		r.wrong("%s %q is not supported: use %s.", field, value, phrase.Join(slices.DeleteFunc(values, func(v string) bool { return v == "" })))
	}
}

// number returns a number, or what it is if it is not given.
func number[N ~int32](r *policyReader, field string, given *N, otherwise, least, most int) int {
	if given == nil {
		return otherwise
	}
	if n := int(*given); n >= least && n <= most {
		return n
	}
	r.wrong("%s %d is not within %d to %d.", field, *given, least, most)
	return otherwise
}

func (r *policyReader) duration(field string, given *metav1.Duration, otherwise, least, most time.Duration) time.Duration {
	if given == nil {
		return otherwise
	}
	if given.Duration >= least && given.Duration <= most {
		return given.Duration
	}
	r.wrong("%s %s is not within %s to %s.", field, given.Duration, shortDuration(least), shortDuration(most))
	return otherwise
}

// shortDuration returns a duration without what is zero: 24h, not 24h0m0s.
func shortDuration(d time.Duration) string {
	text := strings.TrimSuffix(d.String(), "m0s")
	if text != d.String() {
		text += "m"
	}
	if short, is := strings.CutSuffix(text, "h0m"); is {
		return short + "h"
	}
	return text
}

// maxSources is how many networks a policy may name.
const maxSources = 10_000

func (r *policyReader) readSources() {
	s := r.spec.Sources
	if s == nil {
		return
	}
	r.oneOf("sources.action", string(s.Action), "", string(v1alpha1.ActionDrop), string(v1alpha1.ActionReset))
	r.reset = s.Action == v1alpha1.ActionReset
	before := len(r.invalid)
	if s.Allow != nil && len(s.Allow) == 0 || s.Deny != nil && len(s.Deny) == 0 || s.Allow == nil && s.Deny == nil {
		r.wrong("sources has an empty list, which says nothing: name networks, or remove it.")
	}
	if n := len(s.Allow) + len(s.Deny); n > maxSources {
		r.wrong("sources has %s networks: %s are allowed.", phrase.Number(n), phrase.Number(maxSources))
	}
	set := lb.SourceSet{Policy: r.obj.Namespace + "/" + r.obj.Name, OnlyAllowed: len(s.Allow) > 0}
	set.Allow = r.prefixes("sources.allow", s.Allow)
	set.Deny = r.prefixes("sources.deny", s.Deny)
	if len(r.invalid) > before {
		r.unreadable = true
		return
	}
	set.Allow = r.without(set.Allow, set.Deny)
	r.sources = &set
}

// prefixes returns the networks, sorted and each once.
func (r *policyReader) prefixes(field string, texts []string) []netip.Prefix {
	if len(texts) == 0 {
		return nil
	}
	all := make([]netip.Prefix, 0, len(texts))
	bad := 0
	for i, text := range texts {
		p, err := netip.ParsePrefix(text)
		why := ""
		switch {
		case err != nil:
			why = "is not a network: write one like 192.0.2.0/24 or 2001:db8::/32"
			if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
				why = fmt.Sprintf("has no length: write %s", netip.PrefixFrom(addr, addr.BitLen()))
			}
		case p.Addr().Is4In6() || p.Addr().Is6() && p.Overlaps(mapped):
			if p.Bits() >= mapped.Bits() {
				why = "is of IPv4 addresses written as IPv6: write " + netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped.Bits()).Masked().String()
			}
		}
		if why == "" && p != p.Masked() {
			why = "has bits beyond its length: write " + p.Masked().String()
		}
		if why == "" {
			all = append(all, p)
		} else if bad++; bad <= 5 {
			r.wrong("%s[%d] %s %s.", field, i, phrase.Printable(phrase.Clip(text, 64)), why)
		}
	}
	if bad > 5 {
		r.wrong("%s has %s more that are wrong.", field, phrase.Number(bad-5))
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	once := slices.Compact(all)
	if n := len(texts) - bad - len(once); n > 0 && bad == 0 {
		r.warnings = append(r.warnings, fmt.Sprintf("spec.%s repeats %s.", field, phrase.Count(n, "network")))
	}
	return once
}

// mapped are the IPv4-mapped addresses.
var mapped = netip.MustParsePrefix("::ffff:0:0/96")

// without returns what is allowed and not denied word by word, and warns of the rest. Both are sorted.
func (r *policyReader) without(allow, deny []netip.Prefix) []netip.Prefix {
	if len(deny) == 0 {
		return allow
	}
	var both []string
	rest := allow[:0:0]
	for _, p := range allow {
		for len(deny) > 0 && deny[0].Compare(p) < 0 {
			deny = deny[1:]
		}
		if len(deny) > 0 && deny[0] == p {
			both = append(both, p.String())
			continue
		}
		rest = append(rest, p)
	}
	if both == nil {
		return allow
	}
	r.warnings = append(r.warnings, fmt.Sprintf("Allowed and denied, which means denied: %s.", phrase.Sample(both)))
	return rest
}

// maxRate is the most of a limit.
const maxRate = 10_000_000

func (r *policyReader) readLimits() {
	l := r.spec.Limits
	if l == nil {
		return
	}
	r.oneOf("limits.action", string(l.Action), "", string(v1alpha1.ActionDrop), string(v1alpha1.ActionReset))
	out := lb.Limits{Reset: l.Action == v1alpha1.ActionReset}
	if l.PerSource != nil {
		out.PerSource = r.limit("limits.perSource", l.PerSource.Limit)
		out.Bits4, out.Bits6 = r.prefixLength("limits.perSource.prefixLength", l.PerSource.PrefixLength)
	}
	if l.Total != nil {
		out.Total = r.limit("limits.total", l.Total.Limit)
	}
	if out.PerSource == (lb.Limit{}) && out.Total == (lb.Limit{}) {
		r.wrong("limits says no number: give newPerSecond or concurrent, or remove it.")
		return
	}
	if out.PerSource == (lb.Limit{}) {
		out.Bits4, out.Bits6 = 0, 0
	}
	r.limits = &out
}

func (r *policyReader) limit(field string, l v1alpha1.Limit) lb.Limit {
	out := lb.Limit{
		NewPerSecond: uint32(number(r, field+".newPerSecond", l.NewPerSecond, 0, 1, maxRate)),
		Concurrent:   uint32(number(r, field+".concurrent", l.Concurrent, 0, 1, maxRate)),
	}
	out.Burst = uint32(number(r, field+".burst", l.Burst, int(out.NewPerSecond), 1, maxRate))
	if l.Burst != nil && l.NewPerSecond == nil {
		r.wrong("%s.burst needs newPerSecond.", field)
		out.Burst = 0
	}
	return out
}

func (r *policyReader) prefixLength(field string, l *v1alpha1.PrefixLength) (bits4, bits6 int) {
	if l == nil {
		l = &v1alpha1.PrefixLength{}
	}
	return number(r, field+".ipv4", l.IPv4, 32, 8, 32), number(r, field+".ipv6", l.IPv6, 64, 32, 128)
}

func (r *policyReader) readAffinity() {
	a := r.spec.Affinity
	if a == nil {
		return
	}
	r.has[unitAffinity] = true
	r.oneOf("affinity.type", string(a.Type), string(v1alpha1.AffinityNone), string(v1alpha1.AffinityClientAddress))
	if a.Type != v1alpha1.AffinityClientAddress {
		if a.Timeout != nil {
			r.wrong("affinity.timeout needs type ClientAddress.")
		}
		return
	}
	r.affinity.Bits4, r.affinity.Bits6 = r.prefixLength("affinity.prefixLength", a.PrefixLength)
	r.affinity.Timeout = r.duration("affinity.timeout", a.Timeout, 0, 10*time.Second, 24*time.Hour)
}

func (r *policyReader) readTimes() {
	if t := r.spec.IdleTimeout; t != nil {
		r.tcp = r.duration("idleTimeout.tcp", t.TCP, 0, 10*time.Second, 7*24*time.Hour)
		r.udp = r.duration("idleTimeout.udp", t.UDP, 0, time.Second, 24*time.Hour)
		r.has[unitTCPIdle], r.has[unitUDPIdle] = r.tcp > 0, r.udp > 0
	}
	r.maxAge = r.duration("maxAge", r.spec.MaxAge, 0, time.Minute, 365*24*time.Hour)
	r.has[unitMaxAge] = r.maxAge > 0
}

func (r *policyReader) readFailover() {
	f := r.spec.Failover
	if f == nil {
		return
	}
	out := lb.Failover{
		MinAvailable: number(r, "failover.minAvailablePercent", f.MinAvailablePercent, 1, 1, 100),
		Recover:      number(r, "failover.recoverPercent", f.RecoverPercent, 50, 1, 100),
		Hold:         r.duration("failover.holdTime", f.HoldTime, 30*time.Second, 0, time.Hour),
	}
	if out.Recover < out.MinAvailable {
		r.wrong("failover.recoverPercent %d is less than minAvailablePercent %d: groups would take turns.", out.Recover, out.MinAvailable)
	}
	if len(f.Backends) == 0 {
		r.wrong("failover.backends is empty: name backendRefs of the route that are to stand by.")
	}
	for i := range f.Backends {
		number(r, fmt.Sprintf("failover.backends[%d].priority", i), &f.Backends[i].Priority, 1, 1, 3)
	}
	r.failover, r.backends = &out, f.Backends
}

func (r *policyReader) readPorts() {
	p := r.spec.Ports
	if p == nil {
		return
	}
	r.oneOf("ports.target", string(p.Target), "", string(v1alpha1.TargetKeep), string(v1alpha1.TargetShift))
	if (p.EndPort != nil) == deref(p.All, false) {
		r.wrong("ports needs exactly one of endPort and all: true.")
		return
	}
	number(r, "ports.endPort", p.EndPort, 1, 1, 65535)
	r.ports = p
}

func (r *policyReader) readOverload() {
	o := r.spec.Overload
	if o == nil {
		return
	}
	r.oneOf("overload.noBackend", string(o.NoBackend), "", string(v1alpha1.ActionDrop), string(v1alpha1.ActionReset))
	r.has[unitNoBackend], r.drop = o.NoBackend != "", o.NoBackend == v1alpha1.ActionDrop
	c := o.SYNChallenge
	if c == nil {
		return
	}
	r.has[unitChallenge] = true
	r.oneOf("overload.synChallenge.mode", string(c.Mode), string(v1alpha1.ChallengeNever), string(v1alpha1.ChallengeAuto), string(v1alpha1.ChallengeAlways))
	rate := number(r, "overload.synChallenge.newPerSecond", c.NewPerSecond, 20000, 1, maxRate)
	switch c.Mode {
	case v1alpha1.ChallengeAlways:
		r.challenge = &lb.Challenge{Always: true}
	case v1alpha1.ChallengeAuto:
		r.challenge = &lb.Challenge{NewPerSecond: uint32(rate)}
	}
}

// statusRange reads 200 or 200-399.
func statusRange(text string) (lb.StatusRange, bool) {
	first, last, is := strings.Cut(text, "-")
	if !is {
		last = first
	}
	a, err := strconv.Atoi(first)
	b, err2 := strconv.Atoi(last)
	return lb.StatusRange{First: a, Last: b}, err == nil && err2 == nil && 100 <= a && a <= b && b <= 599
}

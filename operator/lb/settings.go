// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"cmp"
	"net/netip"
	"reflect"
	"time"
)

// Settings are what BlixtPolicies say about a frontend, merged. The zero value is a
// frontend without a policy.
type Settings struct {
	// Restrictions have to admit a new flow, all of them. The least specific comes
	// first. There are at most MaxRestrictions.
	Restrictions []Restriction `json:"restrictions,omitempty"`
	// Refused is why all new flows are refused: a policy that cannot be enforced was
	// never in force. "": they are not.
	Refused  string    `json:"refused,omitempty"`
	Affinity *Affinity `json:"affinity,omitempty"`
	// MaxAge ends flows that have lasted longer, up to a tenth earlier each; 0: never.
	MaxAge time.Duration `json:"maxAge,omitempty"`
	Health *Health       `json:"health,omitempty"`
	// Failover is how groups of backends take over from each other; nil: there is one group.
	Failover *Failover `json:"failover,omitempty"`
	// Ports are further ports that the frontend serves; nil: its own alone.
	Ports *Ports `json:"ports,omitempty"`
	// DropNoBackend drops what begins a connection while there is no backend for it;
	// TCP is reset without it.
	DropNoBackend bool       `json:"dropNoBackend,omitempty"`
	Challenge     *Challenge `json:"challenge,omitempty"`
}

// Equal reports whether two frontends are to be treated alike.
func (s *Settings) Equal(o *Settings) bool {
	if len(s.Restrictions)+len(o.Restrictions) == 0 && s.Affinity == o.Affinity && s.Health == o.Health && s.Failover == o.Failover && s.Ports == o.Ports && s.Challenge == o.Challenge {
		return s.Refused == o.Refused && s.MaxAge == o.MaxAge && s.DropNoBackend == o.DropNoBackend // mostly nothing at all
	}
	return reflect.DeepEqual(s, o)
}

// MaxRestrictions is how many restrictions a frontend may have.
const MaxRestrictions = 4

// Restriction is what one policy demands of new flows to one of its targets. Frontends
// with restrictions of the same Policy, Target and DryRun share their limits.
type Restriction struct {
	// Policy is namespace/name.
	Policy string `json:"policy"`
	// Target is kind/namespace/name, for a listener with /name behind.
	Target string `json:"target"`
	// DryRun only counts what would be refused.
	DryRun bool `json:"dryRun,omitempty"`
	// Sources is true if the SourceSet of the policy says who is admitted.
	Sources bool `json:"sources,omitempty"`
	// ResetSources answers TCP that is refused by its source with a RST.
	ResetSources bool    `json:"resetSources,omitempty"`
	Limits       *Limits `json:"limits,omitempty"`
}

// SourceSet says who may connect where a restriction of its policy has Sources.
// Prefixes are masked, IPv4 ones not mapped to IPv6.
type SourceSet struct {
	// Policy is namespace/name.
	Policy string `json:"policy"`
	// OnlyAllowed refuses sources that no prefix has.
	OnlyAllowed bool `json:"onlyAllowed,omitempty"`
	// Allow and Deny are sorted (netip.Prefix.Compare), each prefix is in one of them and once. The longest match decides.
	Allow []netip.Prefix `json:"allow,omitempty"`
	Deny  []netip.Prefix `json:"deny,omitempty"`
}

// Limits bound flows. 0 is no limit.
type Limits struct {
	PerSource Limit `json:"perSource,omitzero"`
	// Bits4 and Bits6 are how many bits of an address make a source.
	Bits4 int   `json:"bits4,omitempty"`
	Bits6 int   `json:"bits6,omitempty"`
	Total Limit `json:"total,omitzero"`
	// Reset answers TCP that is refused by a limit with a RST.
	Reset bool `json:"reset,omitempty"`
}

// Limit bounds the flows of one source, or of all.
type Limit struct {
	// NewPerSecond and Burst bound flows that begin: at most NewPerSecond * t + Burst in t seconds.
	NewPerSecond uint32 `json:"newPerSecond,omitempty"`
	Burst        uint32 `json:"burst,omitempty"`
	// Concurrent bounds flows that are established.
	Concurrent uint32 `json:"concurrent,omitempty"`
}

// Affinity leads clients with the same first bits of their address to the same backend.
type Affinity struct {
	// Group names frontends that share what nodes remember: those with the same
	// policy, Gateway and Services.
	Group string `json:"group"`
	Bits4 int    `json:"bits4"`
	Bits6 int    `json:"bits6"`
	// Timeout is how long a node remembers a client's backend after its last new flow; 0: not at all.
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Ports are ports behind a frontend's own.
type Ports struct {
	// Last is the last port of the range that begins with the frontend's own. All other
	// frontends of the address come first.
	Last uint16 `json:"last"`
	// First is the first port; 0: the frontend's own.
	First uint16 `json:"first,omitempty"`
	// Shift leads the n-th port of the range to the n-th port from a backend's own on. Without
	// it a port leads to the same port.
	Shift bool `json:"shift,omitempty"`
}

// Has reports whether a frontend with this port serves another one by its range.
func (p *Ports) Has(own, port uint16) bool { return port >= cmp.Or(p.First, own) && port <= p.Last }

// Size returns how many ports the range of a frontend with this port has.
func (p *Ports) Size(own uint16) int { return int(p.Last) - int(cmp.Or(p.First, own)) + 1 }

// Challenge has clients prove that their address is not forged, before they get a flow.
type Challenge struct {
	Always bool `json:"always,omitempty"`
	// NewPerSecond is the number of flows from which clients are challenged, unless Always.
	NewPerSecond uint32 `json:"newPerSecond,omitempty"`
}

// Failover says when the next group of backends takes over.
type Failover struct {
	// MinAvailable is the percentage of a group's endpoints below which the next group gets new flows.
	MinAvailable int `json:"minAvailable"`
	// Recover is the percentage from which, for Hold, the group gets them back.
	Recover int           `json:"recover"`
	Hold    time.Duration `json:"hold"`
}

// Health says which backends are healthy.
type Health struct {
	// Policy names who decides: backends are ejected for frontends of the same Policy together.
	Policy  string         `json:"policy"`
	Passive *PassiveHealth `json:"passive,omitempty"`
	Active  *ActiveHealth  `json:"active,omitempty"`
	// Panic is the percentage of healthy backends below which health is not asked; 0: it always is.
	Panic int `json:"panic,omitempty"`
}

// PassiveHealth judges backends by the flows that they get.
type PassiveHealth struct {
	Consecutive    int           `json:"consecutive"`
	AnswerWithin   time.Duration `json:"answerWithin"`
	FailurePercent int           `json:"failurePercent"`
	MinFlows       int           `json:"minFlows"`
	Window         time.Duration `json:"window"`
	BaseEjection   time.Duration `json:"baseEjection"`
	MaxEjection    time.Duration `json:"maxEjection"`
	MaxEjected     int           `json:"maxEjected"` // percent
}

// ActiveHealth checks backends.
type ActiveHealth struct {
	// Type is TCP, UDP or HTTP.
	Type string `json:"type"`
	// Port of the check; 0: the backend's own.
	Port     uint16        `json:"port,omitempty"`
	Interval time.Duration `json:"interval"`
	Timeout  time.Duration `json:"timeout"`
	Rise     int           `json:"rise"`
	Fall     int           `json:"fall"`
	Payload  []byte        `json:"payload,omitempty"`
	Expect   []byte        `json:"expect,omitempty"`
	Path     string        `json:"path,omitempty"`
	Host     string        `json:"host,omitempty"`
	Statuses []StatusRange `json:"statuses,omitempty"`
}

// StatusRange is HTTP statuses that are healthy.
type StatusRange struct {
	First int `json:"first"`
	Last  int `json:"last"`
}

// Ejected says that a backend is not healthy.
type Ejected struct {
	// Why is for people: "5 connections in a row not answered".
	Why string `json:"why"`
	// Since and Until: when it was ejected, and when it may be tried again; Until is zero if an active check decides.
	Since time.Time `json:"since"`
	Until time.Time `json:"until,omitzero"`
	// Trial is set once it may have one flow at a time.
	Trial bool `json:"trial,omitempty"`
	// Panic is set if the backend gets new flows nevertheless: too few others are healthy.
	Panic bool `json:"panic,omitempty"`
}

// OnTrial reports whether the backend gets one flow at a time. Of nil it is false: who is not
// ejected gets all.
func (e *Ejected) OnTrial() bool { return e != nil && e.Trial && !e.Panic }

// String returns why, and until when, or that it is tried again.
func (e *Ejected) String() string {
	switch {
	case e.Panic:
		return "serving, as too few others are healthy: " + e.Why
	case e.Trial:
		return "trial, ejected before: " + e.Why
	case e.Until.IsZero():
		return "ejected: " + e.Why
	}
	return "ejected until " + e.Until.Local().Format(time.DateTime) + ": " + e.Why
}

// HealthNotice is that health is not obeyed for a group of backends.
type HealthNotice struct {
	// Policy is as in Health, and Gateway and Group are of the frontend.
	Policy, Gateway, Group string
	// Why is for people.
	Why string
}

// EjectedKey names a backend that is ejected for the frontends of one Health.Policy.
type EjectedKey struct {
	Policy   string
	Protocol Protocol
	Backend  netip.AddrPort
}

// EjectedSet is what is ejected.
type EjectedSet map[EjectedKey]*Ejected

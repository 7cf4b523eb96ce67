// SPDX-License-Identifier: Apache-2.0

// Package lb holds the nouns that every stage shares: what is to be served, in
// terms of neither Kubernetes nor eBPF. gateway makes a State, datapath turns
// it into map entries.
package lb

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Protocol is a layer-4 protocol by its IANA number.
type Protocol uint8

// The protocols that Blixt balances.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// String returns TCP, UDP or the number.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	}
	return fmt.Sprintf("%d", uint8(p))
}

// MarshalText returns String, so that JSON and YAML show the protocol's name.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is the reverse of MarshalText. It returns an error for any name
// but TCP and UDP.
func (p *Protocol) UnmarshalText(text []byte) error {
	switch string(text) {
	case "TCP":
		*p = TCP
	case "UDP":
		*p = UDP
	default:
		return fmt.Errorf("protocol %q: want TCP or UDP", text)
	}
	return nil
}

// DefaultIdleTimeout returns how long a flow without packets stays in the table
// by default. For TCP this is longer than Linux waits before its first
// keepalive (7,200 s, Documentation/networking/ip-sysctl.rst), so that
// keepalives keep a flow. For UDP it is the least that RFC 4787, REQ-5, allows
// a NAT: a server may call a client back after so long a silence.
func DefaultIdleTimeout(p Protocol) time.Duration {
	if p == UDP {
		return 2 * time.Minute
	}
	return 135 * time.Minute
}

// State is everything that a data plane serves. Normalize gives it its
// canonical order.
type State struct {
	Addresses []Address  `json:"addresses"`
	Frontends []Frontend `json:"frontends"`
	// Sources are those that Restrictions of frontends name by their policy.
	Sources []SourceSet `json:"sources,omitempty"`
}

// Address is an IP address with frontends.
type Address struct {
	IP netip.Addr `json:"ip"`
	// Exclusive addresses are served by Blixt alone: it rejects packets to
	// their unserved ports, and answers ping. The unserved ports of other
	// addresses belong to the host.
	Exclusive bool `json:"exclusive"`
}

// Frontend is one (address, protocol, port) that clients connect to.
type Frontend struct {
	Addr     netip.Addr `json:"addr"`
	Protocol Protocol   `json:"protocol"`
	Port     uint16     `json:"port"`
	// Gateway, Listener and Route are where the frontend comes from:
	// namespace/name, section name, kind/namespace/name.
	Gateway  string `json:"gateway"`
	Listener string `json:"listener"`
	Route    string `json:"route,omitempty"`
	// IdleTimeout is how long a flow without packets stays in the table.
	IdleTimeout time.Duration `json:"idleTimeout"`
	Backends    []Backend     `json:"backends"`
	// Refs are what the route names, in order and each once, with and without
	// endpoints.
	Refs []ServicePort `json:"refs,omitempty"`
	// Reject is the weight of new connections to refuse, in the unit of
	// Backend.Weight: that of invalid references.
	Reject uint64 `json:"reject,omitempty"`
	// PreserveClient has backends on other nodes see the client's address, where
	// nodes can announce it to each other. Without it they see this node's.
	PreserveClient bool `json:"preserveClient,omitempty"`
	// Records has flows that begin recorded.
	Records bool `json:"records,omitempty"`
	Settings
}

// DefaultMasqueradeMark is the bit of a packet's mark by which kube-proxy
// masquerades: where it runs, the two agree on what the bit means.
const DefaultMasqueradeMark = 0x4000

// WeightUnit is the Weight of a backend that is the only endpoint of a
// reference of weight 1. Weights are fixed-point numbers, so that a reference's
// weight can be divided among its endpoints, and every node computes the same
// ring.
const WeightUnit = 1 << 32

// Backend is one endpoint of a frontend. A listed backend keeps its flows,
// whatever its weight, unless it does not serve. The flows of a backend that is
// no longer listed are reset.
type Backend struct {
	Addr netip.AddrPort `json:"addr"`
	// Weight is the share of new flows, as a fixed-point number of which 1 is
	// WeightUnit. 0 means no new flows.
	Weight uint64 `json:"weight"`
	// Local backends are on this node and see the client's address.
	Local bool `json:"local,omitempty"`
	// NotServing backends keep their TCP flows, but each UDP flow moves with its
	// next datagram, if the ring has another backend for it.
	NotServing bool `json:"notServing,omitempty"`
	// ThroughStack backends are reached through the node's own network stack, so
	// that its firewall holds for them.
	ThroughStack bool `json:"throughStack,omitempty"`
	// Protected backends are covered by IPsec policies of the node: nothing is sent
	// to them past its network stack. Flows that began before are reset.
	Protected bool `json:"protected,omitempty"`
	// Service is the namespace/name of the Service that has the endpoint, and
	// ServicePort its port that the route names; 0: not known.
	Service     string `json:"service,omitempty"`
	ServicePort uint16 `json:"servicePort,omitempty"`
	// Node is the other node that the backend is on, if its frontend has
	// PreserveClient; "": not known.
	Node string `json:"node,omitempty"`
	// Drained is set if somebody has drained the backend by hand, so that its weight is 0.
	Drained *Drained `json:"drained,omitempty"`
	// Ejected is set if the backend is not healthy, so that its weight is 0, or it is tried again.
	Ejected *Ejected `json:"ejected,omitempty"`
	// Standby is set if a group of backends before its own serves, so that its weight is 0.
	Standby bool `json:"standby,omitempty"`
}

// Key identifies a frontend.
type Key struct {
	Addr     netip.Addr
	Protocol Protocol
	Port     uint16
}

// Key returns the frontend's identity.
func (f Frontend) Key() Key { return Key{f.Addr, f.Protocol, f.Port} }

// String returns address:port/protocol.
func (k Key) String() string {
	return netip.AddrPortFrom(k.Addr, k.Port).String() + "/" + strings.ToLower(k.Protocol.String())
}

// Compare orders keys by address, port and protocol.
func (k Key) Compare(o Key) int {
	return cmp.Or(k.Addr.Compare(o.Addr), cmp.Compare(k.Port, o.Port), cmp.Compare(k.Protocol, o.Protocol))
}

// Normalize sorts the state, and merges duplicate backends of a frontend: it
// adds their weights, and keeps the first Service named with its port.
func (s *State) Normalize() {
	slices.SortFunc(s.Addresses, func(a, b Address) int { return a.IP.Compare(b.IP) })
	slices.SortFunc(s.Frontends, func(a, b Frontend) int { return a.Key().Compare(b.Key()) })
	slices.SortFunc(s.Sources, func(a, b SourceSet) int { return cmp.Compare(a.Policy, b.Policy) })
	for i := range s.Frontends {
		f := &s.Frontends[i]
		slices.SortStableFunc(f.Backends, func(a, b Backend) int { return a.Addr.Compare(b.Addr) })
		merged := f.Backends[:0]
		for _, b := range f.Backends {
			if n := len(merged); n > 0 && merged[n-1].Addr == b.Addr {
				merged[n-1].Weight += b.Weight
				merged[n-1].Local = merged[n-1].Local || b.Local
				merged[n-1].NotServing = merged[n-1].NotServing && b.NotServing
				merged[n-1].ThroughStack = merged[n-1].ThroughStack || b.ThroughStack
				merged[n-1].Protected = merged[n-1].Protected || b.Protected
				continue
			}
			merged = append(merged, b)
		}
		f.Backends = merged
	}
}

// Hash returns 64 bits that stand for the state, which must be normalized:
// nodes with the same hash serve the same.
func (s *State) Hash() uint64 {
	var sum Sum
	for _, a := range s.Addresses {
		sum.Add(a.Sum())
	}
	for i := range s.Frontends {
		sum.Add(s.Frontends[i].Sum())
	}
	for i := range s.Sources {
		sum.Add(s.Sources[i].Sum())
	}
	return sum.Short()
}

// Sum returns the address's part of the hash of a state.
func (a Address) Sum() Sum { return sumOf(a) }

// Sum returns the set's part of the hash of a state.
func (s *SourceSet) Sum() Sum { return sumOf(s) }

// Sum returns the frontend's part of the hash of a state.
func (f *Frontend) Sum() Sum { return sumOf(f) }

func sumOf(element any) Sum {
	text, err := json.Marshal(element)
	if err != nil { // netip and integers always marshal
		panic(err)
	}
	return SumOf(text)
}

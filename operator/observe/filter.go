// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Filter selects records. All that is set must hold; of several values of one
// member, any.
type Filter struct {
	// Since and Until select what was there between them, if only for a moment.
	Since     time.Time `json:"since,omitzero"`
	Until     time.Time `json:"until,omitzero"`
	Events    []Event   `json:"events,omitempty"`
	Protocols []string  `json:"protocols,omitempty"`
	Reasons   []string  `json:"reasons,omitempty"` // with * at their end: all that begin so
	Clients   []Match   `json:"clients,omitempty"`
	Servers   []Match   `json:"servers,omitempty"`
	Backends  []Match   `json:"backends,omitempty"`
	// SNATs match the source that a backend sees, which may be the client's own.
	SNATs []Match `json:"snats,omitempty"`
	// Ends match the client, the server, the source that the backend sees, or the backend.
	Ends     []Match  `json:"ends,omitempty"`
	Gateways []string `json:"gateways,omitempty"` // namespace/name, or name
	Routes   []string `json:"routes,omitempty"`   // kind/namespace/name, namespace/name or name
	Services []string `json:"services,omitempty"` // namespace/name, or name
}

// Match matches endpoints: those of a prefix, of a port, or both.
type Match struct {
	Prefix netip.Prefix // the zero Prefix: any address
	Port   uint16       // 0: any port
}

// ParseMatch parses ADDRESS, ADDRESS:PORT, PREFIX, or :PORT.
func ParseMatch(text string) (m Match, err error) {
	if port, is := strings.CutPrefix(text, ":"); is && !strings.Contains(port, ":") {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return m, fmt.Errorf("%q: want a port from 1 to 65535 behind the colon", text)
		}
		return Match{Port: uint16(n)}, nil
	}
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return Match{prefixOf(ap.Addr()), ap.Port()}, nil
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return Match{Prefix: prefixOf(a)}, nil
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return Match{Prefix: p.Masked()}, nil
	}
	return m, fmt.Errorf("%q: want an address, address:port, a prefix such as 10.0.0.0/8, or :port", text)
}

// prefixOf returns the prefix of one address. Records have neither zones nor mapped
// addresses.
func prefixOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen())
}

// String returns what ParseMatch parses.
func (m Match) String() string {
	switch {
	case !m.Prefix.IsValid() && m.Port == 0:
		return ""
	case !m.Prefix.IsValid():
		return fmt.Sprintf(":%d", m.Port)
	case !m.Prefix.IsSingleIP():
		return m.Prefix.String()
	case m.Port == 0:
		return m.Prefix.Addr().String()
	}
	return netip.AddrPortFrom(m.Prefix.Addr(), m.Port).String()
}

// MarshalText returns String.
func (m Match) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText is ParseMatch.
func (m *Match) UnmarshalText(text []byte) (err error) {
	*m, err = ParseMatch(string(text))
	return err
}

func (m Match) has(e Endpoint) bool {
	return (!m.Prefix.IsValid() || m.Prefix.Contains(e.Address)) && (m.Port == 0 || m.Port == e.Port)
}

// Has reports whether the filter selects a record.
func (f *Filter) Has(r *Record) bool {
	// Where the start is not known, it may have been before.
	if !f.Since.IsZero() && r.Time.Before(f.Since) || !f.Until.IsZero() && r.begin().After(f.Until) {
		return false
	}
	snat := r.Client
	if r.SNAT != nil {
		snat = *r.SNAT
	}
	backend, hasBackend := Endpoint{}, r.Backend != nil
	if hasBackend {
		backend = *r.Backend
	}
	return oneOf(f.Events, r.Event) &&
		oneOf(f.Protocols, r.Protocol) &&
		anyOf(f.Reasons, func(reason string) bool { return HasReason(reason, r.Reason) }) &&
		anyOf(f.Clients, func(m Match) bool { return m.has(r.Client) }) &&
		anyOf(f.Servers, func(m Match) bool { return m.has(r.Server) }) &&
		anyOf(f.Backends, func(m Match) bool { return hasBackend && m.has(backend) }) &&
		anyOf(f.SNATs, func(m Match) bool { return hasBackend && m.has(snat) }) &&
		anyOf(f.Ends, func(m Match) bool {
			return m.has(r.Client) || m.has(r.Server) || hasBackend && (m.has(snat) || m.has(backend))
		}) &&
		anyOf(f.Gateways, func(name string) bool { return hasName(r.Gateway, name) }) &&
		anyOf(f.Routes, func(name string) bool { return hasName(r.Route, name) }) &&
		anyOf(f.Services, func(name string) bool { return hasName(r.Service, name) })
}

// begin returns when what r tells began.
func (r *Record) begin() time.Time {
	switch {
	case !r.Start.IsZero():
		return r.Start
	case r.Event == EventOpen || r.Event == EventEnd:
		return time.Time{}
	}
	return r.Time
}

func oneOf[T comparable](wanted []T, v T) bool { return len(wanted) == 0 || slices.Contains(wanted, v) }

func anyOf[T any](wanted []T, is func(T) bool) bool {
	return len(wanted) == 0 || slices.ContainsFunc(wanted, is)
}

// HasReason reports whether a pattern of Filter.Reasons or DropsQuery.Reasons names a
// reason.
func HasReason(pattern, reason string) bool {
	if begin, is := strings.CutSuffix(pattern, "*"); is {
		return strings.HasPrefix(reason, begin)
	}
	return pattern == reason
}

// hasName reports whether a name is full, or its last parts.
func hasName(full, name string) bool {
	return full == name || name != "" && strings.HasSuffix(full, "/"+name)
}

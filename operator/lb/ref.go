// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// ServicePort is a port of a Service, as a route names it.
type ServicePort struct {
	Service string `json:"service"` // namespace/name
	// Port is 0 if it is not known: an operator of an earlier version does not tell.
	Port uint16 `json:"port,omitempty"`
}

// Compare orders by name and port.
func (p ServicePort) Compare(o ServicePort) int {
	return cmp.Or(cmp.Compare(p.Service, o.Service), cmp.Compare(p.Port, o.Port))
}

// BackendRef is a backendRef of a route: what flows are counted by. It is the same
// for all listeners of the Gateway.
type BackendRef struct {
	Gateway, Route string // as in Frontend
	ServicePort
	Protocol Protocol
}

// RefOf returns the backendRef that a backend is an endpoint of; zero: none.
func (f *Frontend) RefOf(b *Backend) BackendRef {
	if b.Service == "" {
		return BackendRef{}
	}
	return f.Ref(ServicePort{b.Service, b.ServicePort})
}

// Ref returns the frontend's backendRef of that name.
func (f *Frontend) Ref(p ServicePort) BackendRef {
	return BackendRef{f.Gateway, f.Route, p, f.Protocol}
}

// Hash returns 64 bits that stand for the backendRef, today and in later versions.
// They are never zero. Whoever chooses names cannot choose the hash of somebody else.
func (r BackendRef) Hash() uint64 {
	hash := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%d/%s", r.Gateway, r.Route, r.Service, r.Port, r.Protocol))
	return max(binary.LittleEndian.Uint64(hash[:]), 1)
}

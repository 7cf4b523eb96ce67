// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/netip"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

func (l *listener) key(addr netip.Addr) lb.Key {
	return lb.Key{Addr: addr, Protocol: l.protocol, Port: uint16(l.spec.Port)}
}

// frontend is what the listener serves at the key: the first route by
// precedence of all that attached.
func (l *listener) frontend(key lb.Key) Frontend {
	f := Frontend{
		Key:     key,
		Gateway: l.gateway.obj.Namespace + "/" + l.gateway.obj.Name, Listener: string(l.spec.Name),
		IdleTimeout: lb.DefaultIdleTimeout(key.Protocol),
	}
	if len(l.attached) > 0 {
		r := l.attached[0]
		f.Route = string(r.kind) + "/" + r.meta.Namespace + "/" + r.meta.Name
		f.Refs = slices.Clone(r.backends.refs)
		f.Reject = r.backends.reject
	}
	return f
}

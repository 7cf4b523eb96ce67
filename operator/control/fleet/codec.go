// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// encode returns the update to a version whose state is s, of what has changed
// since base; nil: since nothing.
func encode(base *writer.Version, version writer.Version, s *state, c change) ([]byte, error) {
	u := &wire.Update{Base: encodeVersion(base), Version: encodeVersion(&version)}
	if c.addresses {
		u.Addresses = &wire.Addresses{}
		for _, a := range s.addresses {
			u.Addresses.List = append(u.Addresses.List, &wire.Address{Ip: a.IP.AsSlice(), Exclusive: a.Exclusive})
		}
	}
	for key := range c.frontends {
		if f, ok := s.frontends[key]; ok {
			u.Frontends = append(u.Frontends, encodeFrontend(f))
		} else {
			u.GoneFrontends = append(u.GoneFrontends, encodeKey(key))
		}
	}
	for name := range c.services {
		if ports, ok := s.services[name]; ok {
			u.Services = append(u.Services, encodeService(name, ports))
		} else {
			u.GoneServices = append(u.GoneServices, encodeName(name))
		}
	}
	data, err := proto.Marshal(u)
	if err != nil {
		return nil, fmt.Errorf("encode state %d: %w", version.Sequence, err)
	}
	return data, nil
}

func encodeVersion(v *writer.Version) *wire.Version {
	if v == nil {
		return nil
	}
	return &wire.Version{Epoch: v.Epoch, Sequence: v.Sequence}
}

func encodeKey(k lb.Key) *wire.Key {
	return &wire.Key{Addr: k.Addr.AsSlice(), Protocol: uint32(k.Protocol), Port: uint32(k.Port)}
}

func encodeName(n types.NamespacedName) *wire.Name {
	return &wire.Name{Namespace: n.Namespace, Name: n.Name}
}

func encodeFrontend(f gateway.Frontend) *wire.Frontend {
	w := &wire.Frontend{
		Key: encodeKey(f.Key), Gateway: f.Gateway, Listener: f.Listener, Route: f.Route,
		IdleTimeout: int64(f.IdleTimeout), Reject: f.Reject, LocalOnly: f.LocalOnly,
	}
	for _, r := range f.Refs {
		w.Refs = append(w.Refs, &wire.Ref{Service: encodeName(r.Service), PortName: r.PortName, Weight: r.Weight})
	}
	return w
}

func encodeService(name types.NamespacedName, ports []gateway.EndpointPort) *wire.Service {
	w := &wire.Service{Name: encodeName(name)}
	for _, p := range ports {
		port := &wire.Port{Name: p.Name, Protocol: uint32(p.Protocol)}
		for _, e := range p.Endpoints {
			port.Endpoints = append(port.Endpoints, &wire.Endpoint{
				Addr: e.Addr.Addr().AsSlice(), Port: uint32(e.Addr.Port()), State: uint32(e.State),
				Node: e.Node, Zones: e.Zones, Nodes: e.Nodes,
			})
		}
		w.Ports = append(w.Ports, port)
	}
	return w
}

// decoder reads messages, and keeps the first thing that makes no sense.
type decoder struct{ err error }

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
}

func (d *decoder) addr(b []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		d.fail("address of %d bytes", len(b))
	}
	return a
}

func (d *decoder) port(n uint32) uint16 {
	if n > math.MaxUint16 {
		d.fail("port %d", n)
	}
	return uint16(n)
}

func (d *decoder) protocol(n uint32) lb.Protocol {
	if n != uint32(lb.TCP) && n != uint32(lb.UDP) {
		d.fail("protocol %d", n)
	}
	return lb.Protocol(n)
}

func (d *decoder) ports(p *wire.Ports) writer.PortRange {
	return writer.PortRange{Min: d.port(p.GetMin()), Max: d.port(p.GetMax())}
}

func (d *decoder) key(k *wire.Key) lb.Key {
	return lb.Key{Addr: d.addr(k.GetAddr()), Protocol: d.protocol(k.GetProtocol()), Port: d.port(k.GetPort())}
}

func (d *decoder) frontend(w *wire.Frontend) gateway.Frontend {
	f := gateway.Frontend{
		Key: d.key(w.Key), Gateway: w.Gateway, Listener: w.Listener, Route: w.Route,
		IdleTimeout: time.Duration(w.IdleTimeout), Reject: w.Reject, LocalOnly: w.LocalOnly,
	}
	for _, r := range w.Refs {
		f.Refs = append(f.Refs, gateway.Ref{Service: decodeName(r.Service), PortName: r.PortName, Weight: r.Weight})
	}
	return f
}

func (d *decoder) service(w *wire.Service) gateway.ServiceEndpoints {
	var s gateway.ServiceEndpoints
	for _, p := range w.Ports {
		port := gateway.EndpointPort{Name: p.Name, Protocol: d.protocol(p.Protocol)}
		for _, e := range p.Endpoints {
			if e.State > uint32(gateway.Ready) {
				d.fail("readiness %d", e.State)
			}
			port.Endpoints = append(port.Endpoints, gateway.Endpoint{
				Addr: netip.AddrPortFrom(d.addr(e.Addr), d.port(e.Port)), State: gateway.Readiness(e.State),
				Node: e.Node, Zones: e.Zones, Nodes: e.Nodes,
			})
		}
		s.Ports = append(s.Ports, port)
	}
	return s
}

func decodeName(n *wire.Name) types.NamespacedName {
	return types.NamespacedName{Namespace: n.GetNamespace(), Name: n.GetName()}
}

func decodeVersion(v *wire.Version) *writer.Version {
	if v == nil {
		return nil
	}
	return &writer.Version{Epoch: v.Epoch, Sequence: v.Sequence}
}

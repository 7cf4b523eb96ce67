// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// EncodeVersion returns the message for a version, nil for nil.
func EncodeVersion(v *lb.Version) *Version {
	if v == nil {
		return nil
	}
	return &Version{Epoch: v.Epoch, Sequence: v.Sequence}
}

// EncodeKey returns the message for a frontend's key.
func EncodeKey(k lb.Key) *Key {
	return &Key{Addr: k.Addr.AsSlice(), Protocol: uint32(k.Protocol), Port: uint32(k.Port)}
}

// EncodeName returns the message for a name.
func EncodeName(n types.NamespacedName) *Name {
	return &Name{Namespace: n.Namespace, Name: n.Name}
}

// EncodeAddress returns the message for an address.
func EncodeAddress(a lb.Address) *Address {
	return &Address{Ip: a.IP.AsSlice(), Exclusive: a.Exclusive}
}

// EncodeFrontend returns the message for a frontend.
func EncodeFrontend(f gateway.Frontend) *Frontend {
	w := &Frontend{
		Key: EncodeKey(f.Key), Gateway: f.Gateway, Listener: f.Listener, Route: f.Route,
		IdleTimeout: int64(f.IdleTimeout), Reject: f.Reject, LocalOnly: f.LocalOnly, PreserveClient: f.PreserveClient,
		Records: f.Records, Settings: encodeSettings(&f.Settings),
	}
	for _, r := range f.Refs {
		w.Refs = append(w.Refs, &Ref{Service: EncodeName(r.Service), PortName: r.PortName, Port: uint32(r.Port), Weight: r.Weight, Priority: uint32(r.Priority)})
	}
	return w
}

// EncodeService returns the message for a Service's endpoints.
func EncodeService(name types.NamespacedName, ports []gateway.EndpointPort) *Service {
	w := &Service{Name: EncodeName(name)}
	for _, p := range ports {
		port := &Port{Name: p.Name, Protocol: uint32(p.Protocol)}
		for _, e := range p.Endpoints {
			port.Endpoints = append(port.Endpoints, &Endpoint{
				Addr: e.Addr.Addr().AsSlice(), Port: uint32(e.Addr.Port()),
				State: uint32(max(e.State, gateway.Draining)), NotServing: e.State == gateway.NotServing,
				Node: e.Node, Zones: e.Zones, Nodes: e.Nodes,
			})
		}
		w.Ports = append(w.Ports, port)
	}
	return w
}

// EncodeTableFull returns the message for what a node leaves out.
func EncodeTableFull(f *lb.TableFull) *TableFull {
	return &TableFull{
		Table: f.Table, Size: uint64(f.Size), Needed: uint64(f.Needed),
		Frontends: uint64(f.Frontends), Reduced: uint64(f.Reduced), Examples: f.Examples, Gateways: f.Gateways,
		PolicyTable: f.PolicyTable, Policies: f.Policies, Refusing: uint64(f.Refusing),
	}
}

// Decoder decodes the parts of a message. Err is the first error; what is
// decoded after it must not be used.
type Decoder struct{ Err error }

func (d *Decoder) fail(format string, args ...any) {
	if d.Err == nil {
		d.Err = fmt.Errorf(format, args...)
	}
}

// Addr decodes an IPv4 or IPv6 address: 4 or 16 bytes in network byte order.
func (d *Decoder) Addr(b []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		d.fail("address of %d bytes", len(b))
	}
	return a
}

// Port decodes a port, which is at most 65535.
func (d *Decoder) Port(n uint32) uint16 {
	if n > math.MaxUint16 {
		d.fail("port %d", n)
	}
	return uint16(n)
}

// Protocol decodes TCP or UDP.
func (d *Decoder) Protocol(n uint32) lb.Protocol {
	if n != uint32(lb.TCP) && n != uint32(lb.UDP) {
		d.fail("protocol %d", n)
	}
	return lb.Protocol(n)
}

// Ports decodes a range of ports.
func (d *Decoder) Ports(p *Ports) lb.PortRange {
	return lb.PortRange{First: d.Port(p.GetMin()), Last: d.Port(p.GetMax())}
}

// AnnounceKeys decodes keys, by their ids.
func (d *Decoder) AnnounceKeys(list []*AnnounceKey) map[int]lb.AnnounceKey {
	keys := map[int]lb.AnnounceKey{}
	for _, k := range list {
		if k.GetId() >= lb.AnnounceKeys || len(k.GetKey()) != len(lb.AnnounceKey{}) {
			d.fail("key %d has %d bytes", k.GetId(), len(k.GetKey()))
			continue
		}
		keys[int(k.Id)] = lb.AnnounceKey(k.Key)
	}
	return keys
}

// Key is the reverse of EncodeKey.
func (d *Decoder) Key(k *Key) lb.Key {
	return lb.Key{Addr: d.Addr(k.GetAddr()), Protocol: d.Protocol(k.GetProtocol()), Port: d.Port(k.GetPort())}
}

// Frontend is the reverse of EncodeFrontend.
func (d *Decoder) Frontend(w *Frontend) gateway.Frontend {
	f := gateway.Frontend{
		Key: d.Key(w.Key), Gateway: w.Gateway, Listener: w.Listener, Route: w.Route,
		IdleTimeout: time.Duration(w.IdleTimeout), Reject: w.Reject, LocalOnly: w.LocalOnly, PreserveClient: w.PreserveClient,
		Records: w.Records, Settings: d.settings(w.Settings),
	}
	for _, r := range w.Refs {
		if r.Priority > maxPriority {
			d.fail("priority %d", r.Priority)
		}
		f.Refs = append(f.Refs, gateway.Ref{Service: DecodeName(r.Service), PortName: r.PortName, Port: d.Port(r.Port), Weight: r.Weight, Priority: int(r.Priority)})
	}
	return f
}

// Service is the reverse of EncodeService.
func (d *Decoder) Service(w *Service) gateway.ServiceEndpoints {
	var s gateway.ServiceEndpoints
	for _, p := range w.Ports {
		port := gateway.EndpointPort{Name: p.Name, Protocol: d.Protocol(p.Protocol)}
		for _, e := range p.Endpoints {
			if e.State > uint32(gateway.Ready) {
				d.fail("readiness %d", e.State)
			}
			state := gateway.Readiness(e.State)
			if e.NotServing {
				state = gateway.NotServing
			}
			port.Endpoints = append(port.Endpoints, gateway.Endpoint{
				Addr: netip.AddrPortFrom(d.Addr(e.Addr), d.Port(e.Port)), State: state,
				Node: e.Node, Zones: e.Zones, Nodes: e.Nodes,
			})
		}
		s.Ports = append(s.Ports, port)
	}
	return s
}

// DecodeName is the reverse of EncodeName.
func DecodeName(n *Name) types.NamespacedName {
	return types.NamespacedName{Namespace: n.GetNamespace(), Name: n.GetName()}
}

// DecodeVersion is the reverse of EncodeVersion.
func DecodeVersion(v *Version) *lb.Version {
	if v == nil {
		return nil
	}
	return &lb.Version{Epoch: v.Epoch, Sequence: v.Sequence}
}

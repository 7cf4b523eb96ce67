// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// memory is what an agent was told: a translation, its endpoints, and what
// they mean on this node.
type memory struct {
	version     *writer.Version // nil: nothing yet
	translation gateway.Translation
	frontends   map[lb.Key]gateway.Frontend
	endpoints   gateway.Endpoints
	resolution  gateway.Resolution
}

// learn takes an encoded update in. After an error the memory is empty: the
// next update has to be complete.
func (m *memory) learn(data []byte, o gateway.ResolveOptions) error {
	u := &wire.Update{}
	err := proto.Unmarshal(data, u)
	if err == nil {
		err = m.update(u, o)
	}
	if err != nil {
		*m = memory{}
		return fmt.Errorf("read update: %w", err)
	}
	return nil
}

func (m *memory) update(u *wire.Update, o gateway.ResolveOptions) error {
	version, base := decodeVersion(u.Version), decodeVersion(u.Base)
	switch {
	case version == nil:
		return fmt.Errorf("it has no version")
	case base == nil:
		*m = memory{frontends: map[lb.Key]gateway.Frontend{}, endpoints: gateway.Endpoints{}}
	case m.version == nil || *base != *m.version:
		return fmt.Errorf("state %d is said in changes to state %d, which is not here", version.Sequence, base.Sequence)
	}
	d := &decoder{}
	if u.Addresses != nil {
		m.translation.Addresses = nil
		for _, a := range u.Addresses.List {
			m.translation.Addresses = append(m.translation.Addresses, lb.Address{IP: d.addr(a.Ip), Exclusive: a.Exclusive})
		}
	}
	for _, f := range u.Frontends {
		frontend := d.frontend(f)
		m.frontends[frontend.Key] = frontend
	}
	for _, k := range u.GoneFrontends {
		delete(m.frontends, d.key(k))
	}
	var services []types.NamespacedName
	for _, s := range u.Services {
		services = append(services, decodeName(s.Name))
		m.endpoints[decodeName(s.Name)] = d.service(s)
	}
	for _, n := range u.GoneServices {
		services = append(services, decodeName(n))
		delete(m.endpoints, decodeName(n))
	}
	if d.err != nil {
		return d.err
	}
	m.version = version
	if base != nil && u.Addresses == nil && len(u.Frontends)+len(u.GoneFrontends) == 0 {
		m.resolution = m.resolution.Update(&m.translation, m.endpoints, o, services...)
		return nil
	}
	m.translation.Frontends = slices.SortedFunc(maps.Values(m.frontends), func(a, b gateway.Frontend) int { return a.Key.Compare(b.Key) })
	m.resolve(o)
	return nil
}

// resolve is for a node that has changed.
func (m *memory) resolve(o gateway.ResolveOptions) {
	m.resolution = gateway.Resolve(&m.translation, m.endpoints, o)
}

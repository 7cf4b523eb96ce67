// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// encode returns the message that takes an agent from base to version. s is the
// state at version, and c what has changed since base. A nil base means that
// the agent has nothing yet. policies is that of the agent's Hello.
func encode(base *lb.Version, version lb.Version, s *indexedSnapshot, c change, policies bool) ([]byte, error) {
	u := &wire.Update{Base: wire.EncodeVersion(base), Version: wire.EncodeVersion(&version)}
	if c.addresses {
		u.Addresses = &wire.Addresses{}
		for _, a := range s.addresses {
			u.Addresses.List = append(u.Addresses.List, wire.EncodeAddress(a))
		}
	}
	for key := range c.frontends {
		if f, ok := s.frontends[key]; ok {
			if !policies {
				f = wire.FailClosed(f)
			}
			u.Frontends = append(u.Frontends, wire.EncodeFrontend(f))
		} else {
			u.GoneFrontends = append(u.GoneFrontends, wire.EncodeKey(key))
		}
	}
	for name := range c.services {
		if ports, ok := s.services.get(name); ok {
			u.Services = append(u.Services, wire.EncodeService(name, ports))
		} else {
			u.GoneServices = append(u.GoneServices, wire.EncodeName(name))
		}
	}
	for policy := range c.sources {
		if set, ok := s.sources[policy]; !policies {
			break
		} else if ok {
			u.SourceSets = append(u.SourceSets, wire.EncodeSourceSet(set))
		} else {
			u.GoneSourceSets = append(u.GoneSourceSets, policy)
		}
	}
	data, err := proto.Marshal(u)
	if err != nil {
		return nil, fmt.Errorf("encode state %d: %w", version.Sequence, err)
	}
	return data, nil
}

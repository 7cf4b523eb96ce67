// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"errors"

	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
)

// Left is an address that a load balancer has left on the host.
type Left struct {
	hostnet.Address
	// Interface is where it is.
	Interface string
}

// ListLeft returns what the load balancer of a name has left.
func ListLeft(name string) (left []Left, err error) {
	s, err := hostnet.Read()
	if err != nil {
		return nil, err
	}
	for _, a := range s.Addresses {
		if IsBlixts(a) && a.Metric == mark(name) {
			i, _ := s.ByIndex(a.Index)
			left = append(left, Left{a, i.Name})
		}
	}
	return left, nil
}

// Remove removes it, and what answers for it.
func (l Left) Remove() error {
	proxies, err := listProxies()
	errs := []error{err}
	for p := range proxies {
		if p.ip == l.IP {
			errs = append(errs, describe(p.removeProxy(), l.IP, l.Interface))
		}
	}
	return errors.Join(append(errs, describe(remove(l.Address), l.IP, l.Interface))...)
}

// remove removes an address that we have added.
func remove(a hostnet.Address) error {
	return address{a.IP, a.Network.Addr(), a.Index, a.Metric}.remove() // the network of its peer
}

// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/netip"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// capacity counts what is used of the nodes' tables and of the namespaces'
// quotas. What invalid objects hold counts as well, or there would be no room
// when they are valid again.
//
// How many endpoints there are is not known here, as they change all the time:
// each node leaves out what does not fit into its table of backends.
type capacity struct {
	*environment
	// size is that of the smallest tables. Zero: no limit.
	size lb.Capacity
	used lb.Capacity
	// onNode are the most addresses that a node has, by whether they are IPv6:
	// so many frontends and addresses the unspecified address stands for.
	onNode map[bool]int
	usage  map[quotaOwner]*usage
}

// quotaOwner has a quota: a namespace has one of each BlixtConfig.
type quotaOwner struct{ config, namespace string }

type usage struct {
	quota
	config *config
	used   lb.Capacity
}

func newCapacity(s *environment) *capacity {
	c := &capacity{environment: s, onNode: map[bool]int{}, usage: map[quotaOwner]*usage{}}
	if s.Cluster == nil {
		c.size = s.Capacity
		return c
	}
	c.size = s.Cluster.Capacity.OrDefault()
	for _, node := range s.Cluster.Nodes {
		count := map[bool]int{}
		for _, addr := range node.Addresses {
			v6 := addr.Unmap().Is6()
			count[v6]++
			c.onNode[v6] = max(c.onNode[v6], count[v6])
		}
	}
	c.used.Addresses = c.onNode[false] + c.onNode[true]
	return c
}

// of returns the usage of a namespace.
func (c *capacity) of(cfg *config, namespace string) *usage {
	who := quotaOwner{namespace: namespace}
	if cfg.obj != nil {
		who.config = cfg.obj.Name
	}
	if c.usage[who] == nil {
		u := &usage{quota: quota{frontends: -1, addresses: -1}, config: cfg}
		if c.Cluster != nil {
			u.quota = cfg.quotaOf(c.namespaces.of(namespace))
		}
		c.usage[who] = u
	}
	return c.usage[who]
}

// frontends returns how many entries of a node's table the key takes.
func (c *capacity) frontends(key lb.Key) int {
	if key.Addr.IsUnspecified() {
		return max(1, c.onNode[key.Addr.Is6()])
	}
	return 1
}

// fits reports whether the tables have room for a frontend.
func (c *capacity) fits(key lb.Key) bool {
	return c.size.Frontends == 0 || c.used.Frontends+c.frontends(key) <= c.size.Frontends
}

// ofListener returns the usage that the listener's frontends count for. Those of
// a ListenerSet count for its own namespace, so that its owner cannot use up
// what the Gateway's namespace and other ListenerSets need.
func (c *capacity) ofListener(l *listener) *usage {
	meta, _ := l.owner()
	return c.of(l.gateway.class.config, meta.Namespace)
}

func (c *capacity) enter(key lb.Key, l *listener) {
	c.used.Frontends += c.frontends(key)
	c.ofListener(l).used.Frontends++
}

func (c *capacity) leave(key lb.Key, l *listener) {
	c.used.Frontends -= c.frontends(key)
	c.ofListener(l).used.Frontends--
}

// lacks returns why the listener cannot have further frontends, or nil.
func (c *capacity) lacks(l *listener, keys []lb.Key) *fault {
	needed := 0
	for _, key := range keys {
		needed += c.frontends(key)
	}
	if c.size.Frontends > 0 && needed > 0 && c.used.Frontends+needed > c.size.Frontends {
		return faultf(gwv1.GatewayReasonNoResources,
			"Frontends: %s of %s are in use in the nodes' tables, and %s more would be needed: delete listeners, or use a bytecode image with larger tables.",
			phrase.Number(c.used.Frontends), phrase.Number(c.size.Frontends), phrase.Number(needed))
	}
	u := c.ofListener(l)
	if u.frontends >= 0 && len(keys) > 0 && u.used.Frontends+len(keys) > u.frontends {
		meta, _ := l.owner()
		return faultf(gwv1.GatewayReasonNoResources,
			"Frontends: namespace %s uses %s of the %s of its quota, and %s more would be needed: delete listeners, or have spec.quotas of %s changed.",
			meta.Namespace, phrase.Number(u.used.Frontends), phrase.Number(u.frontends), phrase.Number(len(keys)), u.config.name())
	}
	return nil
}

// fitsAddress reports whether the tables have room for a further address.
func (c *capacity) fitsAddress() bool {
	return c.size.Addresses == 0 || c.used.Addresses < c.size.Addresses
}

// isFree reports whether the address takes nothing: nodes have it anyway.
func (c *capacity) isFree(addr netip.Addr, asked bool) bool { return asked && c.isHost(addr) }

// lacksAddress returns why the Gateway cannot have the address, or nil. New is
// false for one that another Gateway has already.
func (c *capacity) lacksAddress(addr netip.Addr, g *gateway, asked, new bool) *fault {
	if c.isFree(addr, asked) {
		return nil
	}
	if new && !c.fitsAddress() {
		return faultf(gwv1.GatewayReasonNoResources,
			"Addresses: %s of %s are in use in the nodes' tables: delete Gateways, or use a bytecode image with larger tables.",
			phrase.Number(c.used.Addresses), phrase.Number(c.size.Addresses))
	}
	u := c.of(g.class.config, g.obj.Namespace)
	if u.addresses >= 0 && u.used.Addresses+1 > u.addresses {
		return faultf(gwv1.GatewayReasonNoResources,
			"Addresses: Gateways of namespace %s have %s of the %s of its quota: delete one, or have spec.quotas of %s changed.",
			g.obj.Namespace, phrase.Number(u.used.Addresses), phrase.Number(u.addresses), u.config.name())
	}
	return nil
}

func (c *capacity) enterAddress(addr netip.Addr, g *gateway, asked, new bool) {
	if c.isFree(addr, asked) {
		return
	}
	if new {
		c.used.Addresses++
	}
	c.of(g.class.config, g.obj.Namespace).used.Addresses++
}

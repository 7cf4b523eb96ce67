// SPDX-License-Identifier: Apache-2.0

package lb

import "cmp"

// Capacity is how much the tables of a node hold, or how much of that is used.
type Capacity struct {
	Addresses int `json:"addresses,omitempty"`
	Frontends int `json:"frontends,omitempty"`
}

// DefaultCapacity is that of a bytecode image that was built without other sizes.
var DefaultCapacity = Capacity{Addresses: 4096, Frontends: 4096}

// OrDefault returns the capacity, with defaults for what is zero.
func (c Capacity) OrDefault() Capacity {
	return Capacity{
		Addresses: cmp.Or(c.Addresses, DefaultCapacity.Addresses),
		Frontends: cmp.Or(c.Frontends, DefaultCapacity.Frontends),
	}
}

// Smallest returns the smallest capacity of the agents that are connected: what
// is larger, some node could not serve. Zero: none has said.
func Smallest(reports []Report) Capacity {
	var c Capacity
	least := func(have, size int) int {
		if have == 0 || size > 0 && size < have {
			return size
		}
		return have
	}
	for i := range reports {
		if r := &reports[i]; r.Connected {
			c.Addresses = least(c.Addresses, r.Tables["addresses"].Size)
			c.Frontends = least(c.Frontends, r.Tables["frontends"].Size)
		}
	}
	return c
}

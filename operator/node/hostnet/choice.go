// SPDX-License-Identifier: Apache-2.0

package hostnet

import (
	"cmp"
	"slices"
)

// Choice chooses the interfaces to attach to. It is pure, and remembers what it has
// chosen: an interface that goes down and up again, or gets another name, keeps what
// is attached to it.
type Choice struct {
	// Wanted are names, or alternative names; none: all interfaces that have been up
	// and do not hand their packets to a master.
	Wanted []string

	chosen map[int]Interface    // by index
	byName map[string]Interface // by wanted name
}

// Choose returns the chosen interfaces by index, and the wanted names that no interface
// has. renamed are the chosen ones that have lost the wanted name, by that name.
func (c *Choice) Choose(s *Snapshot) (chosen []Interface, missing []string, renamed map[string]Interface) {
	if len(c.Wanted) == 0 {
		return c.all(s), nil, nil
	}
	if c.byName == nil {
		c.byName = map[string]Interface{}
	}
	for _, name := range c.Wanted {
		i, found := s.ByName(name)
		if !found {
			before, known := c.byName[name]
			if i, found = s.ByIndex(before.Index); !known || !found || !i.Same(before) {
				missing = append(missing, name)
				continue
			}
			if renamed == nil {
				renamed = map[string]Interface{}
			}
			renamed[name] = i
		}
		c.byName[name] = i
		chosen = append(chosen, i)
	}
	slices.SortFunc(chosen, func(a, b Interface) int { return cmp.Compare(a.Index, b.Index) })
	return slices.CompactFunc(chosen, func(a, b Interface) bool { return a.Index == b.Index }), missing, renamed
}

func (c *Choice) all(s *Snapshot) (chosen []Interface) {
	before := c.chosen
	c.chosen = map[int]Interface{}
	for _, i := range s.Interfaces {
		master, _ := s.ByIndex(i.Master)
		if (i.Up || i.Same(before[i.Index])) && !isPort(master.Kind) {
			chosen = append(chosen, i)
			c.chosen[i.Index] = i
		}
	}
	return chosen
}

// isPort reports whether an interface with a master of this kind hands its packets to
// the master. A program that is attached to the master receives them there.
func isPort(master string) bool {
	return slices.Contains([]string{"bridge", "bond", "team", "openvswitch"}, master)
}

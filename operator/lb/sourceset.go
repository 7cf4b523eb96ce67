// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"net/netip"
	"slices"
)

// Restricted reports whether some new flows are to be refused: a program that knows no
// policies must refuse them all.
func (s *Settings) Restricted() bool {
	return s.Refused != "" || slices.ContainsFunc(s.Restrictions, func(r Restriction) bool { return !r.DryRun })
}

// Equal reports whether two sets admit the same sources for the same policy.
func (s *SourceSet) Equal(o *SourceSet) bool {
	return s.Policy == o.Policy && s.OnlyAllowed == o.OnlyAllowed && samePrefixes(s.Allow, o.Allow) && samePrefixes(s.Deny, o.Deny)
}

// samePrefixes is slices.Equal, and cheap for lists that share memory: those of states in a
// row mostly do.
func samePrefixes(a, b []netip.Prefix) bool { return shared(a, b) || slices.Equal(a, b) }

// Check returns an error if the set's prefixes are not as they are documented.
func (s *SourceSet) Check() error {
	for _, list := range [][]netip.Prefix{s.Allow, s.Deny} {
		for i, p := range list {
			switch {
			case !p.IsValid() || p != p.Masked() || p.Addr().Is4In6():
				return fmt.Errorf("sources of %s: prefix %s is not masked, or is no prefix", s.Policy, p)
			case i > 0 && list[i-1].Compare(p) >= 0:
				return fmt.Errorf("sources of %s: prefixes are not in order, or %s is there twice", s.Policy, p)
			}
		}
	}
	deny := s.Deny
	for _, p := range s.Allow {
		for len(deny) > 0 && deny[0].Compare(p) < 0 {
			deny = deny[1:]
		}
		if len(deny) > 0 && deny[0] == p {
			return fmt.Errorf("sources of %s: prefix %s is both allowed and denied", s.Policy, p)
		}
	}
	return nil
}

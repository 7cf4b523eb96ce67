// SPDX-License-Identifier: Apache-2.0

package page

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/finding"
)

// pageSize is how many Gateways a View has.
const pageSize = 25

// Choice is the Gateways that a Selection leads to.
type Choice struct {
	Gateways []Declared
	// Open is the Gateway whose backends are wanted; "": none, or there is none of that name.
	Open                       string
	Page, Pages, Matching, All int
}

// Names are those of the Gateways that are shown: the scope of the question to nodes.
func (c *Choice) Names() []string {
	names := make([]string, 0, len(c.Gateways))
	for i := range c.Gateways {
		names = append(names, c.Gateways[i].Name)
	}
	return names
}

// Choose returns the Gateways that are to be shown. A page behind the last one is the last
// one: Gateways may have gone meanwhile.
func (s *Selection) Choose(all []Declared) Choice {
	var matching []Declared
	open := -1
	for i := range all {
		if s.Open != "" && all[i].Name == s.Open {
			open = i
		}
		if s.has(&all[i]) {
			matching = append(matching, all[i])
		}
	}
	slices.SortStableFunc(matching, s.compare)
	c := Choice{Matching: len(matching), All: len(all), Pages: max(1, (len(matching)+pageSize-1)/pageSize)}
	c.Page = min(max(s.Page, 1), c.Pages)
	first := (c.Page - 1) * pageSize
	c.Gateways = matching[first:min(first+pageSize, len(matching))]
	if open >= 0 {
		c.Open = s.Open
		if !slices.ContainsFunc(c.Gateways, func(g Declared) bool { return g.Name == s.Open }) {
			c.Gateways = append([]Declared{all[open]}, c.Gateways...)
		}
	}
	return c
}

// has reports whether a Gateway is searched for.
func (s *Selection) has(g *Declared) bool {
	if s.Problems && g.Problem == "" {
		return false
	}
	search := strings.ToLower(s.Search)
	has := func(text string) bool { return strings.Contains(strings.ToLower(text), search) }
	return has(g.Name) || slices.ContainsFunc(g.Addresses, has) ||
		slices.ContainsFunc(g.Listeners, func(l DeclaredListener) bool {
			return has(fmt.Sprintf("%s :%d/%s", l.Name, l.Port, l.Protocol)) || slices.ContainsFunc(l.Routes, has)
		})
}

func (s *Selection) compare(a, b Declared) int {
	byName := strings.Compare(a.Name, b.Name)
	switch s.Sort {
	case ByName:
		return byName
	case ByFlows:
		return cmp.Or(cmp.Compare(flows(&b), flows(&a)), byName)
	}
	return cmp.Or(rank(&a)-rank(&b), byName)
}

func flows(g *Declared) uint64 {
	if g.Active == nil {
		return 0
	}
	return *g.Active
}

// rank is smaller the worse a Gateway is.
func rank(g *Declared) int {
	if g.Problem == "" {
		return len(finding.Levels)
	}
	return slices.Index(finding.Levels, g.Verdict)
}

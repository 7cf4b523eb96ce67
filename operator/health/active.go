// SPDX-License-Identifier: Apache-2.0

package health

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// decideActive ejects who checks find to be down, and returns the checks that are not obeyed.
func (j *Judge) decideActive(now time.Time) []lb.HealthNotice {
	down := map[*member]string{}
	for _, m := range j.members {
		if why, is := m.isDown(); m.active && is {
			down[m] = why
		}
	}
	var suspects []lb.HealthNotice
	causes := map[[2]string]cause{}
	for i := range j.groups {
		g := &j.groups[i]
		if g.Health.Active == nil || !j.allDown(g, down) {
			continue
		}
		why := ""
		for _, addr := range g.Members {
			m := j.members[g.key(addr)]
			why = down[m]
			delete(down, m)
		}
		of := [2]string{g.Name, g.Health.Policy}
		told := j.causes[of].next(why, now)
		causes[of] = told
		suspects = append(suspects, lb.HealthNotice{Policy: g.Health.Policy, Gateway: g.Gateway, Group: g.Name,
			Why: fmt.Sprintf("the %s check fails for all %d backends of %s at once, so it is not obeyed: %s", g.Health.Active.Type, len(g.Members), g.Name, told.why)})
	}
	j.causes = causes
	for _, m := range j.members {
		why, is := down[m]
		if !is {
			m.down, m.cause = nil, cause{}
			continue
		}
		if m.down == nil {
			m.down = &lb.Ejected{Since: now}
		}
		if m.cause.why == "" {
			m.cause.why = m.down.Why // of the judge before this one
		}
		if m.cause = m.cause.next(why, now); m.cause.why != m.down.Why {
			m.down = &lb.Ejected{Why: m.cause.why, Since: m.down.Since}
		}
	}
	slices.SortFunc(suspects, func(a, b lb.HealthNotice) int { return strings.Compare(a.Why, b.Why) })
	return suspects
}

// steady is for how long checks find another cause before it is told.
const steady = 10 * time.Second

// cause is why checks fail, for people. What checks find may differ every second, and what is told should not.
type cause struct {
	why   string // as it is told
	found string // another one, since then; empty: none
	since time.Time
}

// next returns what to tell when checks find why.
func (c cause) next(why string, now time.Time) cause {
	switch {
	case c.why == "", c.why == why, c.found == why && now.Sub(c.since) >= steady:
		return cause{why: why}
	case c.found != why || now.Before(c.since):
		c.found, c.since = why, now
	}
	return c
}

// allDown reports whether no member of the group is left.
func (j *Judge) allDown(g *Group, down map[*member]string) bool {
	for _, addr := range g.Members {
		if _, is := down[j.members[g.key(addr)]]; !is {
			return false
		}
	}
	return true
}

// isDown reports whether most checkers find the member to be down, and why. With as many of one opinion as of the
// other, it stays as it was.
func (m *member) isDown() (why string, down bool) {
	up, downs := 0, 0
	for _, v := range m.views {
		switch {
		case v.result == nil:
		case v.result.Down:
			downs++
			if why == "" || v.result.Why < why {
				why = v.result.Why
			}
		default:
			up++
		}
	}
	if downs == up {
		if m.down != nil && downs > 0 {
			return m.down.Why, true
		}
		return "", false
	}
	return why, downs > up
}

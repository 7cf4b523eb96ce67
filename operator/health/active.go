// SPDX-License-Identifier: Apache-2.0

package health

import (
	"cmp"
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
	causes := map[[2]string]string{}
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
		// What checks find may differ every second, and whoever tells people should not.
		of := [2]string{g.Name, g.Health.Policy}
		why = cmp.Or(j.causes[of], why)
		causes[of] = why
		suspects = append(suspects, lb.HealthNotice{Policy: g.Health.Policy, Gateway: g.Gateway, Group: g.Name,
			Why: fmt.Sprintf("the %s check fails for all %d backends of %s at once, so it is not obeyed: %s", g.Health.Active.Type, len(g.Members), g.Name, why)})
	}
	j.causes = causes
	for _, m := range j.members {
		why, is := down[m]
		switch {
		case !is:
			m.down = nil
		case m.down == nil:
			m.down = &lb.Ejected{Why: why, Since: now}
		}
	}
	slices.SortFunc(suspects, func(a, b lb.HealthNotice) int { return strings.Compare(a.Why, b.Why) })
	return suspects
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

// SPDX-License-Identifier: Apache-2.0

package health

import (
	"fmt"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// endTrials begins the trial of who was ejected for long enough, and ends trials: a flow that was answered
// re-admits the backend, one that has failed ejects it for twice as long.
func (j *Judge) endTrials(now time.Time) {
	for key, m := range j.members {
		p, e := m.passive, m.ejected
		if e == nil {
			continue
		}
		if !e.Trial {
			// Longer than asked for: the clock was set back.
			if left := e.Until.Sub(now); left > 0 && left <= m.length {
				continue
			} else if left > m.length {
				m.eject(e.Why, m.length, now)
				continue
			}
			trial := *e
			trial.Trial = true
			m.ejected = &trial
			for _, v := range m.views {
				v.beginTrial()
			}
			continue
		}
		good, bad := 0, 0
		for _, v := range m.views {
			switch v.outcome(key.Protocol, now) {
			case opinionGood:
				good++
			case opinionFailing:
				bad++
			}
		}
		switch {
		case bad > 0 && bad >= good:
			m.again++
			m.eject(m.reason+"; since then a trial flow has failed, too", ejection(p, m.again), now)
		case good > 0:
			m.ejected, m.readmitted, m.failing = nil, now, time.Time{}
			for _, v := range m.views {
				v.samples = nil
			}
		}
	}
}

func (m *member) eject(why string, length time.Duration, now time.Time) {
	m.ejected, m.length = &lb.Ejected{Why: why, Since: now, Until: now.Add(length)}, length
}

// ejection returns how long a backend is ejected that was ejected n times before in a row.
func ejection(p *lb.PassiveHealth, n int) time.Duration {
	length := p.BaseEjection
	for ; n > 0 && length < p.MaxEjection; n-- {
		length *= 2
	}
	return min(length, p.MaxEjection)
}

// decidePassive ejects who fails, as far as each group that it is in can do without.
func (j *Judge) decidePassive(now time.Time) {
	for i := range j.groups {
		j.findFailing(&j.groups[i], now)
	}
	for i := range j.groups {
		g := &j.groups[i]
		if g.Health.Passive == nil {
			continue
		}
		for _, m := range j.sorted(g) {
			if m.failing.IsZero() || m.ejected != nil || m.down != nil || !j.canEject(m) {
				continue
			}
			p := m.passive
			if now.Sub(m.readmitted) > p.MaxEjection || m.readmitted.IsZero() {
				m.again = 0
			} else {
				m.again++
			}
			m.reason = m.why(now)
			m.eject(m.reason, ejection(p, m.again), now)
		}
	}
}

// findFailing sets which members of the group nodes see fail. A majority of the nodes that have an opinion
// decides. What a blind node says counts only if another one says it, too.
func (j *Judge) findFailing(g *Group, now time.Time) {
	if g.Health.Passive == nil {
		return
	}
	blind := j.blind(g, now)
	for _, addr := range g.Members {
		m := j.members[g.key(addr)]
		good, failing, seeing := 0, 0, 0
		for node, v := range m.views {
			switch v.opinion(m.passive, now) {
			case opinionGood:
				good++
			case opinionFailing:
				failing++
				if !blind[node] {
					seeing++
				}
			}
		}
		switch {
		case failing <= good || (seeing == 0 && failing < 2):
			m.failing = time.Time{}
		case m.failing.IsZero():
			m.failing = now
		}
	}
}

// blind returns the nodes that see all members of the group fail of which they have an opinion, two at
// least: perhaps their own network is broken. A node that is alone is not: nobody else can say more.
func (j *Judge) blind(g *Group, now time.Time) map[string]bool {
	if len(j.nodes) < 2 {
		return nil
	}
	blind := map[string]bool{}
	for node := range j.nodes {
		good, failing := 0, 0
		for _, addr := range g.Members {
			m := j.members[g.key(addr)]
			v := m.views[node]
			if v == nil || m.ejected != nil {
				continue
			}
			switch v.opinion(m.passive, now) {
			case opinionGood:
				good++
			case opinionFailing:
				failing++
			}
		}
		blind[node] = good == 0 && failing > 1
	}
	return blind
}

// canEject reports whether each group of the member has enough others.
func (j *Judge) canEject(m *member) bool {
	for i := range j.groups {
		g := &j.groups[i]
		in, ejected, available := false, 0, 0
		for _, addr := range g.Members {
			o := j.members[g.key(addr)]
			in = in || o == m
			switch {
			case o.down != nil:
			case o.ejected != nil:
				ejected++
			default:
				available++
			}
		}
		if in && (available < 2 || g.Health.Passive == nil || ejected >= most(g, len(g.Members))) {
			return false
		}
	}
	return true
}

// most returns how many of n members may be ejected: the percentage rounded down, but one of two.
func most(g *Group, n int) int {
	if n < 2 || g.Health.Passive.MaxEjected <= 0 {
		return 0
	}
	return min(max(n*g.Health.Passive.MaxEjected/100, 1), n-1)
}

// why returns why the member fails, for people.
func (m *member) why(now time.Time) string {
	var row, failures, total, unanswered uint64
	for _, v := range m.views {
		if v.opinion(m.passive, now) != opinionFailing {
			continue
		}
		row = max(row, uint64(v.last.Consecutive))
		for _, s := range v.samples {
			failures += uint64(s.failures)
			unanswered += uint64(s.unanswered)
			total += uint64(s.failures) + uint64(s.answers)
		}
	}
	how := "not answered"
	switch {
	case unanswered == 0:
		how = "refused"
	case unanswered < failures:
		how = "refused or not answered"
	}
	if row >= uint64(m.passive.Consecutive) {
		return fmt.Sprintf("%d connections in a row %s", row, how)
	}
	return fmt.Sprintf("%d of %d connections %s", failures, total, how)
}

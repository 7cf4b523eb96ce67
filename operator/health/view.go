// SPDX-License-Identifier: Apache-2.0

package health

import (
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// view is what one node knows of a backend.
type view struct {
	last    Observation
	known   bool // what comes next can be compared with last
	samples []sample

	trial   Observation // when the trial began
	onTrial bool        // trial is set
	tried   time.Time   // when it was seen that the backend has got a flow on trial

	result *Result
}

// sample is what was counted from one observation to the next.
type sample struct {
	at                            time.Time
	failures, answers, unanswered uint32
	others                        bool
}

func (m *member) view(node string) *view {
	v := m.views[node]
	if v == nil {
		v = &view{}
		m.views[node] = v
	}
	return v
}

func (m *member) window() time.Duration {
	if m.passive == nil {
		return 0
	}
	return m.passive.Window
}

// observe takes an observation. If counters have become smaller, the backend has another id on the node, or a
// frontend with it is gone, or the report comes late. Then nobody knows what is new in it, or in the next one.
func (v *view) observe(o Observation, window time.Duration, now time.Time) {
	smaller := v.known && (o.Failures < v.last.Failures || o.Answers < v.last.Answers || o.Unanswered < v.last.Unanswered)
	if v.known && !smaller {
		v.samples = append(v.samples, sample{now, o.Failures - v.last.Failures, o.Answers - v.last.Answers, o.Unanswered - v.last.Unanswered, o.Others})
	}
	if smaller {
		v.onTrial = false
	}
	v.last, v.known = o, !smaller
	for len(v.samples) > 0 && (now.Sub(v.samples[0].at) > window || now.Before(v.samples[0].at)) {
		v.samples = v.samples[1:]
	}
}

// opinion is what a node thinks of a backend.
type opinion int

const (
	opinionNone opinion = iota
	opinionGood
	opinionFailing
)

// opinion returns what the node thinks of the backend, by flows of the last window.
func (v *view) opinion(p *lb.PassiveHealth, now time.Time) opinion {
	var failures, answers, unanswered uint64
	others := false
	for _, s := range v.samples {
		if age := now.Sub(s.at); age > p.Window || age < 0 {
			continue
		}
		failures += uint64(s.failures)
		answers += uint64(s.answers)
		unanswered += uint64(s.unanswered)
		others = others || s.others
	}
	total := failures + answers
	if total == 0 {
		return opinionNone
	}
	// A firewall in front of the backend that drops packets of one client looks like a backend that is silent.
	if unanswered > 0 && !others {
		failures -= min(unanswered, failures)
	}
	row := failures > 0 && int64(v.last.Consecutive) >= int64(p.Consecutive)
	share := failures > 0 && p.FailurePercent > 0 && total >= uint64(p.MinFlows) && failures*100 >= uint64(p.FailurePercent)*total
	switch {
	case row || share:
		return opinionFailing
	case answers > 0:
		return opinionGood
	}
	return opinionNone
}

// beginTrial remembers what was counted when the trial began.
func (v *view) beginTrial() {
	v.trial, v.onTrial, v.tried = v.last, v.known, time.Time{}
}

// tried returns what has become of the trial at this node.
func (v *view) outcome(protocol lb.Protocol, now time.Time) opinion {
	if !v.onTrial {
		v.beginTrial()
		return opinionNone
	}
	if v.last.Failures > v.trial.Failures {
		return opinionFailing
	}
	if v.last.Answers > v.trial.Answers {
		return opinionGood
	}
	if protocol != lb.UDP || v.last.Trial == 0 || v.last.Trial == v.trial.Trial {
		return opinionNone
	}
	if v.tried.IsZero() || now.Before(v.tried) {
		v.tried = now
	}
	if now.Sub(v.tried) >= silentTrial {
		return opinionGood
	}
	return opinionNone
}

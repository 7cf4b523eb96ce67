// SPDX-License-Identifier: Apache-2.0

package vip

import "time"

// The times of RFC 5227 make an address usable after seven seconds: too long for one that
// another host has just lost. Answers on a link come within milliseconds, and a late
// one still counts for lateAnswer.
const (
	probes     = 3
	probeEvery = 50 * time.Millisecond
	lateAnswer = 2 * time.Second
	// probeAgainEvery is probeEvery after a conflict, when there is no hurry, and the
	// link may be slow.
	probeAgainEvery = 400 * time.Millisecond
	// defendEvery is DEFEND_INTERVAL of RFC 5227: how often an announcement answers
	// who else claims the address.
	defendEvery = 10 * time.Second
	// rivalCounts is how long somebody who claimed the address is reported.
	rivalCounts = time.Minute
	// retryMin and retryMax are how long after a conflict to probe again. The time
	// doubles. The other host may fail, and we be the one to take over.
	retryMin, retryMax = time.Second, 10 * time.Second
)

// announceAfter is how long after the one before each announcement is sent: some may be
// lost, and a switch may not forward yet when its port comes up.
var announceAfter = []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second}

type phase int

const (
	// probing: asking whether another host has the address.
	probing phase = iota
	// held: it is ours.
	held
	// contested: another host answered. It is not ours until nobody answers.
	contested
)

// claim is an address that is to be ours, by the rules of RFC 5227 for IPv4, and the
// like for IPv6. It is pure: it takes the time as an argument.
type claim struct {
	at    place
	phase phase
	// assigned: the host has it. While an address is probed again, it stays.
	assigned bool
	// sent counts the packets of this phase, and next is when to send one, or what
	// else is due; zero: nothing is.
	sent int
	next time.Time
	// since is when the phase began.
	since time.Time
	// rival is the MAC of another host that claims the address, lately at rivalSeen.
	rival               string
	rivalSeen, defended time.Time
	// conflicts counts those in a row, and answers those of rival in this phase.
	conflicts, answers int
}

// message is what a claim sends.
type message int

const (
	nothing message = iota
	probe
	announcement
)

// begin begins to claim the address at a place. Where nobody can be asked, the address is
// ours at once: no packets can be sent, nobody asks on that link, or it is not connected.
func (c *claim) begin(at place, canSend bool, now time.Time) {
	c.at = at
	c.enter(probing, now)
	if !canSend || at.MAC == "" || !at.Carrier {
		c.enter(held, now)
		c.assigned, c.next = true, time.Time{}
	}
}

// outcome is what others than the claim itself care about.
type outcome struct {
	assigned bool
	rival    string
}

func (c *claim) outcome() outcome { return outcome{c.assigned, c.rival} }

func (c *claim) enter(p phase, now time.Time) {
	c.phase, c.sent, c.answers, c.since, c.next = p, 0, 0, now, now
}

// step does what is due. It returns what to send now, and is to be called until it
// returns nothing.
func (c *claim) step(now time.Time) message {
	if c.rival != "" && c.phase == held && !now.Before(c.rivalSeen.Add(rivalCounts)) {
		c.rival = ""
	}
	if c.next.IsZero() || now.Before(c.next) {
		return nothing
	}
	switch {
	case c.phase == contested:
		c.enter(probing, now)
		return c.step(now)
	case c.phase == probing && c.sent < probes:
		c.sent++
		c.next = now.Add(probeEvery)
		if c.conflicts > 0 {
			c.next = now.Add(probeAgainEvery)
		}
		return probe
	case c.phase == probing:
		c.enter(held, now)
		c.assigned, c.rival, c.conflicts = true, "", 0
		return c.step(now)
	case c.sent < len(announceAfter):
		c.sent++
		c.next = time.Time{}
		if c.sent < len(announceAfter) {
			c.next = now.Add(announceAfter[c.sent])
		}
		return announcement
	}
	c.next = time.Time{}
	return nothing
}

// due returns when to call step, zero: never.
func (c *claim) due() time.Time {
	if c.rival != "" && c.phase == held {
		return earliest(c.next, c.rivalSeen.Add(rivalCounts))
	}
	return c.next
}

// hear handles a packet by which another host shows that it has the address, or with
// asks, that it asks as we do. It returns what to send.
func (c *claim) hear(mac string, kind sign, now time.Time) message {
	if c.at.MAC == "" || c.phase == contested {
		return nothing
	}
	// Who begins at the same time as we do has not won yet: the lower MAC does.
	weWin := c.at.MAC < mac
	fresh := c.phase == held && now.Before(c.since.Add(lateAnswer))
	switch {
	case kind == asks && (c.phase == held || weWin):
		return nothing // the kernel answers; or the other one hears us
	case c.phase == probing, fresh && (kind == answers || !weWin):
		if c.rival != mac {
			c.answers = 0
		}
		c.answers++
		c.rival, c.rivalSeen = mac, now
		// Who has it answers each probe. One forged packet does not take what serves.
		if c.assigned && c.answers < 2 {
			return nothing
		}
		wait := min(retryMin<<min(c.conflicts, 10), retryMax)
		if !weWin { // or both ask again at the same time
			wait += wait / 2
		}
		c.conflicts++
		c.enter(contested, now)
		c.assigned, c.next = false, now.Add(wait)
		return nothing
	}
	// It has been ours, and stays so: a forged packet is no reason to give it up.
	if c.rival == "" {
		c.rival = mac
	}
	c.rivalSeen = now
	if now.Before(c.defended.Add(defendEvery)) {
		return nothing
	}
	c.defended = now
	return announcement
}

// sign is what a packet shows.
type sign int

const (
	// asks: its sender probes for the address.
	asks sign = iota
	// answers: its sender has the address, and answers a question.
	answers
	// announces: its sender has the address, and says so unasked.
	announces
)

// earliest returns the earlier of two times; zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

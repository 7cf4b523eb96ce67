// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
)

const (
	lowerMAC, ourMAC, higherMAC = "\x02\x00\x00\x00\x00\x01", "\x02\x00\x00\x00\x00\x05", "\x02\x00\x00\x00\x00\x09"
)

// script drives a claim by a clock of its own.
type script struct {
	*testing.T
	c     claim
	start time.Time
	now   time.Time
	sent  []string
}

func newScript(t *testing.T, adopted bool) *script {
	s := &script{T: t, start: time.Now()}
	s.now = s.start
	s.c.assigned = adopted
	s.c.begin(onLink(), true, s.now)
	return s
}

func onLink() place {
	return place{hostnet.Interface{Index: 2, Name: "eth0", MAC: ourMAC, Up: true, Carrier: true}, 24}
}

// until lets time pass, and does what becomes due.
func (s *script) until(d time.Duration) {
	end := s.start.Add(d)
	for {
		for m := s.c.step(s.now); m != nothing; m = s.c.step(s.now) {
			s.note(m)
		}
		due := s.c.due()
		if due.IsZero() || due.After(end) {
			s.now = end
			return
		}
		if !due.After(s.now) {
			s.Fatalf("due at %v, and nothing to do", due.Sub(s.start))
		}
		s.now = due
	}
}

func (s *script) hear(mac string, kind sign) { s.note(s.c.hear(mac, kind, s.now)) }

func (s *script) note(m message) {
	if m != nothing {
		s.sent = append(s.sent, fmt.Sprintf("%d@%s", m, s.now.Sub(s.start)))
	}
}

// check checks what was sent (1: probe, 2: announcement) since the last check, and the
// state.
func (s *script) check(p phase, assigned bool, sent ...string) {
	s.Helper()
	if got, want := strings.Join(s.sent, " "), strings.Join(sent, " "); got != want {
		s.Errorf("sent %s\nwant %s", got, want)
	}
	if s.c.phase != p || s.c.assigned != assigned {
		s.Errorf("phase %d, assigned %t; want %d, %t", s.c.phase, s.c.assigned, p, assigned)
	}
	s.sent = nil
}

func TestFreeAddressIsProbedTakenAndAnnounced(t *testing.T) {
	s := newScript(t, false)
	s.until(149 * time.Millisecond)
	s.check(probing, false, "1@0s", "1@50ms", "1@100ms")
	s.until(time.Hour)
	s.check(held, true, "2@150ms", "2@1.15s", "2@3.15s", "2@7.15s")
}

func TestAddressOfAnotherHostIsLeftUntilItIsFree(t *testing.T) {
	for _, adopted := range []bool{true, false} {
		for _, kind := range []sign{answers, announces} {
			s := newScript(t, adopted)
			s.until(70 * time.Millisecond)
			s.check(probing, adopted, "1@0s", "1@50ms")
			s.hear(higherMAC, kind)
			if adopted { // one packet may be forged
				s.check(probing, true)
				s.hear(lowerMAC, kind)
				s.check(probing, true)
				s.hear(higherMAC, kind)
				s.check(probing, true)
				s.hear(higherMAC, kind)
			}
			s.check(contested, false)
			if s.c.rival != higherMAC {
				t.Errorf("rival is %x", s.c.rival)
			}
			s.until(1070 * time.Millisecond) // asks again after a second
			s.check(probing, false, "1@1.07s")
			s.hear(higherMAC, kind)
			s.until(3070*time.Millisecond - 1) // then after two
			s.check(contested, false)
			s.until(4300 * time.Millisecond)
			s.check(held, true, "1@3.07s", "1@3.47s", "1@3.87s", "2@4.27s")
			if s.c.rival != "" || s.c.conflicts != 0 {
				t.Errorf("the conflict is not over: %+v", s.c)
			}
		}
	}
}

func TestProbesAreRarerWhileAnotherHostAnswers(t *testing.T) {
	s := newScript(t, false)
	for range 1000 {
		s.until(s.now.Sub(s.start))
		s.hear(higherMAC, answers)
		if wait := s.c.next.Sub(s.now); wait < time.Second || wait > 15*time.Second {
			t.Fatalf("asks again after %v", wait)
		}
		s.until(s.c.next.Sub(s.start))
	}
	if s.c.hear(higherMAC, answers, s.now); s.c.next.Sub(s.now) != retryMax {
		t.Errorf("asks again after %v", s.c.next.Sub(s.now))
	}
}

func TestForgedPacketsDoNotTakeAnAddressThatIsHeld(t *testing.T) {
	s := newScript(t, false)
	s.until(time.Minute)
	s.sent = nil
	for i := range 30000 { // for half a minute, each from another MAC
		s.until(time.Minute + time.Duration(i)*time.Millisecond)
		s.hear(fmt.Sprintf("\x02%c%c%c%c%c", 1, i>>8&0x7f, i&0x7f, 3, 4), []sign{asks, answers, announces}[i%3])
	}
	s.check(held, true, "2@1m0.001s", "2@1m10.001s", "2@1m20.002s")
	if s.c.rival == "" {
		t.Error("the conflict is not reported")
	}
	s.until(3 * time.Minute)
	s.check(held, true)
	if s.c.rival != "" {
		t.Error("the conflict is reported for ever")
	}
}

func TestLateAnswerCounts(t *testing.T) {
	s := newScript(t, false)
	s.until(2 * time.Second)
	s.hear(lowerMAC, answers)
	s.hear(lowerMAC, answers)
	if s.c.phase != contested || s.c.assigned {
		t.Errorf("an answer after 1.8 s leaves %+v", s.c.outcome())
	}
}

// TestOneOfTwoThatBeginTogetherGetsTheAddress: two claims on a link, whose packets reach
// the other one after a delay.
func TestOneOfTwoThatBeginTogetherGetsTheAddress(t *testing.T) {
	for _, apart := range []time.Duration{0, 10 * time.Millisecond, 100 * time.Millisecond, 230 * time.Millisecond, 245 * time.Millisecond, time.Second} {
		for _, delay := range []time.Duration{0, 5 * time.Millisecond, 150 * time.Millisecond} {
			t.Run(fmt.Sprintf("apart=%v,delay=%v", apart, delay), func(t *testing.T) {
				type packet struct {
					at   time.Time
					to   int
					kind sign
				}
				start := time.Now()
				macs := []string{higherMAC, lowerMAC}
				var c [2]claim
				var link []packet
				tell := func(i int, m message, now time.Time) {
					if m != nothing {
						link = append(link, packet{now.Add(delay), 1 - i, map[message]sign{probe: asks, announcement: announces}[m]})
					}
				}
				for now := start; now.Before(start.Add(2 * time.Minute)); now = now.Add(5 * time.Millisecond) {
					for i, begin := range []time.Time{start, start.Add(apart)} {
						if now.Equal(begin) {
							at := onLink()
							at.MAC = macs[i]
							c[i].begin(at, true, now)
						}
						for m := c[i].step(now); m != nothing; m = c[i].step(now) {
							tell(i, m, now)
						}
					}
					for len(link) > 0 && !link[0].at.After(now) {
						p := link[0]
						link = link[1:]
						if p.kind == asks && c[p.to].assigned { // the kernel answers
							tell(p.to, nothing, now)
							link = append(link, packet{now.Add(delay), 1 - p.to, answers})
						}
						tell(p.to, c[p.to].hear(macs[1-p.to], p.kind, now), now)
					}
				}
				if c[0].assigned == c[1].assigned {
					t.Errorf("both or none have it: %+v, %+v", c[0].outcome(), c[1].outcome())
				}
			})
		}
	}
}

func TestWhereNobodyCanBeAskedTheAddressIsOursAtOnce(t *testing.T) {
	for name, change := range map[string]func(*place){
		"no MAC":     func(p *place) { p.MAC = "" },
		"no carrier": func(p *place) { p.Carrier = false },
		"no socket":  func(*place) {},
	} {
		s := &script{T: t, start: time.Now()}
		s.now = s.start
		at := onLink()
		change(&at)
		s.c.begin(at, name != "no socket", s.now)
		s.until(time.Minute)
		s.check(held, true)
		// When the link is connected, it is asked then, and the address stays meanwhile.
		s.c.begin(onLink(), true, s.now)
		s.until(time.Minute + 60*time.Millisecond)
		s.check(probing, true, "1@1m0s", "1@1m0.05s")
	}
}

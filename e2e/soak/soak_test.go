// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package soak

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

var (
	duration = flag.Duration("for", 2*time.Minute, "about how long to make mistakes: one each 6 s")
	seed     = flag.Uint64("seed", 0, "what decides which mistakes are made (default: a new one)")
	from     = flag.Int("from", 1, "the step to begin with, to see one again that went wrong")
	only     = flag.String("only", "", "make this kind of mistake alone")
)

// pace is about what a mistake takes with all that is checked.
const pace = 6 * time.Second

// mistake is a kind of mistake.
type mistake struct {
	name string
	// place is what it touches. Two of one place are never made at once.
	place string
	// names are the groups of frontends whose connections may break by it.
	names []string
	// dark says that no packet passes while it lasts, so that nobody can connect.
	// It lasts a moment.
	dark bool
	// do makes the mistake. It returns how, and what mends it.
	do func(h *host, r *rand.Rand) (how string, mend func() error, err error)
}

// done is a mistake that has been made.
type done struct {
	mistake
	how  string
	mend func() error
}

func (d done) String() string { return d.name + ": " + d.how }

// TestSoak makes mistakes. Connections to frontends that none of them names must
// survive, and once it is mended the host must be as after a fresh start.
func TestSoak(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano()) % 1e6
	}
	steps := int(*duration / pace)
	fmt.Printf("soak: %d mistakes, seed %d\n", steps, *seed)
	h := newHost(t)
	visitors := h.startVisitors()
	fresh := h.state()
	began := time.Now()
	for step := *from; step < *from+steps; step++ {
		r := rand.New(rand.NewPCG(*seed, uint64(step)))
		made := h.step(r, visitors, fresh)
		h.history = append(h.history, fmt.Sprintf("step %d: %s", step, join(made)))
		fmt.Printf("soak: %s %s\n", time.Since(began).Round(time.Second), h.history[len(h.history)-1])
		if t.Failed() {
			h.evidence(step)
			return
		}
	}
	fmt.Printf("soak: %d mistakes with seed %d in %s; of %d datagrams to frontends that nobody named %d had to be repeated\n",
		steps, *seed, time.Since(began).Round(time.Second), visitors.datagrams.Load(), visitors.repeated.Load())
	visitors.stop()

	// A start that finds nothing makes what the first one made.
	h.check("stop", h.blixt.Stop())
	_, err := h.blixt.Run("unload")
	h.check("unload", err)
	h.check("start", h.blixt.Start())
	h.awaitState("a fresh start after all mistakes", fresh)
}

// step makes a mistake or two at once, and mends them.
func (h *host) step(r *rand.Rand, visitors *visitors, fresh []string) (made []done) {
	kinds := mistakes()
	if *only != "" {
		kinds = slices.DeleteFunc(kinds, func(m mistake) bool { return m.name != *only })
	}
	if len(kinds) == 0 {
		h.t.Fatalf("there is no mistake %q", *only)
	}
	wanted := 1
	if r.IntN(4) == 0 {
		wanted = 2
	}
	mark := time.Now()
	dark := false
	for len(made) < wanted && len(kinds) > 0 {
		m := kinds[r.IntN(len(kinds))]
		kinds = slices.DeleteFunc(kinds, func(k mistake) bool { return k.place == m.place || k.dark && m.dark })
		how, mend, err := m.do(h, r)
		made = append(made, done{m, how, mend})
		if err != nil {
			h.t.Errorf("%s cannot be made: %v", made[len(made)-1], err)
			return made
		}
		dark = dark || m.dark
	}
	var named []string
	for _, d := range made {
		named = append(named, d.names...)
	}
	lasts := time.Duration(r.IntN(3000)) * time.Millisecond
	switch {
	case dark:
		lasts /= 3
	case r.IntN(6) == 0: // longer than Blixt waits for what may come back
		lasts += 7 * time.Second
	}
	time.Sleep(lasts)
	if !dark {
		visitors.checkNewcomers("while there is "+join(made), named)
	}
	for _, i := range r.Perm(len(made)) { // as people do: not in order
		d := made[i]
		if err := d.mend(); err != nil {
			h.t.Errorf("%s cannot be mended: %v", d, err)
			return made
		}
	}
	h.awaitState("after "+join(made), fresh)
	visitors.check("by "+join(made), named, mark)
	visitors.checkNewcomers("after "+join(made), nil)
	return made
}

func join(made []done) string {
	var texts []string
	for _, d := range made {
		texts = append(texts, d.String())
	}
	return strings.Join(texts, "; and ")
}

// evidence prints what somebody needs to see the failure again, and to understand it.
func (h *host) evidence(step int) {
	last := h.history[max(0, len(h.history)-5):]
	fmt.Printf("soak: FAILED at seed %d, step %d. Once more: make soak SEED=%d FROM=%d\nThe last mistakes were:\n%s\n",
		*seed, step, *seed, max(1, step-1), strings.Join(last, "\n"))
	log := strings.Split(h.blixt.Log(), "\n")
	fmt.Printf("Blixt said last:\n%s\n", strings.Join(log[max(0, len(log)-60):], "\n"))
	for _, command := range []string{"ip -br link", "ip -o addr", "ip route", "ip -6 route", "ip neigh", "ss -tan", "ls -la " + h.blixt.Dir} {
		out, err := h.balancer.Run(5*time.Second, "bash", "-c", command)
		fmt.Printf("%s: %v\n%s\n", command, err, out)
	}
	out, err := h.blixt.Run("status")
	fmt.Printf("status: %v\n%s\n", err, out)
}

// awaitState waits until the host is as after a fresh start.
func (h *host) awaitState(what string, fresh []string) {
	h.t.Helper()
	var now []string
	err := lab.Eventually(settleLimit, func() error {
		if now = h.state(); slices.Equal(now, fresh) {
			return nil
		}
		time.Sleep(pollEvery)
		return fmt.Errorf("the host is not as after a fresh start:\n%s", difference(fresh, now))
	})
	if err != nil {
		h.t.Errorf("%s: %v", what, err)
	}
}

// difference returns the lines that only one of two states has.
func difference(want, got []string) string {
	var b strings.Builder
	for _, line := range want {
		if !slices.Contains(got, line) {
			fmt.Fprintf(&b, "- %s\n", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			fmt.Fprintf(&b, "+ %s\n", line)
		}
	}
	return b.String()
}

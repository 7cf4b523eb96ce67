// SPDX-License-Identifier: Apache-2.0

package page

import (
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Limits of wrong tokens. A token has 16 characters at least, so that nobody guesses it:
// the limits keep those who check tokens from work, and the log readable.
const (
	mostGuesses = 10
	guessAgain  = 10 * time.Second
	// mostGuessers are remembered. If there are more, all are forgotten.
	mostGuessers = 1000
)

// guesses limits how many wrong tokens come from a client. Its zero value has seen none.
type guesses struct {
	mu sync.Mutex
	of map[netip.Prefix]*bucket
}

// bucket holds what a client may still guess.
type bucket struct {
	left float64
	at   time.Time
}

// take takes a guess of a client, who has none left if it returns false.
func (g *guesses) take(client netip.Prefix, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.of[client]
	if b == nil {
		if g.of == nil || len(g.of) >= mostGuessers {
			g.of = map[netip.Prefix]*bucket{}
		}
		b = &bucket{mostGuesses, now}
		g.of[client] = b
	}
	if past := now.Sub(b.at); past > 0 {
		b.left, b.at = min(mostGuesses, b.left+past.Seconds()/guessAgain.Seconds()), now
	}
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// giveBack gives a client back what was no guess.
func (g *guesses) giveBack(client netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if b := g.of[client]; b != nil {
		b.left++
	}
}

// clientOf returns where a request comes from: an address, or of IPv6 the network that
// belongs to one customer. Behind a proxy it is the proxy, as anybody can claim to be one.
func clientOf(r *http.Request) netip.Prefix {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{}
	}
	a := from.Addr().Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // it has as many
	return p
}

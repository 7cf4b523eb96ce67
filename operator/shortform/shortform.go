// SPDX-License-Identifier: Apache-2.0

// Package shortform turns the short form of a load balancer, the flags --listen and
// --backend, into Gateway API objects. It is pure.
//
// In go the flags in the order of the command line. A --backend belongs to the --listen
// flags before it: those that stand together share the --backend flags that follow them.
// Out comes YAML, or every mistake at once, each with the flag that has it.
package shortform

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// The names of the flags.
const (
	Listen  = "listen"
	Backend = "backend"
)

// Flag is one of the flags, as it was given.
type Flag struct{ Name, Value string }

// String returns the flag in a form that can be printed.
func (f Flag) String() string { return "--" + f.Name + " " + show(f.Value) }

// show returns what somebody wrote in a form that can be printed.
func show(text string) string { return phrase.Clip(phrase.Printable(text), 100) }

// Document is some of the objects, as YAML.
type Document struct {
	// Place is what they were made from, such as --listen 192.0.2.10:80/tcp. Messages name
	// it where they name file and line of other objects.
	Place string
	Text  string
}

// Objects returns what the flags mean: a Gateway and a route for each --listen, a policy for
// its options, and Services
// with EndpointSlices for its backends. The Gateways are of a class that they need besides:
// see Class. Without flags there is nothing. The error has a line for each mistake.
func Objects(flags []Flag, class string) ([]Document, error) {
	groups, err := read(flags)
	if err != nil || len(groups) == 0 {
		return nil, err
	}
	return write(groups, class), nil
}

// listen is what a --listen says.
type listen struct {
	Flag
	addr     netip.Addr // the zero Addr: every address of the host
	port     uint16
	protocol string // tcp or udp
	name     string // of its Gateway, its route and its policy
	policy   policy
}

// backend is what a --backend says.
type backend struct {
	Flag
	addr   netip.Addr
	port   uint16 // 0: that of the listener
	weight int
}

// group are --listen flags that stand together, and the --backend flags that follow them.
type group struct {
	listens  []listen
	backends []backend
}

// maxMistakes is how many mistakes are told.
const maxMistakes = 10

// mistakes collects what is wrong with flags.
type mistakes []error

func (m *mistakes) add(f Flag, format string, args ...any) {
	*m = append(*m, fmt.Errorf("%s: %s", f, fmt.Sprintf(format, args...)))
}

func (m mistakes) err() error {
	if n := len(m) - maxMistakes; n > 0 {
		m = append(m[:maxMistakes:maxMistakes], fmt.Errorf("and %d more", n))
	}
	return errors.Join(m...)
}

// read returns the groups, or what is wrong with the flags.
func read(flags []Flag) ([]group, error) {
	var groups []group
	var wrong mistakes
	for _, f := range flags {
		last := len(groups) - 1
		var err error
		switch {
		case f.Name == Listen:
			if last < 0 || groups[last].backends != nil {
				groups = append(groups, group{})
				last++
			}
			l := listen{Flag: f}
			err = l.parse()
			groups[last].listens = append(groups[last].listens, l)
		case last < 0:
			wrong.add(f, "no --listen is before it: a --backend belongs to the --listen flags before it")
		default:
			b := backend{Flag: f}
			err = b.parse()
			groups[last].backends = append(groups[last].backends, b)
		}
		if err != nil {
			wrong.add(f, "%s", err)
		}
	}
	if n := len(groups); n > 0 && groups[n-1].backends == nil {
		wrong.add(groups[n-1].listens[0].Flag, "no --backend follows it: give at least one, such as --backend 10.0.0.1:8080")
	}
	if len(wrong) == 0 {
		check(groups, &wrong)
	}
	return groups, wrong.err()
}

// SPDX-License-Identifier: Apache-2.0

// Package migrate turns what other load balancers are configured to do into objects of
// Gateway API and BlixtPolicies. It is pure.
//
// There is a package for each source beside. Its Read turns files into a Plan: frontends
// with their backends, and a Note for everything that is not carried over as it was.
// Nothing is dropped without a Note. Plan.Objects makes objects that are valid whatever the
// Plan says, and adds notes about what has no valid form. YAML writes them.
package migrate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// File is a file of the source.
type File struct {
	Name string // as messages show it
	Text []byte
}

// Place is where something was written.
type Place struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"` // 0: the file as a whole
}

// String returns file:line.
func (p Place) String() string {
	file := phrase.Printable(p.File)
	if p.Line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, p.Line)
}

func (p Place) compare(o Place) int {
	return cmp.Or(cmp.Compare(p.File, o.File), cmp.Compare(p.Line, o.Line))
}

// Quote returns what was written as a Note tells it: in quotes, printable and not too long.
func Quote(text string) string { return `"` + phrase.Clip(phrase.Printable(text), 160) + `"` }

// Clip is Quote for a word or two, without quotes.
func Clip(text string) string { return phrase.Clip(phrase.Printable(text), 80) }

// Effect is what becomes of something that is not carried over as it was.
type Effect string

// The effects.
const (
	Lost     Effect = "lost"     // it is not served, or clients or servers notice
	Changed  Effect = "changed"  // it is served in another way
	Unneeded Effect = "unneeded" // Blixt has no need of it
)

// Note says what is not carried over as it was.
type Note struct {
	Place
	Effect Effect `json:"effect"`
	// Text is one line: what it is, quoted as it was written; why; what to do.
	Text string `json:"text"`
}

// String returns file:line: effect: text.
func (n Note) String() string {
	text := phrase.Printable(n.Text)
	if n.File == "" {
		return fmt.Sprintf("%s: %s", n.Effect, text)
	}
	return fmt.Sprintf("%s: %s: %s", n.Place, n.Effect, text)
}

// Plan is what a source does, as far as Blixt can do it, and what it cannot.
type Plan struct {
	Frontends []Frontend
	// Known are Services of Frontends that were read.
	Known []corev1.Service
	// Notes are those that concern no Frontend, or all.
	Notes []Note
	// Broken is true if a file cannot be read, as the source's own program would not take it either: a
	// Note says why. Nothing is written then, as what cannot be read may be what keeps clients out.
	Broken bool
}

// Note adds a note that concerns no Frontend, or all.
func (p *Plan) Note(at Place, effect Effect, format string, args ...any) {
	p.Notes = append(p.Notes, Note{at, effect, fmt.Sprintf(format, args...)})
}

// Frontend is what clients connect to, and who answers them: Backends, or Services of a
// cluster.
type Frontend struct {
	Place
	// Name is that which the objects should have: what the source calls it. It need not be
	// valid, and several may have the same one.
	Name string
	// Gateway is the name of a Gateway that several Frontends share; "": it has one of its
	// own. Those of one Gateway have the same Namespace and Addresses.
	Gateway string
	// Namespace of Gateway, route and policy; "": that of the Options.
	Namespace string
	Protocol  corev1.Protocol // TCP or UDP
	// Addresses that clients connect to. None: those of the host, or what the cluster
	// assigns. 0.0.0.0 and :: are all of one family.
	Addresses []netip.Addr
	// Port, and the last one of a range; 0 or Port: no range. In a range a connection goes to
	// the same port of a backend or, if Backends have ports, to theirs and as much higher as
	// the client's port is above Port.
	Port, EndPort uint16
	// Pool is what the source calls the Backends, such as an upstream; "": Name. Frontends
	// with the same Backends share their Services.
	Pool     string
	Backends []Backend
	// Missing are servers that Blixt cannot have, as the source calls them, such as a name: a Note
	// says why. --diff shows them.
	Missing  []string
	Services []Service
	// Policy has no targetRefs, no ports and no failover: they come from the fields above.
	// Durations that are out of bounds are moved into them. Zero: there is none.
	Policy v1alpha1.BlixtPolicySpec
	// Was is how the source chooses among the Backends, in its own words, such as least_conn.
	Was string
	// Annotations and Labels are for the Service that the Gateway has in a cluster, at most 16
	// and 8, and Config says what else holds for the Gateway. Frontends of one Gateway have the
	// same ones.
	Annotations, Labels map[string]string
	Config              v1alpha1.BlixtGatewayConfigSpec
	// Unserved Frontends are in Source, and nothing is written for them: a Note says why.
	Unserved bool
	// Notes concern this Frontend. A Note may be in several.
	Notes []Note

	index int // in the Plan
}

// Note adds a note that concerns the Frontend.
func (f *Frontend) Note(at Place, effect Effect, format string, args ...any) {
	f.Notes = append(f.Notes, Note{at, effect, fmt.Sprintf(format, args...)})
}

// Backend is a server.
type Backend struct {
	Place
	Addr netip.Addr
	// Port; 0: the one that the client has connected to.
	Port uint16
	// Weight 0: it keeps its connections, and gets no new ones.
	Weight int
	// Backup servers get connections while no other one can have any.
	Backup bool
	// Turn of a backup server: those of a higher one wait for all of a lower one, too.
	Turn int
}

// String returns address and port.
func (b Backend) String() string {
	if b.Port == 0 {
		return b.Addr.String()
	}
	return netip.AddrPortFrom(b.Addr, b.Port).String()
}

// Service is a Service that exists. The route is in the namespace of the first one, so that who
// has the Service has the route: the listener takes routes of that namespace alone.
type Service struct {
	Namespace string // "": that of the Frontend
	Name      string
	Port      uint16
	Weight    int // 0: 1
}

// AllNotes returns the notes of the plan and of its frontends, each once, by place.
func (p *Plan) AllNotes() []Note {
	all := slices.Clone(p.Notes)
	for i := range p.Frontends {
		all = append(all, p.Frontends[i].Notes...)
	}
	return sorted(all)
}

// sorted returns the notes by place, each once.
func sorted(all []Note) []Note {
	slices.SortStableFunc(all, func(a, b Note) int {
		return cmp.Or(a.compare(b.Place), strings.Compare(string(a.Effect), string(b.Effect)), strings.Compare(a.Text, b.Text))
	})
	return slices.Compact(all)
}

// Loses reports whether some of the notes say that something is lost.
func Loses(all []Note) bool {
	return slices.ContainsFunc(all, func(n Note) bool { return n.Effect == Lost })
}

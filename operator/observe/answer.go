// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
)

// Kind is the name of the member of a Query that is set.
type Kind string

// The kinds of queries.
const (
	KindFlows  Kind = "flows"
	KindDrops  Kind = "drops"
	KindTrace  Kind = "trace"
	KindStatus Kind = "status"
)

// Kind returns which member is set. It returns an error if that is not exactly one:
// the query may be of a later version.
func (q Query) Kind() (Kind, error) {
	var set []Kind
	for kind, is := range map[Kind]bool{KindFlows: q.Flows != nil, KindDrops: q.Drops != nil, KindTrace: q.Trace != nil, KindStatus: q.Status != nil} {
		if is {
			set = append(set, kind)
		}
	}
	switch len(set) {
	case 1:
		return set[0], nil
	case 0:
		return "", errors.New("this version does not know the question: is the command of a later version?")
	}
	return "", errors.New("want one question at a time")
}

// Switch is an Answerer that passes queries on to another one, which may not exist
// yet. Its zero value has none.
type Switch struct{ to atomic.Pointer[Answerer] }

// Set sets who answers from now on; nil: nobody.
func (s *Switch) Set(a Answerer) {
	if a == nil {
		s.to.Store(nil)
		return
	}
	s.to.Store(&a)
}

// Answer implements Answerer.
func (s *Switch) Answer(ctx context.Context, q Query, send func(json.RawMessage) error) error {
	to := s.to.Load()
	if to == nil {
		return errors.New("the maps are not open yet: ask again")
	}
	return (*to).Answer(ctx, q, send)
}

// NodesError says which nodes have not answered, or not to the end, and why.
type NodesError struct{ Reasons map[string]string }

// maxReasons is how many nodes an error names.
const maxReasons = 5

// Error implements error.
func (e *NodesError) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%d nodes have not answered in full", len(e.Reasons))
	if len(e.Reasons) == 1 {
		text.Reset()
		text.WriteString("a node has not answered in full")
	}
	for i, node := range slices.Sorted(maps.Keys(e.Reasons)) {
		if i == maxReasons {
			fmt.Fprintf(&text, "; and %d more", len(e.Reasons)-i)
			break
		}
		fmt.Fprintf(&text, "; %s: %s", node, e.Reasons[node])
	}
	return strings.Replace(text.String(), "; ", ": ", 1)
}

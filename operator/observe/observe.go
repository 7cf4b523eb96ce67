// SPDX-License-Identifier: Apache-2.0

// Package observe is how commands ask nodes what they see, and what the nodes
// answer: the same questions and answers for a host of its own and for each node
// of a cluster, whatever carries them.
package observe

import (
	"context"
	"encoding/json"
)

// Query is a question to a node. Exactly one of its members is set.
type Query struct {
	// Flows asks for Record after Record: those that the node remembers, and the
	// flows that are in its tables.
	Flows *FlowsQuery `json:"flows,omitempty"`
	// Drops asks for the last packets of each reason.
	Drops *DropsQuery `json:"drops,omitempty"`
	// Trace asks where a packet would go.
	Trace *TraceQuery `json:"trace,omitempty"`
	// Status asks for writer.Status, with names: rates come from two of them.
	Status *StatusQuery `json:"status,omitempty"`
}

// Answerer answers queries: a node's agent, or `blixt run`.
type Answerer interface {
	// Answer calls send with each piece of the answer, which is one JSON object,
	// in order, until there are no more, send fails, or ctx ends. Errors are for
	// whoever has asked.
	Answer(ctx context.Context, q Query, send func(json.RawMessage) error) error
}

// Asker asks queries, wherever who answers is.
type Asker interface {
	// Ask calls got with each piece of the answer, and with the name of the node
	// that it comes from ("" on a host of its own). If several nodes are asked, the
	// pieces of each are in order. It returns when all have answered. An error
	// names the nodes that have not.
	Ask(ctx context.Context, q Query, got func(node string, piece json.RawMessage) error) error
}

// StatusQuery asks for writer.Status.
type StatusQuery struct {
	// Clients is how many clients are wanted, those with most flows: top.Report has them.
	Clients int `json:"clients,omitempty"`
	// Count has the active flows of backends counted now, with those that are opening.
	// Otherwise, and by a node of an earlier version, they are those of some seconds ago.
	Count bool `json:"count,omitempty"`
	// Scope restricts the answer to what a page shows; nil: all frontends are wanted.
	Scope *Scope `json:"scope,omitempty"`
}

// Scope is some Gateways. An answer in a scope has their frontends and backendRefs alone,
// beside the totals of all: so that its size does not depend on how much a node serves. A
// node of an earlier version does not know scopes, and answers with all.
type Scope struct {
	Gateways []string `json:"gateways"` // namespace/name
	// Backends is how many backends are wanted one by one, of all frontends together; 0: as
	// many as a node tells. Sums are of all.
	Backends int `json:"backends,omitempty"`
}

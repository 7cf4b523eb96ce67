// SPDX-License-Identifier: Apache-2.0

// Package page is a page in a browser that shows what a host or a cluster serves, and what
// is wrong. It is read-only. A Source says what there is; View is what a browser gets of
// that, again and again, as server-sent events.
package page

import (
	"context"

	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// Source is what a page shows: a host, or a cluster.
type Source interface {
	// Overview tells whether all is well, and which Gateways there are. It is called every
	// few seconds while somebody looks, by several readers at once, and is not to be
	// modified by them.
	Overview(context.Context) (*Overview, error)
	// Asker asks the nodes for counters, flows, drops and traces.
	observe.Asker
}

// Overview is what there is.
type Overview struct {
	// Kind is host or cluster, Name that of the load balancer or of the cluster.
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Version string `json:"version"`
	// Status is what blixt status -o json prints: verdict and findings, the worst first,
	// and host or cluster.
	Status Status `json:"status"`
	// Gateways are all, in the order of their names.
	Gateways []Declared `json:"-"`
	Nodes    []Node     `json:"-"`
}

// Status is whether all is well.
type Status struct {
	Verdict  finding.Level     `json:"verdict"`
	Findings []finding.Finding `json:"findings"`
}

// Declared is a Gateway as somebody has declared it, whether or not it is served.
type Declared struct {
	Name      string   `json:"name"` // namespace/name
	Class     string   `json:"class,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
	// Problem is what is wrong with it or its listeners and routes, the worst alone; "":
	// nothing. Verdict is how bad that is.
	Problem   string             `json:"problem,omitempty"`
	Verdict   finding.Level      `json:"verdict"`
	Listeners []DeclaredListener `json:"listeners,omitempty"`
	// Active are its flows, for ordering; nil: not known without asking the nodes.
	Active *uint64 `json:"-"`
}

// DeclaredListener is a listener of a Gateway.
type DeclaredListener struct {
	Name     string   `json:"name"`
	Protocol string   `json:"protocol"` // TCP, UDP
	Port     uint16   `json:"port"`
	Routes   []string `json:"routes,omitempty"` // kind/namespace/name
	// Problem is what is wrong with it; "": nothing.
	Problem string `json:"problem,omitempty"`
}

// Node is a host, or a node of a cluster.
type Node struct {
	Name    string        `json:"name"`
	Verdict finding.Level `json:"verdict"`
	// Reason is why it is not well, in a word or a sentence.
	Reason    string `json:"reason,omitempty"`
	Version   string `json:"version,omitempty"` // of Blixt, or the digest of its bytecode
	Kernel    string `json:"kernel,omitempty"`
	Frontends int    `json:"frontends"`
	Backends  int    `json:"backends"`
	Flows     uint64 `json:"flows"`
}

// SPDX-License-Identifier: Apache-2.0

// Package clusterpage is what a page shows of a cluster. In go the objects of the cluster,
// and who asks its nodes; out comes a page.Source. It writes nothing.
package clusterpage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	"github.com/kubernetes-sigs/blixt/operator/admin/overview"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/kube"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/page"
)

// Options of a Source.
type Options struct {
	// Name is that of the cluster, Version that of Blixt.
	Name, Version string
	// Facts reads all that blixt doctor examines. That is many requests, so it happens in
	// the background, and only while somebody looks.
	Facts func(context.Context) (*doctor.Facts, error)
	// FactsEvery is how old facts become; 0: 30 seconds.
	FactsEvery time.Duration
	// Objects has Gateways, routes and NodeDataplanes as they are now, in the memory of
	// this process, which are not modified; nil: they are as old as the facts.
	Objects client.Reader
	// Own is true if the operator itself reads the facts. It may not read all kinds, which
	// is no fault.
	Own bool
	// Asker asks the nodes.
	Asker observe.Asker
	// AskFor is how long nodes have to answer; 0: 3 seconds.
	AskFor time.Duration
}

const (
	factsEvery = 30 * time.Second
	// factsLimit is how long it may take to read facts.
	factsLimit = 30 * time.Second
	// fresh is how long several readers see the same overview.
	fresh = time.Second
)

// Source implements page.Source.
type Source struct {
	o      Options
	latest latest
	asking asking

	mu    sync.Mutex // while an overview is made
	made  *page.Overview
	until time.Time
}

// New returns a Source.
func New(o Options) *Source {
	o.FactsEvery = cmp.Or(o.FactsEvery, factsEvery)
	s := &Source{o: o}
	s.asking.limit = cmp.Or(o.AskFor, askFor)
	return s
}

// Overview implements page.Source. It returns an error if the API server has not answered
// yet.
func (s *Source) Overview(ctx context.Context) (*page.Overview, error) {
	facts, old, err := s.latest.get(ctx, s.o.FactsEvery, s.o.Facts)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made != nil && time.Now().Before(s.until) {
		return s.made, nil
	}
	now, err := s.current(ctx, facts)
	if err != nil {
		return nil, err
	}
	s.made, s.until = s.overview(now, old), time.Now().Add(fresh)
	s.asking.setNodes(now.Dataplanes)
	return s.made, nil
}

// current returns facts with what objects are now.
func (s *Source) current(ctx context.Context, facts *doctor.Facts) (*doctor.Facts, error) {
	if s.o.Objects == nil {
		return facts, nil
	}
	now := *facts
	r := &kube.Reader{Client: s.o.Objects, Unread: map[string]string{}}
	all := client.UnsafeDisableDeepCopy
	now.Classes = kube.Read[gwv1.GatewayClassList](ctx, r, all).Items
	now.Gateways = kube.Read[gwv1.GatewayList](ctx, r, all).Items
	now.ListenerSets = kube.Read[gwv1.ListenerSetList](ctx, r, all).Items
	now.TCPRoutes = kube.Read[gwv1.TCPRouteList](ctx, r, all).Items
	now.UDPRoutes = kube.Read[gwv1.UDPRouteList](ctx, r, all).Items
	now.Dataplanes = kube.Read[v1alpha1.NodeDataplaneList](ctx, r, all).Items
	return &now, r.Err
}

func (s *Source) overview(f *doctor.Facts, old error) *page.Overview {
	found := overview.Check(f)
	found = fold(f, found, s.o.Own)
	if old != nil {
		found = append(found, finding.Finding{
			Check: "api-server", Verdict: finding.Unknown, Remedy: "See the API server, and the log of who serves this page.",
			Seen: fmt.Sprintf("what blixt doctor examines is as it was at %s: %v", f.Now.UTC().Format(time.RFC3339), old),
		})
		finding.WorstFirst(found)
	}
	for i := range found {
		found[i].Seen, found[i].Remedy = clip(found[i].Seen), clip(found[i].Remedy)
	}
	return &page.Overview{
		Kind: "cluster", Name: cmp.Or(s.o.Name, "Kubernetes "+f.Version), Version: s.o.Version,
		Status:   page.Status{Verdict: finding.Verdict(found), Findings: found},
		Gateways: declare(f), Nodes: nodes(f.Dataplanes),
	}
}

// fold makes one finding of all checks whose kinds may not be read. That is no fault if the
// operator itself, own, may not.
func fold(f *doctor.Facts, found []finding.Finding, own bool) []finding.Finding {
	var kinds []string
	kept := slices.DeleteFunc(found, func(one finding.Finding) bool {
		if one.Verdict != finding.Unknown || f.Unread[one.Object] == "" {
			return false
		}
		kinds = append(kinds, one.Object)
		return true
	})
	n := len(kinds)
	if n == 0 {
		return kept
	}
	slices.Sort(kinds)
	names := strings.Join(slices.Compact(kinds), ", ")
	one := finding.Finding{
		Check: "doctor", Verdict: finding.OK, Remedy: "Run blixt doctor as an administrator now and then.",
		Seen: fmt.Sprintf("%d checks of blixt doctor are left out here, because the operator may not list %s", n, names),
	}
	if !own {
		one.Verdict, one.Remedy = finding.Unknown, "Have an administrator bind ClusterRole blixt-viewer to you, or another one that may list them: kubectl create clusterrolebinding NAME --clusterrole=blixt-viewer --user=YOU"
		one.Seen = fmt.Sprintf("%d checks of blixt doctor could not be made, because you may not list %s", n, names)
		if f.Unread["Gateway"] != "" || f.Unread["GatewayClass"] != "" {
			one.Seen = "no Gateway is shown, and " + one.Seen
		}
	}
	kept = append(kept, one)
	finding.WorstFirst(kept)
	return kept
}

// latest are the facts that were read last. They are read in the background, once at a
// time, and only if somebody wants them.
type latest struct {
	mu      sync.Mutex
	facts   *doctor.Facts
	at      time.Time // when the reading began that got them
	err     error     // of the last reading
	reading chan struct{}
}

// get returns facts. If they are old, it has new ones read, for which it waits only if the
// last ones are very old, or there are none. old is why the last reading failed.
func (l *latest) get(ctx context.Context, every time.Duration, read func(context.Context) (*doctor.Facts, error)) (facts *doctor.Facts, old, err error) {
	l.mu.Lock()
	if time.Since(l.at) >= every && l.reading == nil {
		done := make(chan struct{})
		l.reading = done
		go l.read(context.WithoutCancel(ctx), read, done)
	}
	reading, wait := l.reading, time.Since(l.at) >= 2*every && l.err == nil
	l.mu.Unlock()
	if wait && reading != nil {
		select {
		case <-reading:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.facts == nil {
		return nil, nil, cmp.Or(l.err, errNotYet)
	}
	return l.facts, l.err, nil
}

var errNotYet = errors.New("the cluster is being read: look again in a moment")

func (l *latest) read(ctx context.Context, read func(context.Context) (*doctor.Facts, error), done chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, factsLimit)
	defer cancel()
	began := time.Now()
	facts, err := read(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err = err; err == nil {
		l.facts, l.at = facts, began
	}
	l.reading = nil
	close(done)
}

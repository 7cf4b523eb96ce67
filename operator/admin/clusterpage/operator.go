// SPDX-License-Identifier: Apache-2.0

package clusterpage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	"github.com/kubernetes-sigs/blixt/operator/control/ask"
	"github.com/kubernetes-sigs/blixt/operator/control/controller"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/observe/transport"
	"github.com/kubernetes-sigs/blixt/operator/page"
)

// Every is how often the nodes of a cluster are asked while somebody looks.
const Every = 5 * time.Second

// Operator is a page that the operator serves, over TLS. Who may look is up to the API
// server.
type Operator struct {
	// Address to listen at, and Hosts by which browsers reach it.
	Address string
	Hosts   []string
	// Cert and Key are files; "": the certificate that agents are shown.
	Cert, Key string
	// Namespace and Version of Blixt.
	Namespace, Version string
	Log                *slog.Logger
}

// Run serves the page until the context ends. It returns an error if the address or the
// certificate cannot be used.
func (o *Operator) Run(ctx context.Context, in controller.Inside) error {
	e := page.Endpoint{Address: o.Address, TLS: in.TLS}
	if o.Cert != "" {
		var err error
		if e.TLS, err = page.CertificateFiles(o.Cert, o.Key, o.Log); err != nil {
			return err
		}
	}
	source := New(Options{
		Version: o.Version, Objects: in.Objects, Own: true, Asker: transport.Direct{Fleet: in.Fleet},
		Facts: func(ctx context.Context) (*doctor.Facts, error) {
			info, err := in.Kube.Discovery().ServerVersion()
			if err != nil {
				return nil, fmt.Errorf("ask the API server for its version: %w", err)
			}
			return doctor.Read(ctx, in.Direct, info.GitVersion, o.Namespace)
		},
	})
	s, err := page.Listen(e, page.Options{
		Source: source, Hosts: o.Hosts, Access: readers{ask.NewReaders(in.Kube, o.Log)}, Every: Every, Elsewhere: in.Elsewhere, Log: o.Log,
	})
	if err != nil {
		return err
	}
	o.Log.Info("the page is served", "url", s.URL())
	return s.Run(ctx)
}

// readers implement page.Access.
type readers struct{ *ask.Readers }

// Check implements page.Access.
func (r readers) Check(ctx context.Context, token string) (page.Rights, error) {
	who, err := r.Readers.Check(ctx, token)
	if errors.Is(err, ask.ErrUnknown) {
		return page.Rights{}, fmt.Errorf("%w: %w", page.ErrUnknownToken, err)
	}
	return page.Rights{
		User: who.User, Status: who.May[observe.KindStatus], Flows: who.May[observe.KindFlows], Trace: who.May[observe.KindTrace],
	}, err
}

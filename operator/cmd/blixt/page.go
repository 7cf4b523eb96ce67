// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"

	"github.com/spf13/cobra"

	"github.com/kubernetes-sigs/blixt/operator/admin/clusterpage"
	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/observe/dial"
	"github.com/kubernetes-sigs/blixt/operator/page"
)

func pageCommand() *cobra.Command {
	var cluster clusterFlags
	var address string
	c := &cobra.Command{
		Use:   "page",
		Short: "Show a cluster in a browser: what is served, what is wrong, and live rates",
		Long: `Serves a page on this machine that shows a cluster, until it is interrupted. Open the
URL that it prints: its end is a token, so that nobody else on this machine can look.

What you see is what you may see: Gateways and routes take the right to list them, which
the chart's ClusterRole blixt-viewer has, and so ClusterRole view; what nodes tell takes
Role blixt-observer. What else blixt doctor examines may take more: a finding names it.
A host without a cluster serves its page itself: blixt run --http-address.`,
		Example: `  blixt page
  blixt page --context prod --http-address 127.0.0.1:9000`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, token, err := listenPage(&cluster, address)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s#token=%s\n", s.URL(), token)
			fmt.Fprintln(c.ErrOrStderr(), "Open this in a browser. Interrupt to end (Ctrl-C).")
			return s.Run(c.Context())
		},
	}
	cluster.add(c.Flags())
	c.Flags().StringVar(&address, "http-address", "127.0.0.1:"+page.DefaultPort, "address of this machine to serve the page at; port 0: any that is free")
	return c
}

// listenPage takes the address of a page of a cluster, for whoever has the token.
func listenPage(cluster *clusterFlags, address string) (s *page.Server, token string, err error) {
	config, err := cluster.config()
	if err != nil {
		return nil, "", err
	}
	kube, kubernetes, err := cluster.connect()
	if err != nil {
		return nil, "", err
	}
	token = rand.Text()
	access, err := page.Token(func() (string, error) { return token, nil })
	if err != nil {
		return nil, "", err
	}
	asker := &redialer{dial: func(ctx context.Context) (observe.Asker, error) {
		return dial.Dial(ctx, dial.Target{Config: config, Namespace: cluster.namespace})
	}}
	source := clusterpage.New(clusterpage.Options{
		Name: cluster.name(), Version: version(), FactsEvery: clusterEvery, Asker: asker,
		Facts: func(ctx context.Context) (*doctor.Facts, error) {
			return doctor.Read(ctx, kube, kubernetes, cluster.namespace)
		},
	})
	s, err = page.Listen(page.Endpoint{Address: address}, page.Options{Source: source, Access: access, Every: clusterpage.Every, Log: slog.Default()})
	return s, token, err
}

// redialer connects to the operator when it is first asked, and tries again if it could
// not: a page tells what is wrong with a cluster whose operator is away, too.
type redialer struct {
	dial func(context.Context) (observe.Asker, error)

	mu sync.Mutex
	to observe.Asker
}

// Ask implements observe.Asker.
func (r *redialer) Ask(ctx context.Context, q observe.Query, got func(node string, piece json.RawMessage) error) error {
	to, err := r.get(ctx)
	if err != nil {
		return err
	}
	return to.Ask(ctx, q, got)
}

func (r *redialer) get(ctx context.Context) (observe.Asker, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.to == nil {
		to, err := r.dial(ctx)
		if err != nil {
			return nil, err
		}
		r.to = to
	}
	return r.to, nil
}

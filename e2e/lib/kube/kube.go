// SPDX-License-Identifier: Apache-2.0

// Package kube is a Kubernetes without nodes: a real etcd and a real API server
// with the kinds of Gateway API, bpfman and Blixt. What is asked of it is
// checked, defaulted, authorized and stored as in any cluster, but no controller
// runs: pods do not start, and namespaces that are deleted stay.
package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Server is a running Kubernetes without nodes.
type Server struct {
	// Config is that of an administrator, who may do everything.
	Config *rest.Config
	// Client is the administrator's, for the kinds of Scheme.
	Client client.WithWatch

	dir       string
	etcd, api *daemon
}

// Options are how a server differs from one with the released kinds.
type Options struct {
	// WideLinkIDs lets bpfman's kinds hold its link ids, which are 32 bits
	// without a sign: those of its release refuse every second one.
	WideLinkIDs bool
	// Bare leaves out all kinds but Kubernetes' own.
	Bare bool
	// GatewayAPI is which kinds of Gateway API it has.
	GatewayAPI GatewayAPI
}

// Start returns a server that knows all kinds, after about four seconds. If it is not
// stopped before, it dies with this process.
func Start(ctx context.Context, o Options) (*Server, error) {
	dir, err := os.MkdirTemp("", "kube")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir}
	if err := s.start(ctx, o); err != nil {
		s.Stop()
		return nil, fmt.Errorf("start Kubernetes: %w", err)
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var crds []*unstructured.Unstructured
	if !o.Bare {
		var err error
		if crds, err = definitions(o); err != nil {
			return err
		}
	}
	if err := s.startEtcd(); err != nil {
		return err
	}
	if err := s.startAPI(); err != nil {
		return err
	}
	if err := s.ready(ctx, "/readyz"); err != nil {
		return err
	}
	var err error
	if s.Client, err = client.NewWithWatch(s.Config, client.Options{Scheme: Scheme}); err != nil {
		return err
	}
	return s.define(ctx, crds)
}

// ready waits until the server responds to a path.
func (s *Server) ready(ctx context.Context, path string) error {
	for {
		err := s.get(path)
		if err == nil {
			return nil
		}
		select {
		case <-s.etcd.done:
			return s.etcd.failure()
		case <-s.api.done:
			return s.api.failure()
		case <-ctx.Done():
			return fmt.Errorf("get %s: %w, %w", path, err, s.api.failure())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) get(path string) error {
	web, err := rest.HTTPClientFor(s.Config) // there is no certificate at first
	if err != nil {
		return err
	}
	response, err := web.Get(s.Config.Host + path)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// Stop kills the server and deletes its data.
func (s *Server) Stop() {
	for _, d := range []*daemon{s.api, s.etcd} { // killed: asked to end, the API server takes 10 s
		if d != nil {
			d.kill()
		}
	}
	_ = os.RemoveAll(s.dir)
}

// Run runs the tests of a package with a server that they share, and returns the exit
// code for TestMain.
func Run(m *testing.M, o Options, s **Server) int {
	server, err := Start(context.Background(), o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer server.Stop()
	*s = server
	return m.Run()
}

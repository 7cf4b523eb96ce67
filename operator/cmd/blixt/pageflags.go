// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/page"
)

// pageFlags say where a page is served, and to whom.
type pageFlags struct {
	address, tokenFile, cert, key string
	hosts                         []string
}

func (p *pageFlags) add(f *pflag.FlagSet) {
	f.StringVar(&p.address, "http-address", "", "address and port of a page for browsers that shows what is served and what is wrong, such as 127.0.0.1:"+page.DefaultPort+" (the default port); others than loopback addresses need TLS and a token; empty: there is no page")
	f.StringVar(&p.tokenFile, "http-token-file", "", "file with the token that whoever looks at the page must have, of mode 0600, which may change (default: everybody on this machine may look). Make it by: (umask 077; openssl rand -hex 16 > FILE)")
	f.StringVar(&p.cert, "http-tls-cert", "", "file with the certificate of the page and those that lead to its CA, in PEM; what replaces it is used from then on")
	f.StringVar(&p.key, "http-tls-key", "", "file with the key of --http-tls-cert, in PEM")
	f.StringArrayVar(&p.hosts, "http-host", nil, "name by which browsers reach the page, besides localhost and addresses; may be repeated")
}

// listen takes the address of a page. It returns nil if there is to be none.
func (p *pageFlags) listen(source page.Source, every time.Duration) (*page.Server, error) {
	if p.address == "" {
		if cmp.Or(p.tokenFile, p.cert, p.key) != "" || len(p.hosts) > 0 {
			return nil, errors.New("there is no page without --http-address: --http-token-file, --http-tls-cert, --http-tls-key and --http-host are of no use")
		}
		return nil, nil
	}
	if (p.cert == "") != (p.key == "") {
		return nil, errors.New("a page with TLS needs both --http-tls-cert and --http-tls-key")
	}
	e, o := page.Endpoint{Address: p.address}, page.Options{Source: source, Hosts: p.hosts, Every: every, Log: slog.Default()}
	var err error
	if p.cert != "" {
		if e.TLS, err = page.CertificateFiles(p.cert, p.key, slog.Default()); err != nil {
			return nil, err
		}
	}
	if p.tokenFile != "" {
		o.Access, err = page.Token(func() (string, error) { return standalone.ReadSecret(p.tokenFile) })
		if err != nil {
			return nil, fmt.Errorf("--http-token-file %s: %w", p.tokenFile, err)
		}
	}
	return page.Listen(e, o)
}

// serve serves a page, if there is to be one, until stop is called.
func (p *pageFlags) serve(source page.Source, every time.Duration) (stop func(), err error) {
	s, err := p.listen(source, every)
	if s == nil {
		return func() {}, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := s.Run(ctx); err != nil {
			slog.Error("the page is not served any more", "error", err)
		}
	})
	slog.Info("the page is served", "url", s.URL())
	return func() { cancel(); done.Wait() }, nil
}

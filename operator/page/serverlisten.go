// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

// DefaultPort is that of a page whose address has none.
const DefaultPort = "8460"

// Endpoint is where a page is served.
type Endpoint struct {
	// Address is an address, with or without a port, or a name, such as localhost.
	Address string
	// TLS has the certificate; nil: the page is plain HTTP.
	TLS *tls.Config
}

// Server serves a page.
type Server struct {
	handler *Handler
	http    *http.Server
	l       net.Listener
	tls     bool
}

// Listen takes the address of a page, and serves nothing yet. It returns an error if
// somebody else has the address, or if others than those of this machine could reach the
// page without TLS and Options.Access.
func Listen(e Endpoint, o Options) (*Server, error) {
	h, err := NewHandler(o)
	if err != nil {
		return nil, err
	}
	address, err := withPort(e.Address)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("serve the page: something else listens at %s (ss -ltnp tells what): choose another port with --http-address", address)
	case err != nil:
		return nil, fmt.Errorf("serve the page at %s: %w", address, err)
	}
	if (e.TLS == nil || o.Access == nil) && !isLoopback(l.Addr()) {
		_ = l.Close() // nobody was answered
		return nil, fmt.Errorf("serve the page at %s: others than those of this machine could read it there: want TLS and a token (--http-tls-cert, --http-tls-key and --http-token-file), or an address such as 127.0.0.1", address)
	}
	s := &Server{handler: h, http: scrape.Server(h), tls: e.TLS != nil}
	crowd := &crowd{Listener: l}
	s.l, s.http.ConnState = crowd, crowd.state
	s.http.TLSConfig = e.TLS
	s.http.ErrorLog = slog.NewLogLogger(h.Log.Handler(), slog.LevelDebug) // of clients that speak no TLS, and the like
	return s, nil
}

// withPort returns an address to listen at.
func withPort(address string) (string, error) {
	if a, err := netip.ParseAddr(strings.Trim(address, "[]")); err == nil {
		return net.JoinHostPort(a.String(), DefaultPort), nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil && !strings.Contains(address, ":") {
		host, port, err = address, DefaultPort, nil
	}
	if err != nil || port == "" || address == "" {
		return "", fmt.Errorf("--http-address %q: want an address and a port, such as 127.0.0.1:%s", address, DefaultPort)
	}
	return net.JoinHostPort(host, port), nil
}

func isLoopback(a net.Addr) bool {
	t, is := a.(*net.TCPAddr)
	return is && t.IP.IsLoopback()
}

// URL returns where people find the page.
func (s *Server) URL() string {
	scheme, a := "http", s.l.Addr().String()
	if s.tls {
		scheme = "https"
	}
	if host, port, err := net.SplitHostPort(a); err == nil {
		if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
			a = net.JoinHostPort(append(s.handler.Hosts, "localhost")[0], port)
		}
	}
	return scheme + "://" + a + "/"
}

// Run serves until the context ends. Then it ends all requests at once.
func (s *Server) Run(ctx context.Context) error {
	var ending sync.WaitGroup
	ended := context.AfterFunc(ctx, func() { ending.Go(s.Close) })
	var err error
	if s.tls {
		err = s.http.ServeTLS(s.l, "", "")
	} else {
		err = s.http.Serve(s.l)
	}
	if ended() {
		s.Close() // of what the listener's end has left
	}
	ending.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the page: %w", err)
}

// endTimeout is how long answers may take that are being written when the server ends.
const endTimeout = 200 * time.Millisecond

// Close ends all requests, streams first, and gives the address back.
func (s *Server) Close() {
	s.handler.Close()
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close() // of connections that nobody waits for
	}
	_ = s.l.Close() // if it was not served yet
}

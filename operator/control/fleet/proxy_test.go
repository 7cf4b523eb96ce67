// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy is a network that fails on demand.
type proxy struct {
	t        testing.TB
	l        net.Listener
	accepted atomic.Int64

	mu    sync.Mutex
	conns []net.Conn
	ice   chan struct{} // closed while nothing is frozen
}

func newProxy(t testing.TB, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, l: l, ice: make(chan struct{})}
	close(p.ice)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			p.accepted.Add(1)
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			all.Go(func() { p.carry(in, out) })
			all.Go(func() { p.carry(out, in) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.thaw()
		p.cut()
		all.Wait()
	})
	return p
}

// operator is the proxy's address, by the name that certificates are for.
func (p *proxy) operator() string {
	_, port, err := net.SplitHostPort(p.l.Addr().String())
	if err != nil {
		p.t.Fatal(err)
	}
	return net.JoinHostPort(host, port)
}

func (p *proxy) carry(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		ice := p.ice
		p.mu.Unlock()
		<-ice
		if _, e := to.Write(buffer[:n]); err != nil || e != nil {
			return
		}
	}
}

// cut breaks all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// freeze stops all traffic until thaw, without breaking connections.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ice = make(chan struct{})
}

func (p *proxy) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.ice:
	default:
		close(p.ice)
	}
}

func textLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// SPDX-License-Identifier: Apache-2.0

package page

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
)

// Limits of connections. A process that serves a load balancer needs its file descriptors
// for other things.
const (
	mostConns   = 256
	clientConns = 64
	// writeBuffer is how many bytes the kernel keeps for a reader who is slow. What waits
	// there is old.
	writeBuffer = 256 << 10
)

// crowd is a listener that has a limited number of connections, of each client and of all.
// For one too many the oldest one that has no request is closed: somebody who opens
// connections and asks nothing keeps nobody out.
type crowd struct {
	net.Listener

	mu  sync.Mutex
	all []*guest // the oldest first
}

// guest is a connection.
type guest struct {
	net.Conn
	crowd  *crowd
	client netip.Addr
	busy   bool // it has a request
}

// Accept implements net.Listener.
func (c *crowd) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if g := c.enter(conn); g != nil {
			if t, is := conn.(*net.TCPConn); is {
				_ = t.SetWriteBuffer(writeBuffer) // more is as good
			}
			return g, nil
		}
		_ = conn.Close() // nobody has written to it
	}
}

// enter returns a guest; nil: there is no room.
func (c *crowd) enter(conn net.Conn) *guest {
	g := &guest{Conn: conn, crowd: c}
	if from, is := conn.RemoteAddr().(*net.TCPAddr); is {
		g.client = from.AddrPort().Addr().Unmap()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	of := 0
	for _, other := range c.all {
		if other.client == g.client {
			of++
		}
	}
	if of >= clientConns && !c.makeRoom(func(other *guest) bool { return other.client == g.client }) ||
		len(c.all) >= mostConns && !c.makeRoom(func(*guest) bool { return true }) {
		return nil
	}
	c.all = append(c.all, g)
	return g
}

// makeRoom closes the oldest connection that has no request, of some. The caller holds
// c.mu.
func (c *crowd) makeRoom(of func(*guest) bool) bool {
	i := slices.IndexFunc(c.all, func(g *guest) bool { return !g.busy && of(g) })
	if i < 0 {
		return false
	}
	_ = c.all[i].Conn.Close() // the server learns it from its next read
	c.all = slices.Delete(c.all, i, i+1)
	return true
}

// Close implements net.Conn.
func (g *guest) Close() error {
	g.crowd.mu.Lock()
	g.crowd.all = slices.DeleteFunc(g.crowd.all, func(other *guest) bool { return other == g })
	g.crowd.mu.Unlock()
	return g.Conn.Close()
}

// state is http.Server.ConnState.
func (c *crowd) state(conn net.Conn, state http.ConnState) {
	if t, is := conn.(interface{ NetConn() net.Conn }); is { // TLS
		conn = t.NetConn()
	}
	if g, is := conn.(*guest); is {
		c.mu.Lock()
		defer c.mu.Unlock()
		g.busy = state == http.StateActive
	}
}

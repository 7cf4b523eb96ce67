// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"container/list"
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Limits of what a peer can take before it has joined as an agent. All agents may
// come at once, and from one address: what is full is so for moments, and an agent
// tries again.
const (
	// handshake is how long a connection may take until its agent has joined.
	handshake = 10 * time.Second
	// A connection yields to a new one after yieldAfter, if there are as many of
	// its peer, or of all, as there may be. Honest agents are faster.
	yieldAfter     = 5 * time.Second
	maxPending     = 512
	maxPeerPending = 128
	// maxReviews is how many tokens are checked at a time, maxPeerReviews of one
	// peer.
	maxReviews     = 32
	maxPeerReviews = 8
	// closeAfter is when a connection is closed after its stream has ended: the
	// reason has reached the agent.
	closeAfter = time.Second
)

// peerOf returns what counts as one peer: an IPv4 address, or the 64 bits of an
// IPv6 address that one host may choose freely under.
func peerOf(a net.Addr) netip.Prefix {
	addr, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Prefix{} // all that are no TCP are one peer
	}
	ip := addr.Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	prefix, _ := ip.Prefix(bits) // there are as many
	return prefix
}

// listener limits connections whose agent has not joined yet.
type listener struct {
	net.Listener
	refused func(netip.Prefix) // is called for each that is refused

	mu      sync.Mutex
	pending *list.List // of *conn, the oldest first
	peers   map[netip.Prefix]int
}

// conn is a connection of a listener, whose mutex guards its fields.
type conn struct {
	net.Conn
	l       *listener
	peer    netip.Prefix
	since   time.Time
	timer   *time.Timer
	element *list.Element // nil: its agent has joined, or it is closed
}

func newListener(l net.Listener, refused func(netip.Prefix)) *listener {
	return &listener{Listener: l, refused: refused, pending: list.New(), peers: map[netip.Prefix]int{}}
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: raw, l: l, peer: peerOf(raw.RemoteAddr()), since: time.Now()}
		admitted, instead := l.admit(c)
		if instead != nil {
			_ = instead.Close()
		}
		if admitted {
			return c, nil
		}
		_ = raw.Close()
		l.refused(c.peer)
	}
}

// admit counts a connection as pending, unless there are too many. It returns the
// one that has to yield, or nil.
func (l *listener) admit(c *conn) (admitted bool, instead *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ofPeer, full := l.peers[c.peer] >= maxPeerPending, l.pending.Len() >= maxPending
	if ofPeer || full {
		for e := l.pending.Front(); e != nil && instead == nil; e = e.Next() {
			if o := e.Value.(*conn); !ofPeer || o.peer == c.peer {
				instead = o
			}
		}
		if c.since.Sub(instead.since) < yieldAfter {
			return false, nil
		}
		instead.settle()
	}
	c.element = l.pending.PushBack(c)
	l.peers[c.peer]++
	c.timer = time.AfterFunc(handshake, func() { _ = c.Close() })
	return true, instead
}

// settle makes a connection count no more. The caller holds the listener's mutex.
func (c *conn) settle() {
	if c.element == nil {
		return
	}
	c.timer.Stop()
	c.l.pending.Remove(c.element)
	c.element = nil
	if c.l.peers[c.peer]--; c.l.peers[c.peer] == 0 {
		delete(c.l.peers, c.peer)
	}
}

func (c *conn) joined() {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	c.settle()
}

func (c *conn) Close() error {
	c.joined()
	return c.Conn.Close()
}

// tracked are TLS credentials by which a stream finds its connection.
type tracked struct {
	credentials.TransportCredentials
}

type trackedInfo struct {
	credentials.TLSInfo
	conn *conn
}

func (t tracked) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, info, err := t.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	c, _ := raw.(*conn)
	return secure, trackedInfo{info.(credentials.TLSInfo), c}, nil
}

// connOf returns the connection of a stream.
func connOf(ctx context.Context) *conn {
	p, _ := peer.FromContext(ctx)
	return p.AuthInfo.(trackedInfo).conn
}

// reviews are the tokens that are being checked, and those that wait for it. Peers
// take turns, so that those of one do not wait for all of another.
type reviews struct {
	mu      sync.Mutex
	free    int
	running map[netip.Prefix]int
	waiting map[netip.Prefix][]chan struct{}
	turns   []netip.Prefix // the peers that wait, the next first
}

func newReviews() *reviews {
	return &reviews{free: maxReviews, running: map[netip.Prefix]int{}, waiting: map[netip.Prefix][]chan struct{}{}}
}

// acquire waits until a token of the peer may be checked. It returns an error if
// the context ends before; otherwise release must be called.
func (r *reviews) acquire(ctx context.Context, peer netip.Prefix) (release func(), err error) {
	turn := make(chan struct{})
	r.mu.Lock()
	if len(r.waiting[peer]) == 0 {
		r.turns = append(r.turns, peer)
	}
	r.waiting[peer] = append(r.waiting[peer], turn)
	r.dispatch()
	r.mu.Unlock()
	release = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.free++
		if r.running[peer]--; r.running[peer] == 0 {
			delete(r.running, peer)
		}
		r.dispatch()
	}
	select {
	case <-turn:
		return release, nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	i := slices.Index(r.waiting[peer], turn)
	if i >= 0 {
		r.leave(peer, i)
	}
	r.mu.Unlock()
	if i < 0 { // its turn has come meanwhile
		release()
	}
	return nil, ctx.Err()
}

// dispatch begins what may begin. The caller holds the mutex, here and below.
func (r *reviews) dispatch() {
	for r.free > 0 {
		i := slices.IndexFunc(r.turns, func(p netip.Prefix) bool { return r.running[p] < maxPeerReviews })
		if i < 0 {
			return
		}
		peer := r.turns[i]
		r.turns = append(slices.Delete(r.turns, i, i+1), peer)
		r.free--
		r.running[peer]++
		close(r.waiting[peer][0])
		r.leave(peer, 0)
	}
}

// leave removes one of a peer that waits.
func (r *reviews) leave(peer netip.Prefix, i int) {
	r.waiting[peer] = slices.Delete(r.waiting[peer], i, i+1)
	if len(r.waiting[peer]) == 0 {
		delete(r.waiting, peer)
		r.turns = slices.DeleteFunc(r.turns, func(p netip.Prefix) bool { return p == peer })
	}
}

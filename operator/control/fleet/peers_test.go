// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubernetes-sigs/blixt/operator/node/agent"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

func TestPeerOf(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1/32", "[::ffff:192.0.2.1]:80": "192.0.2.1/32",
		"[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64", "[fe80::1%eth0]:80": "fe80::/64",
	} {
		if got := peerOf(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))); got.String() != want {
			t.Errorf("%s is of peer %v, want %s", address, got, want)
		}
	}
	if got := peerOf(&net.UnixAddr{Name: "x"}); got != (netip.Prefix{}) {
		t.Errorf("a socket of this host is of peer %v", got)
	}
}

func testPeer(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)
}

// acquireSoon acquires what is free, or will be.
func (r *reviews) acquireSoon(t *testing.T, i int) (release func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	release, err := r.acquire(ctx, testPeer(i))
	if err != nil {
		t.Fatalf("peer %d does not get its turn", i)
	}
	return release
}

// wait has a peer wait for a turn.
func (r *reviews) wait(t *testing.T, i int, got chan<- int) {
	t.Helper()
	r.mu.Lock()
	before := len(r.waiting[testPeer(i)])
	r.mu.Unlock()
	go func() {
		if _, err := r.acquire(t.Context(), testPeer(i)); err == nil {
			got <- i
		}
	}()
	eventually(t, func() string {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.waiting[testPeer(i)]) == before {
			return "it does not wait"
		}
		return ""
	})
}

// One peer cannot take the reviews of others, and many peers take turns: who wants
// a hundred waits longer than who wants one.
func TestReviewsTakeTurns(t *testing.T) {
	r, got := newReviews(), make(chan int, 1000)
	for range maxPeerReviews {
		r.acquireSoon(t, 0)
	}
	for range 20 {
		r.wait(t, 0, got)
	}
	var strangers []func()
	for i := 1; r.free > 0; i++ { // many addresses hold all there are
		strangers = append(strangers, r.acquireSoon(t, i))
	}
	for i := range 3 {
		for range 10 {
			r.wait(t, 1+i, got)
		}
	}
	r.wait(t, 100, got) // an honest agent
	for i, release := range strangers[3:8] {
		release()
		select {
		case peer := <-got:
			if peer == 100 {
				if i > 3 {
					t.Errorf("it is served as number %d", i)
				}
				return
			}
			if peer == 0 {
				t.Error("a peer has more than it may")
			}
		case <-time.After(10 * time.Second):
			t.Fatal("nobody gets the turn")
		}
	}
	t.Error("the honest agent does not get a turn")
}

// Who gives up leaves no trace.
func TestReviewsOfThoseThatLeave(t *testing.T) {
	r := newReviews()
	var held []func()
	for i := range maxReviews {
		held = append(held, r.acquireSoon(t, i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range 100 {
		if _, err := r.acquire(ctx, testPeer(i)); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	for _, release := range held {
		release()
	}
	if r.free != maxReviews || len(r.running)+len(r.waiting)+len(r.turns) > 0 {
		t.Errorf("%d are free, %v run, %v wait, %v take turns", r.free, r.running, r.waiting, r.turns)
	}
}

// idle is a connection of an address that says nothing.
type idle struct {
	net.Conn
	from   string
	closed bool
}

func (c *idle) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.from)) }
func (c *idle) Close() error         { c.closed = true; return nil }

func (l *listener) open(from string) (*conn, bool) {
	raw := &idle{from: from}
	c := &conn{Conn: raw, l: l, peer: peerOf(raw.RemoteAddr()), since: time.Now()}
	admitted, instead := l.admit(c)
	if instead != nil {
		_ = instead.Close()
	}
	return c, admitted
}

// Connections without an agent are limited, of a peer and of all. The oldest one
// yields, but not one that is young: it may be of an agent.
func TestPendingConnectionsAreLimited(t *testing.T) {
	l := newListener(nil, nil)
	var all []*conn
	for i := range maxPeerPending {
		c, ok := l.open(fmt.Sprintf("[2001:db8::%x]:1", i+1)) // of one /64
		if !ok {
			t.Fatalf("connection %d is refused", i)
		}
		all = append(all, c)
	}
	if _, ok := l.open("[2001:db8::ffff]:1"); ok {
		t.Error("a peer has more than it may")
	}
	for i := range maxPending - maxPeerPending {
		if _, ok := l.open(fmt.Sprintf("10.0.%d.%d:1", i>>8, i&255)); !ok {
			t.Fatalf("connection %d of many is refused", i)
		}
	}
	if _, ok := l.open("192.0.2.1:1"); ok {
		t.Error("there are more than may be")
	}
	all[3].since = all[3].since.Add(-yieldAfter) // of those that are old enough, the oldest
	all[0].joined()                              // counts no more
	if _, ok := l.open("192.0.2.1:1"); !ok {
		t.Error("the place of an agent that has joined is not free")
	}
	all[1].since = all[1].since.Add(-yieldAfter)
	if _, ok := l.open("192.0.2.2:1"); !ok || !all[1].Conn.(*idle).closed || all[0].Conn.(*idle).closed {
		t.Error("the oldest one does not yield")
	}
	for e := l.pending.Front(); e != nil; e = l.pending.Front() {
		_ = e.Value.(*conn).Close()
	}
	if len(l.peers) > 0 {
		t.Errorf("%v are left", l.peers)
	}
}

// Whoever says too little, too slowly, or never comes to the point, is sent away
// in time, at whichever stage.
func TestSlowPeers(t *testing.T) {
	t.Parallel()
	o := newOperator(t, "", nil)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(o.certificates.Load().Bundle())
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	settings := string([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0})
	headers := string([]byte{0, 0, 1, 1, 0, 0, 0, 0, 1, 0x83}) // POST, and never the rest
	ping := string([]byte{0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8})
	for name, say := range map[string][]string{
		"nothing":         nil,
		"a byte":          {"raw", "\x16"},
		"TLS":             {"tls"},
		"half a preface":  {"tls", preface[:10]},
		"no stream":       {"tls", preface + settings},
		"no end":          {"tls", preface + settings + headers},
		"pings for ever":  {"tls", preface + settings, ping, ping, ping, ping},
		"headers and hi":  {"tls", preface + settings + headers, ping, ping},
		"HTTP/1":          {"tls", "GET / HTTP/1.1\r\nhost: localhost\r\n"},
		"garbage":         {"raw", "hello, world\r\n"},
		"another preface": {"tls", strings.Repeat("x", 100)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", o.address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			var stream io.ReadWriter = conn
			for i, text := range say {
				switch {
				case i == 0 && text == "raw":
				case i == 0:
					secure := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: host, NextProtos: []string{"h2"}})
					if err := secure.Handshake(); err != nil {
						t.Fatal(err)
					}
					stream = secure
				default:
					_, _ = io.WriteString(stream, text)
					time.Sleep(10 * time.Millisecond)
				}
			}
			_ = conn.SetReadDeadline(time.Now().Add(3 * handshake))
			if _, err := io.Copy(io.Discard, stream); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
				t.Error("it stays")
			}
		})
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// Strangers hold as many connections as they can, from the address that agents
// have as well and from others. Agents get in.
func TestAgentsGetInBesideStrangers(t *testing.T) {
	o := newOperator(t, "", nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range 8 {
		go func() { // each keeps its place occupied
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+i%4))}}
			var held []net.Conn
			for ctx.Err() == nil {
				if c, err := dialer.DialContext(ctx, "tcp", o.address); err == nil {
					held = append(held, c)
				}
				if len(held) > 100 {
					_ = held[0].Close()
					held = held[1:]
				}
				time.Sleep(10 * time.Millisecond)
			}
			for _, c := range held {
				_ = c.Close()
			}
		}()
	}
	eventually(t, func() string {
		if o.refusedFor(ReasonCrowded) == 0 {
			return "strangers are not limited"
		}
		return ""
	})
	for _, name := range []string{"n1", "n2", "n3"} {
		newNode(t, o, name, nil)
	}
	v := o.Publish(web(3))
	for _, name := range []string{"n1", "n2", "n3"} {
		o.serves(t, name, v, web(3))
	}
}

// A token that was refused is refused for a moment without another question. The
// memory is bounded, and a clock that jumps does not prolong it.
func TestRefusedTokensAreRemembered(t *testing.T) {
	now := time.Now()
	r := newRefusedTokens(func() time.Time { return now })
	why := &RefusedError{Reason: ReasonToken}
	for i := range 5 * maxRefusedTokens {
		r.add(fmt.Sprint(i), why)
		if r.get(fmt.Sprint(i)) != why {
			t.Fatal("it is forgotten at once")
		}
	}
	if len(r.all) > maxRefusedTokens {
		t.Errorf("%d are remembered", len(r.all))
	}
	last := fmt.Sprint(5*maxRefusedTokens - 1)
	for _, later := range []time.Duration{refusedFor, -time.Hour} {
		now = now.Add(later)
		if r.get(last) != nil {
			t.Errorf("it is remembered %v later", later)
		}
		now = now.Add(-later)
	}
	o, asked := newOperator(t, "", nil), 0
	authenticate := o.o.Authenticate
	o.o.Authenticate = func(ctx context.Context, token string) (Identity, error) {
		asked++ // one stream after the other
		return authenticate(ctx, token)
	}
	for range 5 {
		if _, err := newRaw(t, o, "forged").Recv(); status.Code(err) != codes.Unauthenticated {
			t.Fatal(err)
		}
	}
	if asked != 1 || o.refusedFor(ReasonToken) != 5 {
		t.Errorf("asked %d times, refused %d", asked, o.refusedFor(ReasonToken))
	}
	for range 2 {
		if _, err := newRaw(t, o, "down").Recv(); status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
	}
	if asked != 3 {
		t.Error("what could not be checked is taken for refused")
	}
}

// A huge first message leaves nothing behind.
func TestGiganticFirstMessage(t *testing.T) {
	o := newOperator(t, "", nil)
	r := newRaw(t, o, "n1/agent")
	_ = r.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Hello{Hello: &wire.Hello{Node: "n1", Application: "blue", Kernel: strings.Repeat("x", maxAgentMessage), Status: &wire.Status{}}}})
	if _, err := r.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message of %d bytes: %v", maxAgentMessage, err)
	}
	if reports := o.Reports(); len(reports) > 0 {
		t.Errorf("%+v", reports)
	}
}

// When a stream ends, its connection goes too: nobody collects connections by
// joining again and again.
func TestConnectionGoesWithItsStream(t *testing.T) {
	o := newOperator(t, "", nil)
	text := &logged{}
	newNode(t, o, "n1", func(c *agent.Options) { c.Log = textLog(text) })
	o.serves(t, "n1", o.Publish(web(1)), web(1))
	dir := t.TempDir()
	write(t, dir+"/ca.crt", o.certificates.Load().Bundle())
	write(t, dir+"/token", []byte("n2/agent"))
	conn, err := agent.Dial(agent.Options{Operator: host + ":0", TokenFile: dir + "/token", CAFile: dir + "/ca.crt"}, o.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := wire.NewFleetClient(conn).Serve(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r := &raw{t: t, Fleet_ServeClient: stream}
	r.hello("n2", "blue", nil, nil)
	if _, err := r.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	state := conn.GetState()
	for state.String() == "READY" {
		wait, stop := context.WithTimeout(t.Context(), 20*closeAfter)
		if !conn.WaitForStateChange(wait, state) {
			t.Fatal("the connection stays")
		}
		stop()
		state = conn.GetState()
	}
}

// SPDX-License-Identifier: Apache-2.0

package prober

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

func checkAt(t *testing.T, addr string, c lb.ActiveHealth) error {
	t.Helper()
	c.Timeout = 500 * time.Millisecond
	return check(context.Background(), &Target{lb.EjectedKey{Backend: netip.MustParseAddrPort(addr)}, c})
}

func wantError(t *testing.T, what string, err error, text string) {
	t.Helper()
	if err == nil != (text == "") || err != nil && !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v, want %q", what, err, text)
	}
}

func TestTCP(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		wantError(t, "listening", checkAt(t, addr, lb.ActiveHealth{Type: "TCP"}), "")
		other := netip.MustParseAddrPort(addr)
		wantError(t, "another port", checkAt(t, netip.AddrPortFrom(other.Addr(), 1).String(), lb.ActiveHealth{Type: "TCP", Port: other.Port()}), "")
		l.Close()
		wantError(t, "closed", checkAt(t, addr, lb.ActiveHealth{Type: "TCP"}), "TCP check of "+addr+": connection refused")
	}
}

func TestUDP(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	go func() {
		b := make([]byte, 2000)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if seen++; string(b[:n]) != "lost" || seen > 1 {
				_, _ = c.WriteTo([]byte("pong and more"), from)
			}
		}
	}()
	addr := c.LocalAddr().String()
	wantError(t, "the first datagram is lost", checkAt(t, addr, lb.ActiveHealth{Type: "UDP", Payload: []byte("lost")}), "")
	wantError(t, "any answer", checkAt(t, addr, lb.ActiveHealth{Type: "UDP", Payload: []byte("ping")}), "")
	wantError(t, "expected", checkAt(t, addr, lb.ActiveHealth{Type: "UDP", Payload: []byte("ping"), Expect: []byte("pong")}), "")
	wantError(t, "not expected", checkAt(t, addr, lb.ActiveHealth{Type: "UDP", Payload: []byte("ping"), Expect: []byte("x")}), "does not begin as expected")
	c.Close()
	wantError(t, "closed", checkAt(t, addr, lb.ActiveHealth{Type: "UDP", Payload: []byte("ping")}), "connection refused")
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	wantError(t, "silent", checkAt(t, silent.LocalAddr().String(), lb.ActiveHealth{Type: "UDP", Payload: []byte("ping")}), "no answer within 500ms")
}

func TestHTTP(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
		case "/moved":
			http.Redirect(w, r, "/no", http.StatusFound)
		case "/host":
			if r.Host != "shop.example" {
				w.WriteHeader(http.StatusMisdirectedRequest)
			}
		case "/slow":
			<-r.Context().Done()
		case "/endless":
			for {
				if _, err := w.Write(make([]byte, 1000)); err != nil {
					return
				}
			}
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	addr := s.Listener.Addr().String()
	is := func(path, text string, c lb.ActiveHealth) {
		t.Helper()
		c.Type, c.Path = "HTTP", path
		wantError(t, path, checkAt(t, addr, c), text)
	}
	is("/", "", lb.ActiveHealth{})
	is("/moved", "", lb.ActiveHealth{})
	is("/moved", "status 302", lb.ActiveHealth{Statuses: []lb.StatusRange{{First: 200, Last: 299}}})
	is("/no", "status 503", lb.ActiveHealth{})
	is("/no", "", lb.ActiveHealth{Statuses: []lb.StatusRange{{First: 200, Last: 299}, {First: 503, Last: 503}}})
	is("/host", "", lb.ActiveHealth{Host: "shop.example"})
	is("/host", "status 421", lb.ActiveHealth{Host: "other.example"})
	is("/slow", "no answer within 500ms", lb.ActiveHealth{})
	is("/endless", "", lb.ActiveHealth{})
}

func TestRiseAndFall(t *testing.T) {
	x := &target{Target: Target{Check: lb.ActiveHealth{Rise: 2, Fall: 3}}}
	bad := errors.New("refused")
	for i, step := range []struct {
		err         error
		known, down bool
	}{{bad, false, false}, {bad, false, false}, {bad, true, true}, {nil, true, true}, {bad, true, true}, {nil, true, true}, {nil, true, false}, {bad, true, false}, {bad, true, false}, {nil, true, false}, {bad, true, false}} {
		x.record(step.err)
		if x.known != step.known || x.down != step.down {
			t.Errorf("step %d: known %v, down %v", i, x.known, x.down)
		}
	}
}

func TestTargetsComeAndGo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := New()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	key := lb.EjectedKey{Backend: netip.MustParseAddrPort(l.Addr().String())}
	set := Target{key, lb.ActiveHealth{Type: "TCP", Interval: 100 * time.Millisecond, Timeout: 100 * time.Millisecond, Rise: 1, Fall: 2}}
	wait := func(down bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if r := p.Results(); len(r) == 1 && r[0].Down == down {
				return
			}
		}
		t.Fatalf("%+v, want down %v", p.Results(), down)
	}
	p.Set(ctx, []Target{set})
	wait(false)
	l.Close()
	wait(true)
	p.Set(ctx, nil)
	if r := p.Results(); len(r) != 0 {
		t.Errorf("%+v, want none", r)
	}
}

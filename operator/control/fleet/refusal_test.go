// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/agent"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// raw is an agent that sends any message.
type raw struct {
	t testing.TB
	wire.Fleet_ServeClient
	parts []byte
}

func newRaw(t testing.TB, o *operator, token string) *raw {
	t.Helper()
	dir := t.TempDir()
	options := agent.Options{Operator: host + ":0", TokenFile: filepath.Join(dir, "token"), CAFile: filepath.Join(dir, "ca.crt")}
	write(t, options.CAFile, o.certificates.Load().Bundle())
	write(t, options.TokenFile, []byte(token))
	conn, err := agent.Dial(options, o.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	stream, err := wire.NewFleetClient(conn).Serve(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return &raw{t: t, Fleet_ServeClient: stream}
}

func (r *raw) hello(node, application string, got, holds *wire.Version) {
	// The error is that of the next receive.
	_ = r.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Hello{Hello: &wire.Hello{
		Node: node, Application: application, Got: got, Status: &wire.Status{Got: got, Holds: holds},
	}}})
}

func (r *raw) ack(got, holds *wire.Version) {
	_ = r.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Status{Status: &wire.Status{Got: got, Holds: holds}}})
}

// update returns the next update.
func (r *raw) update() (*wire.Update, error) {
	for {
		m, err := r.Recv()
		if err != nil {
			return nil, err
		}
		if m.GetPart() == nil {
			continue
		}
		r.parts = append(r.parts, m.GetPart().Data...)
		if !m.GetPart().Last {
			continue
		}
		u := &wire.Update{}
		err = proto.Unmarshal(r.parts, u)
		r.parts = nil
		return u, err
	}
}

// A peer that is no agent, or an agent whose messages cannot be true, is told
// why it is refused, and counted.
func TestRefusals(t *testing.T) {
	v := func(epoch, sequence uint64) *wire.Version { return &wire.Version{Epoch: epoch, Sequence: sequence} }
	for name, c := range map[string]struct {
		token  string
		say    func(r *raw)
		code   codes.Code
		reason Reason
	}{
		"wrong token":        {"x", func(*raw) {}, codes.Unauthenticated, ReasonToken},
		"expired token":      {"expired", func(*raw) {}, codes.Unauthenticated, ReasonExpired},
		"no API server":      {"down", func(*raw) {}, codes.Unavailable, ReasonUnauthorizable},
		"empty token":        {"", func(*raw) {}, codes.Unauthenticated, ReasonNoToken},
		"token of elsewhere": {"n2/agent", func(r *raw) { r.hello("n1", "blue", nil, nil) }, codes.PermissionDenied, ReasonNode},
		"unknown node":       {"n9/agent", func(r *raw) { r.hello("n9", "blue", nil, nil) }, codes.Unavailable, ReasonUnknownNode},
		"unknown application": {"n1/agent", func(r *raw) { r.hello("n1", "red", nil, nil) }, codes.Unavailable,
			ReasonApplication},
		"no hello": {"n1/agent", func(r *raw) { r.ack(nil, nil) }, codes.InvalidArgument, ReasonProtocol},
		"two hellos": {"n1/agent", func(r *raw) { r.hello("n1", "blue", nil, nil); r.hello("n1", "blue", nil, nil) }, codes.InvalidArgument,
			ReasonProtocol},
		"hello with a later state":  {"n1/agent", func(r *raw) { r.hello("n1", "blue", v(1, 9), nil) }, codes.InvalidArgument, ReasonFalseAck},
		"hello with later maps":     {"n1/agent", func(r *raw) { r.hello("n1", "blue", nil, v(1, 9)) }, codes.InvalidArgument, ReasonFalseAck},
		"ack of what never was":     {"n1/agent", func(r *raw) { r.hello("n1", "blue", nil, nil); r.ack(v(1, 9), v(1, 9)) }, codes.InvalidArgument, ReasonFalseAck},
		"maps with what never came": {"n1/agent", func(r *raw) { r.hello("n1", "blue", nil, nil); r.ack(nil, v(1, 9)) }, codes.InvalidArgument, ReasonFalseAck},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOperator(t, "", nil)
			o.Publish(web(1))
			for range 3 {
				r := newRaw(t, o, c.token)
				c.say(r)
				var err error
				for err == nil {
					_, err = r.update()
				}
				if status.Code(err) != c.code {
					t.Errorf("error %v, want %v", err, c.code)
				}
			}
			for _, reason := range reasons {
				want := 0
				if reason == c.reason {
					want = 3
				}
				if n := o.refusedFor(reason); n != want {
					t.Errorf("%d refused for %s, want %d", n, reason, want)
				}
			}
			if n := o.log.count("agent refused"); n != 1 {
				t.Errorf("logged %d times, want once a minute", n)
			}
		})
	}
}

// An ack of what was published, but not yet sent to this agent, is false too.
func TestFalseAckOfWhatOthersHave(t *testing.T) {
	o := newOperator(t, "", nil)
	o.Publish(web(1))
	r := newRaw(t, o, "n1/agent")
	r.hello("n1", "blue", nil, nil)
	u, err := r.update()
	if err != nil {
		t.Fatal(err)
	}
	o.Publish(web(2)) // not sent: the first is not acked
	r.ack(u.Version, &wire.Version{Epoch: 1, Sequence: 2})
	if _, err := r.update(); status.Code(err) != codes.InvalidArgument || o.refusedFor(ReasonFalseAck) != 1 {
		t.Errorf("error %v", err)
	}
	if reports := o.Reports(); len(reports) != 1 || reports[0].Version.Sequence != 0 {
		t.Errorf("what it said is believed: %+v", reports)
	}
}

// While an agent is busy with one version, later versions become a single
// update.
func TestSlowAgentGetsOneVersionAtATime(t *testing.T) {
	o := newOperator(t, "", nil)
	o.Publish(web(1))
	r := newRaw(t, o, "n1/agent")
	r.hello("n1", "blue", nil, nil)
	first, err := r.update()
	if err != nil || first.Version.Sequence != 1 || first.Base != nil {
		t.Fatalf("first update %v, %v", first, err)
	}
	for i := range 20 {
		o.Publish(web(i + 2))
		r.ack(nil, nil) // it lives
	}
	r.ack(first.Version, first.Version)
	second, err := r.update()
	if err != nil || second.Version.Sequence != 21 || second.Base.GetSequence() != 1 {
		t.Errorf("second update %v, %v, want from 1 to 21", second, err)
	}
	// An agent that could not write a version may get one that fits.
	o.Publish(web(1))
	r.ack(second.Version, first.Version)
	if third, err := r.update(); err != nil || third.Version.Sequence != 22 || third.Base.GetSequence() != 21 {
		t.Errorf("third update %v, %v, want from 21 to 22", third, err)
	}
}

// A second stream of the same agent ends the first, and is counted: either the
// agent's process was killed and nobody has noticed yet, or two processes have
// its token.
func TestSecondStreamReplacesTheFirst(t *testing.T) {
	o := newOperator(t, "", nil)
	first := newRaw(t, o, "n1/first")
	first.hello("n1", "blue", nil, nil)
	if _, err := first.Recv(); err != nil {
		t.Fatal(err)
	}
	second := newRaw(t, o, "n1/second")
	second.hello("n1", "blue", nil, nil)
	if _, err := first.update(); status.Code(err) != codes.Aborted || o.refusedFor(ReasonReplaced) != 1 {
		t.Errorf("error %v", err)
	}
	o.Publish(web(1))
	if _, err := second.update(); err != nil {
		t.Error(err)
	}
	if r, _ := o.report("n1", "blue"); !r.Connected || r.Pod != "blixt/second" {
		t.Errorf("report %+v", r)
	}
}

// An agent that leaves while its token is being checked does not stay.
func TestAgentThatLeavesBeforeItJoins(t *testing.T) {
	o := newOperator(t, "", nil)
	c := &session{end: func(error) {}, wake: make(chan struct{}, 1)}
	o.leave(c)
	err := o.join(c, Identity{Node: "n1"}, &wire.Hello{Node: "n1", Application: "blue", Status: &wire.Status{}})
	if reports := o.Reports(); err == nil || len(reports) > 0 {
		t.Errorf("error %v, reports %+v", err, reports)
	}
}

// The texts of agents are clipped.
func TestWhatAnAgentSaysIsBounded(t *testing.T) {
	o := newOperator(t, "", nil)
	r := newRaw(t, o, "n1/agent")
	long := string(make([]byte, 10_000))
	tables := map[string]*wire.Use{}
	for i := range 100 {
		tables[fmt.Sprint(i)] = &wire.Use{}
	}
	keys := []*wire.Key{{Addr: []byte{1}, Protocol: 6, Port: 1}, {Addr: []byte{1, 2, 3, 4}, Protocol: 1, Port: 1}, {}}
	for i := range 1000 {
		keys = append(keys, &wire.Key{Addr: []byte{10, 0, 0, 1}, Protocol: 6, Port: uint32(1000 - i)})
	}
	_ = r.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Hello{Hello: &wire.Hello{
		Node: "n1", Application: "blue", Kernel: long, Status: &wire.Status{Error: long, Tables: tables, HostListens: keys},
	}}})
	if _, err := r.Recv(); err != nil {
		t.Fatal(err)
	}
	report, _ := o.report("n1", "blue")
	if len(report.Kernel) > maxText+3 || len(report.Error) > maxText+3 || len(report.Tables) > maxTables ||
		len(report.HostListens) != lb.MaxHostListens-3 || !slices.IsSortedFunc(report.HostListens, lb.Key.Compare) {
		t.Errorf("report of %d, %d and %d, host listens at %v", len(report.Kernel), len(report.Error), len(report.Tables), report.HostListens)
	}
	_ = r.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Status{Status: &wire.Status{Error: string(make([]byte, maxAgentMessage))}}})
	if _, err := r.update(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("error %v", err)
	}
}

// Only TLS 1.3 is accepted.
func TestOldTLS(t *testing.T) {
	o := newOperator(t, "", nil)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(o.certificates.Load().Bundle())
	for version, fails := range map[uint16]bool{tls.VersionTLS12: true, tls.VersionTLS13: false} {
		conn, err := tls.Dial("tcp", o.address, &tls.Config{RootCAs: roots, ServerName: host, MaxVersion: version, NextProtos: []string{"h2"}})
		if (err != nil) != fails {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

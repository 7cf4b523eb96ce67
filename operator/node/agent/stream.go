// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// firstWait is the time before the second attempt to connect. It doubles up to
// Pause.
const firstWait = 100 * time.Millisecond

// connect keeps a stream to the leader open until ctx ends. It logs that the
// operator is away when it has tried all addresses, each reason once.
func (a *Agent) connect(ctx context.Context) {
	wait, logged := firstWait, map[string]bool{}
	type failure struct {
		address string
		err     error
	}
	var failed []failure // of the present round
	var leader string    // the address that was connected last
	for try := 0; ctx.Err() == nil; try++ {
		address, round, err := a.address(ctx, try, leader)
		if err == nil {
			err = a.stream(ctx, address)
		}
		if ctx.Err() != nil {
			return
		}
		if a.setConnected(false) {
			wait, logged, failed, leader, try = firstWait, map[string]bool{}, nil, address, -1
		}
		if errors.Is(err, io.EOF) { // the operator wants to see the present token
			a.o.Log.Debug("connecting to the operator again", "operator", a.o.Operator, "address", address)
		} else if failed = append(failed, failure{address, err}); len(failed) >= round {
			for _, f := range failed {
				if text := status.Convert(f.err).Message(); !logged[text] {
					logged[text] = true
					a.o.Log.Warn("the operator is away; the kernel continues to serve", "operator", a.o.Operator, "address", f.address, "error", f.err)
				}
			}
			failed = nil
		}
		// A random wait, so that agents that lost the same operator do not all
		// come back at once.
		pause := time.NewTimer(rand.N(wait) + wait/2)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
		wait = min(2*wait, a.o.Pause*2/3)
	}
}

// address returns the address of the operator to try, and how many there are: each
// in turn, as only the leader accepts agents. The one that led last comes first.
func (a *Agent) address(ctx context.Context, try int, leader string) (address string, round int, err error) {
	all, err := a.addresses(ctx)
	if err != nil {
		return "", 1, err
	}
	if i := slices.Index(all, leader); i > 0 {
		all[0], all[i] = all[i], all[0]
	}
	return all[try%len(all)], len(all), nil
}

// addresses returns the addresses of all operators, as host:port.
func (a *Agent) addresses(ctx context.Context) ([]string, error) {
	host, port, err := net.SplitHostPort(a.o.Operator)
	if err != nil {
		return nil, fmt.Errorf("find operator: %w", err)
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("find operator: %w", err)
	}
	var all []string
	for _, ip := range found {
		all = append(all, net.JoinHostPort(ip.Unmap().String(), port))
	}
	return all, nil
}

// setConnected sets whether the agent is connected, and returns whether it was
// before.
func (a *Agent) setConnected(now bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.connected
	a.connected = now
	return before
}

// token is the agent's token, read from its file when a stream begins.
type token struct{ file string }

func (t token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	text, err := os.ReadFile(t.file)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, fmt.Sprintf("read token: %v", err))
	}
	return map[string]string{"authorization": "Bearer " + strings.TrimSpace(string(text))}, nil
}

func (t token) RequireTransportSecurity() bool { return true }

// Dial returns a connection to the operator at an address, with the token and
// the CA that the options name. It does not wait for the connection.
func Dial(o Options, address string) (*grpc.ClientConn, error) {
	bundle, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return nil, fmt.Errorf("read CA: there is no certificate in %s", o.CAFile)
	}
	host, _, err := net.SplitHostPort(o.Operator)
	if err != nil {
		return nil, fmt.Errorf("find operator: %w", err)
	}
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: host})),
		grpc.WithPerRPCCredentials(token{o.TokenFile}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: wire.PingEvery, Timeout: wire.PingTimeout}),
		// Give up on an address that does not answer: the next one may.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: wire.PingTimeout}),
		grpc.WithNoProxy(),
	)
}

// stream runs one stream to an operator until it ends, and returns why.
func (a *Agent) stream(ctx context.Context, address string) error {
	conn, err := Dial(a.o, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := wire.NewFleetClient(conn).Serve(ctx)
	if err != nil {
		return err
	}
	hello := &wire.Hello{
		Application: a.o.Application, Node: a.o.Node, Kernel: a.o.Kernel, Layout: uint32(a.o.Layout),
		Got: wire.EncodeVersion(a.replica.Version), Status: a.status(),
		BootId: a.o.BootID, Announces: a.o.Tables.Announces(), PeersSums: a.announcing.peers.Sums(),
		Answers: true, Policies: a.o.Tables.EnforcesPolicies(),
	}
	if hello.Got != nil {
		hello.GotSum = a.replica.Sum.Bytes()
	}
	if err := stream.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Hello{Hello: hello}}); err != nil {
		_, err = stream.Recv() // returns the reason
		return err
	}
	for _, kept := range wire.EncodeKept(a.resolve.Ejected) {
		if err := stream.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Health{Health: kept}}); err != nil {
			_, err = stream.Recv()
			return err
		}
	}
	questions := newQuestions(ctx, a.o.Answerer, &a.answering)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		a.send(ctx, stream, questions.send)
	}()
	a.data = nil
	err = a.receive(ctx, stream, questions)
	a.reviews.set(false)
	cancel()
	<-sent
	return err
}

// send sends the status whenever it has changed, and answers, until the stream ends.
func (a *Agent) send(ctx context.Context, stream wire.Fleet_ServeClient, answers <-chan *wire.Answer) {
	healths := make(chan *wire.Health)
	go a.reportHealth(ctx, healths)
	for {
		m := &wire.AgentMessage{}
		select {
		case <-ctx.Done():
			return
		case <-a.changed:
			m.Message = &wire.AgentMessage_Status{Status: a.status()}
		case answer := <-answers:
			m.Message = &wire.AgentMessage_Answer{Answer: answer}
		case review := <-a.reviews.send:
			m.Message = &wire.AgentMessage_Review{Review: review}
		case health := <-healths:
			m.Message = &wire.AgentMessage_Health{Health: health}
		}
		if stream.Send(m) != nil {
			return // receive returns the reason
		}
	}
}

// receive applies what the operator sends, until the stream ends.
func (a *Agent) receive(ctx context.Context, stream wire.Fleet_ServeClient, questions *questions) error {
	a.judged.probes.Set(ctx, nil) // those of the last stream have ended
	received, failed := make(chan *wire.OperatorMessage), make(chan error, 1)
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case received <- m:
			case <-ctx.Done():
				return
			}
		}
	}()
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for {
		m := &wire.OperatorMessage{}
		var err error
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			if !a.mayGiveBack(now) {
				continue
			}
		case m = <-received:
			if !a.setConnected(true) {
				a.o.Log.Info("connected to the operator", "operator", a.o.Operator)
			}
		}
		switch m := m.Message.(type) {
		case *wire.OperatorMessage_Ejected:
			a.setEjected(m.Ejected)
		case *wire.OperatorMessage_Config:
			err = a.configure(m.Config)
		case *wire.OperatorMessage_Peers:
			err = a.setPeers(m.Peers)
		case *wire.OperatorMessage_Question:
			questions.receive(m.Question)
			continue
		case *wire.OperatorMessage_Verdict:
			a.reviews.receive(m.Verdict)
			continue
		case *wire.OperatorMessage_Part:
			if err = a.collect(m.Part); err != nil || !m.Part.Last {
				break
			}
			err = a.replica.Apply(a.data, a.resolve)
			a.data = nil
		}
		if err != nil {
			return err
		}
		if a.replica.Version == nil || a.data != nil {
			continue
		}
		a.setChecks(ctx)
		a.announcer.SetState(a.replica.Resolution.State)
		select {
		case a.states <- a.replica.state():
			a.replica.taken()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// maxUpdate is far more than any data plane can hold, in bytes.
const maxUpdate = 256 << 20

func (a *Agent) collect(p *wire.Part) error {
	if len(a.data)+len(p.Data) > maxUpdate {
		return fmt.Errorf("update is larger than %d bytes", maxUpdate)
	}
	a.data = append(a.data, p.Data...)
	return nil
}

// configure applies the config of this node and application.
func (a *Agent) configure(w *wire.Config) error {
	d := &wire.Decoder{}
	a.resolve.NodeName, a.resolve.Zone, a.resolve.HostAddresses = w.Node, w.Zone, nil
	a.resolve.ThroughStack = w.ThroughStack
	for _, addr := range w.Addresses {
		a.resolve.HostAddresses = append(a.resolve.HostAddresses, d.Addr(addr))
	}
	ports := d.Ports(w.Snat)
	if d.Err != nil {
		return fmt.Errorf("read config: %w", d.Err)
	}
	err := a.writer.SetSNAT(ports, a.resolve.HostAddresses)
	if err == nil {
		err = a.writer.SetMasqueradeMark(w.MasqueradeMark)
	}
	if err == nil {
		err = a.writer.SetUpgrading(w.Upgrading)
	}
	if err == nil && w.Seed != nil {
		err = a.writer.SetSeed(*w.Seed)
	}
	if err == nil && w.Drain != nil {
		err = errors.Join(a.writer.Drain(*w.Drain), a.countUnfinished())
	}
	if err == nil {
		err = a.setAnnouncing(w.Announcing)
	}
	a.mu.Lock()
	a.heartbeat.alone = w.Alone
	a.reviews.set(w.Reviews)
	a.settingsFailure = ""
	if err != nil {
		a.settingsFailure = err.Error()
	}
	a.mu.Unlock()
	a.notify()
	if a.replica.Version != nil {
		a.replica.resolve(a.resolve)
	}
	return err
}

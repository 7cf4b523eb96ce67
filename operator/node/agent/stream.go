// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// firstWait is before the second try to connect; it doubles up to Pause.
const firstWait = 100 * time.Millisecond

// connect holds a stream to the leader until ctx ends. It says that the operator
// is away, and each reason once.
func (c *Agent) connect(ctx context.Context) {
	wait, said := firstWait, map[string]bool{}
	var leader string
	for try := 0; ctx.Err() == nil; try++ {
		address, err := c.address(ctx, try, leader)
		if err == nil {
			err = c.stream(ctx, address)
		}
		if ctx.Err() != nil {
			return
		}
		if c.setConnected(false) {
			wait, said = firstWait, map[string]bool{}
		}
		if text := status.Convert(err).Message(); !said[text] {
			said[text] = true
			c.o.Log.Warn("the operator is away; the kernel goes on serving", "operator", c.o.Operator, "address", address, "error", err)
		}
		leader = redirected(err)
		// Agents that lost the same operator come back one by one.
		pause := time.NewTimer(rand.N(wait) + wait/2)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
		wait = min(2*wait, c.o.Pause*2/3)
	}
}

// address returns one of the operator's: the leader's if it is known, or else
// each in turn.
func (c *Agent) address(ctx context.Context, try int, leader string) (string, error) {
	if leader != "" {
		return leader, nil
	}
	all, err := c.addresses(ctx)
	if err != nil {
		return "", err
	}
	return all[try%len(all)], nil
}

// addresses returns those of all operators.
func (c *Agent) addresses(ctx context.Context) ([]string, error) {
	host, port, err := net.SplitHostPort(c.o.Operator)
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

// redirected returns where an operator says that the leader is, or "".
func redirected(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Reason == wire.NotLeader {
			return info.Metadata["leader"]
		}
	}
	return ""
}

// setConnected returns what was before.
func (c *Agent) setConnected(now bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.connected
	c.connected = now
	return before
}

// token is the agent's, as it is in the file when a stream begins.
type token struct{ file string }

func (t token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	text, err := os.ReadFile(t.file)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, fmt.Sprintf("read token: %v", err))
	}
	return map[string]string{"authorization": "Bearer " + strings.TrimSpace(string(text))}, nil
}

func (t token) RequireTransportSecurity() bool { return true }

// Dial returns a connection to the operator at an address, as an agent with
// these options opens it: with its token, and by the CA that it knows.
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
		// An address that is gone answers nothing: the next one may.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: wire.PingTimeout}),
		grpc.WithNoProxy(),
	)
}

// stream talks to one operator until it ends.
func (c *Agent) stream(ctx context.Context, address string) error {
	conn, err := Dial(c.o, address)
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
		Application: c.o.Application, Node: c.o.Node, Kernel: c.o.Kernel, Layout: uint32(c.o.Layout),
		Got: wire.EncodeVersion(c.replica.Version), Status: c.status(),
	}
	if err := stream.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Hello{Hello: hello}}); err != nil {
		_, err = stream.Recv() // says why
		return err
	}
	said := make(chan struct{})
	go func() {
		defer close(said)
		c.send(ctx, stream)
	}()
	c.data = nil
	err = c.receive(ctx, stream)
	cancel()
	<-said
	return err
}

// send tells the operator what is new, until the stream ends.
func (c *Agent) send(ctx context.Context, stream wire.Fleet_ServeClient) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.news:
		}
		if stream.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Status{Status: c.status()}}) != nil {
			return // the other direction says why
		}
	}
}

// receive does what the operator says, until the stream ends.
func (c *Agent) receive(ctx context.Context, stream wire.Fleet_ServeClient) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if !c.setConnected(true) {
			c.o.Log.Info("the operator is here", "operator", c.o.Operator)
		}
		switch m := m.Message.(type) {
		case *wire.OperatorMessage_Config:
			err = c.configure(m.Config)
		case *wire.OperatorMessage_Part:
			if err = c.collect(m.Part); err != nil || !m.Part.Last {
				break
			}
			err = c.replica.Apply(c.data, c.resolve)
			c.data = nil
		}
		if err != nil {
			return err
		}
		if c.replica.Version == nil || c.data != nil {
			continue
		}
		version := *c.replica.Version
		select {
		case c.wants <- writer.Want{State: c.replica.Resolution.State, Version: &version}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// maxUpdate is far more than any data plane can hold.
const maxUpdate = 256 << 20

func (c *Agent) collect(p *wire.Part) error {
	if len(c.data)+len(p.Data) > maxUpdate {
		return fmt.Errorf("update of more than %d bytes", maxUpdate)
	}
	c.data = append(c.data, p.Data...)
	return nil
}

// configure takes over what belongs to this node and application.
func (c *Agent) configure(w *wire.Config) error {
	d := &wire.Decoder{}
	c.resolve.NodeName, c.resolve.Zone, c.resolve.HostAddresses = w.Node, w.Zone, nil
	for _, a := range w.Addresses {
		c.resolve.HostAddresses = append(c.resolve.HostAddresses, d.Addr(a))
	}
	ports := d.Ports(w.Snat)
	if d.Err != nil {
		return fmt.Errorf("read config: %w", d.Err)
	}
	err := c.writer.SetSNAT(ports, first(c.resolve.HostAddresses, netip.Addr.Is4), first(c.resolve.HostAddresses, netip.Addr.Is6))
	if err == nil && w.Drain != nil {
		err = errors.Join(c.writer.Drain(*w.Drain), c.count())
	}
	c.mu.Lock()
	c.heartbeat.alone = w.Alone
	c.setting = ""
	if err != nil {
		c.setting = err.Error()
	}
	c.mu.Unlock()
	c.notify()
	if c.replica.Version != nil {
		c.replica.resolve(c.resolve)
	}
	return err
}

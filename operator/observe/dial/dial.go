// SPDX-License-Identifier: Apache-2.0

// Package dial connects commands to who answers their questions: a host's own
// process, or the operator of a cluster.
package dial

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"k8s.io/client-go/rest"

	"github.com/kubernetes-sigs/blixt/operator/observe/transport"
)

// Target is who is to be asked: the process of a host, if Socket is set, or else the
// nodes of a cluster.
type Target struct {
	// Socket is that of the process.
	Socket string
	// Config is of the cluster, Namespace Blixt's in it.
	Config    *rest.Config
	Namespace string
	// Nodes are asked; none: all.
	Nodes []string
}

// Conn is an observe.Asker.
type Conn struct {
	*transport.Asker
	conn *grpc.ClientConn
}

// Close closes the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Dial connects to a target.
func Dial(ctx context.Context, t Target) (*Conn, error) {
	if t.Socket == "" {
		return nil, errors.New("clusters cannot be asked yet")
	}
	if len(t.Nodes) > 0 {
		return nil, errors.New("a host without a cluster has no other nodes to ask")
	}
	probe, err := transport.DialSocket(ctx, t.Socket) // for an error in words
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("no blixt run answers at %s: is it running, with this --name and --run-dir? (The kernel may go on serving without it.)", t.Socket)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: run as root", err)
	case err != nil:
		return nil, err
	}
	_ = probe.Close() // nothing was sent
	conn, err := transport.NewSocketClient(t.Socket)
	if err != nil {
		return nil, err
	}
	return &Conn{Asker: transport.NewAsker(conn, nil), conn: conn}, nil
}

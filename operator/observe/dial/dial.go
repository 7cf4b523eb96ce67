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

// Dial connects to a target. Its errors say what is missing.
func Dial(ctx context.Context, t Target) (*Conn, error) {
	var conn *grpc.ClientConn
	var err error
	switch {
	case t.Socket == "":
		var c *cluster
		if c, err = newCluster(t.Config, t.Namespace); err == nil {
			conn, err = c.connect(ctx)
		}
	case len(t.Nodes) > 0:
		err = errors.New("a host without a cluster has no other nodes to ask")
	default:
		conn, err = dialSocket(ctx, t.Socket)
	}
	if err != nil {
		return nil, err
	}
	return &Conn{Asker: transport.NewAsker(conn, t.Nodes), conn: conn}, nil
}

func dialSocket(ctx context.Context, path string) (*grpc.ClientConn, error) {
	probe, err := transport.DialSocket(ctx, path) // for an error in words
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("no blixt run answers at %s: is it running, with this --name and --run-dir? (The kernel may go on serving without it.)", path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: run as root", err)
	case err != nil:
		return nil, err
	}
	_ = probe.Close() // nothing was sent
	return transport.NewSocketClient(path)
}

// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/document"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/machine"
)

// Network is the one of the documents: a host that balances, a client in its network, and
// servers behind it.
//
//	client 192.0.2.100 ── 192.0.2.1 host 10.0.0.254 ── switch ── web-1 10.0.0.1
//	    2001:db8::100     2001:db8::1    fd00::fe             └── web-2 10.0.0.2, fd00::2
//
// The client has 192.0.2.200, too, and a route to 198.51.100.0/24 by the host; the servers have
// 10.77.0.11 and fd77::11, 10.77.0.12 and fd77::12: these are addresses of examples. The host
// does not forward.
type Network struct {
	*lab.Lab
	Host, Client *lab.Node
	Servers      []*lab.Node
}

// NewNetwork makes the network.
func NewNetwork(name string) (*Network, error) {
	l, err := lab.New(name)
	if err != nil {
		return nil, err
	}
	n := &Network{Lab: l, Host: l.Node("host"), Client: l.Node("client")}
	l.Link(n.Client, "eth0", n.Host, "eth0")
	n.Client.Addr("eth0", "192.0.2.100/24", "192.0.2.200/24", "2001:db8::100/64")
	n.Client.Route("198.51.100.0/24 via 192.0.2.1")
	n.Host.Addr("eth0", "192.0.2.1/24", "2001:db8::1/64")
	sw := l.Node("switch")
	sw.Bridge("br0")
	l.Plug(n.Host, "eth1", sw, "br0")
	n.Host.Addr("eth1", "10.0.0.254/24", "10.77.0.1/24", "fd00::fe/64", "fd77::1/64")
	n.Host.Sysctl("net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0") // as a new machine has it
	for i := 1; i <= 2; i++ {
		s := l.Node(fmt.Sprintf("web-%d", i))
		l.Plug(s, "eth0", sw, "br0")
		s.Addr("eth0", fmt.Sprintf("10.0.0.%d/24", i), fmt.Sprintf("10.77.0.%d/24", 10+i), fmt.Sprintf("fd00::%d/64", i), fmt.Sprintf("fd77::%d/64", 10+i))
		s.Route("default via 10.0.0.254", "default via fd00::fe")
		n.Servers = append(n.Servers, s)
	}
	if err := l.Err(); err != nil {
		_ = l.Close() // the first error says more
		return nil, fmt.Errorf("make network: %w", err)
	}
	return n, nil
}

// Nodes returns those that blocks may name.
func (n *Network) Nodes() map[string]*lab.Node {
	all := map[string]*lab.Node{"host": n.Host, "client": n.Client}
	for _, s := range n.Servers {
		all[s.Name] = s
	}
	return all
}

// Serve has port 8080 of a server answer HTTP with the server's name.
func Serve(n *lab.Node) (stop func(), err error) {
	l, err := n.Listen("tcp", ":8080")
	if err != nil {
		return nil, err
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(n.Name + "\n")) // the client may have gone
	})}
	go func() { _ = server.Serve(l) }()
	return func() { _ = server.Close() }, nil
}

// ServeSSH has port 22 of a host say what a server of SSH says first, and no more.
func ServeSSH(n *lab.Node) (stop func(), err error) {
	l, err := n.Listen("tcp", ":22")
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil { // it is closed
				return
			}
			_, _ = c.Write([]byte("SSH-2.0-OpenSSH_10.0\r\n")) // the client may have gone
			_ = c.Close()
		}
	}()
	return func() { _ = l.Close() }, nil
}

// WithSystemd are the documents that install packages and start services. They are followed
// by e2e/packages, where a host has a systemd; all others by e2e/docs.
var WithSystemd = []string{"docs/packages.md", "docs/quickstart/host.md"}

// Home is where readers begin, with the examples of this checkout.
const Home = "/home/alice/blixt"

// Equip gives a machine sudo, and the examples.
func Equip(m *machine.Machine) error {
	const sudo = `#!/bin/sh
export SUDO_USER=alice
exec env "$@"
`
	home := m.Path(Home)
	return errors.Join(
		os.WriteFile(m.Path("/usr/local/bin/sudo"), []byte(sudo), 0o755),
		os.MkdirAll(home, 0o755),
		os.CopyFS(filepath.Join(home, "examples"), os.DirFS("../../examples")),
	)
}

// Names reports whether a block is to be run on a machine.
func Names(blocks []document.Block, machine string) bool {
	return slices.ContainsFunc(blocks, func(b document.Block) bool {
		m, err := b.Mark()
		return err == nil && b.HasCommands() && m.Run == machine
	})
}

// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// Network is the one of the documents: a host that balances, a client in its network, and
// servers behind it.
//
//	client 192.0.2.100 ── 192.0.2.1 host 10.0.0.254 ── switch ── web-1 10.0.0.1
//	    2001:db8::100     2001:db8::1    fd00::fe             └── web-2 10.0.0.2, …
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
	n.Client.Addr("eth0", "192.0.2.100/24", "2001:db8::100/64")
	n.Host.Addr("eth0", "192.0.2.1/24", "2001:db8::1/64")
	sw := l.Node("switch")
	sw.Bridge("br0")
	l.Plug(n.Host, "eth1", sw, "br0")
	n.Host.Addr("eth1", "10.0.0.254/24", "fd00::fe/64")
	for i := 1; i <= 2; i++ {
		s := l.Node(fmt.Sprintf("web-%d", i))
		l.Plug(s, "eth0", sw, "br0")
		s.Addr("eth0", fmt.Sprintf("10.0.0.%d/24", i), fmt.Sprintf("fd00::%d/64", i))
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
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(n.Name + "\n")) // the client may have gone
	})}
	for _, ip := range []string{n.IPv4, n.IPv6} {
		l, err := n.Listen("tcp", net.JoinHostPort(ip, "8080"))
		if err != nil {
			_ = server.Close()
			return nil, err
		}
		go func() { _ = server.Serve(l) }()
	}
	return func() { _ = server.Close() }, nil
}

// NeedsSystemd reports whether a document installs packages and starts services. Those are
// followed by e2e/packages, where a host has a systemd; all others by e2e/docs.
func NeedsSystemd(file string) bool {
	return file == "docs/quickstart/host.md" || file == "docs/packages.md"
}

// SPDX-License-Identifier: Apache-2.0

package lab

import "fmt"

// Addresses of the standard network: the client's, the balancer's towards the
// client, the backends and the pods, and those that are served.
const (
	Client4  = "10.66.0.2"
	Client6  = "fd66::2"
	Outside4 = "10.66.0.1"
	Outside6 = "fd66::1"
	Inside4  = "10.77.0.1"
	Inside6  = "fd77::1"
	Pods4    = "10.88.0.1"
	Pods6    = "fd88::1"
	VIP4     = "198.51.100.10"
	VIP6     = "2001:db8:100::10"
)

// Standard is a load balancer between a client and a network of backends:
//
//	client ── eth0 balancer eth1 ── switch ── backend-1 … backend-4
//	               │ pods (a bridge)
//	               pod-1, pod-2
//
// Backend n has 10.77.0.(10+n) and fd77::(10+n), pod n 10.88.0.(10+n) and
// fd88::(10+n). VIPs are 198.51.100.0/24 and 2001:db8:100::/64.
type Standard struct {
	*Lab
	Client, Balancer *Node
	Backends, Pods   []*Node
}

// NewStandard makes the network.
func NewStandard(name string, backends, pods int) (*Standard, error) {
	l, err := New(name)
	if err != nil {
		return nil, err
	}
	s := &Standard{Lab: l, Client: l.Node("client"), Balancer: l.Node("balancer")}
	s.Balancer.Forward()
	l.Link(s.Client, "eth0", s.Balancer, "eth0")
	s.Client.Addr("eth0", Client4+"/24", Client6+"/64")
	s.Client.Route("default via "+Outside4, "default via "+Outside6)
	s.Balancer.Addr("eth0", Outside4+"/24", Outside6+"/64")

	sw := l.Node("switch")
	sw.Bridge("br0")
	l.Plug(s.Balancer, "eth1", sw, "br0")
	s.Balancer.Addr("eth1", Inside4+"/24", Inside6+"/64")
	for i := 1; i <= backends; i++ {
		n := l.Node(fmt.Sprintf("backend-%d", i))
		l.Plug(n, "eth0", sw, "br0")
		n.Addr("eth0", fmt.Sprintf("10.77.0.%d/24", 10+i), fmt.Sprintf("fd77::%d/64", 10+i))
		n.Route("default via "+Inside4, "default via "+Inside6)
		s.Backends = append(s.Backends, n)
	}
	s.Balancer.Bridge("pods")
	s.Balancer.Addr("pods", Pods4+"/24", Pods6+"/64")
	for i := 1; i <= pods; i++ {
		n := l.Node(fmt.Sprintf("pod-%d", i))
		l.Plug(n, "eth0", s.Balancer, "pods")
		n.Addr("eth0", fmt.Sprintf("10.88.0.%d/24", 10+i), fmt.Sprintf("fd88::%d/64", 10+i))
		n.Route("default via "+Pods4, "default via "+Pods6)
		s.Pods = append(s.Pods, n)
	}
	if l.err != nil {
		return nil, fmt.Errorf("make network: %w", joinClose(l))
	}
	return s, nil
}

// joinClose closes a network that could not be built, and returns both errors.
func joinClose(l *Lab) error {
	err := l.err
	if e := l.Close(); e != nil {
		return fmt.Errorf("%w (and then: %w)", err, e)
	}
	return err
}

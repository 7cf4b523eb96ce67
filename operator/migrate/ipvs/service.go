// SPDX-License-Identifier: Apache-2.0

// Package ipvs reads what ipvsadm -Sn prints: the table of the kernel's IP Virtual Server.
//
// The options are those of ipvsadm(8), version 1.31.
package ipvs

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// Service is a virtual service of IPVS, as ipvsadm and keepalived define it.
type Service struct {
	migrate.Place
	Text     string // as notes quote it
	Protocol corev1.Protocol
	Address  netip.Addr
	Port     uint16 // 0: all ports
	// Scheduler, with its flags, such as sh-port.
	Scheduler string
	Flags     []string
	// Persistence is how long a client keeps its server after its last connection; 0: it
	// does not. Bits of its address make a client.
	Persistence time.Duration
	Bits        int
	OnePacket   bool   // each datagram is scheduled by itself
	Engine      string // a persistence engine, such as sip
	Servers     []Server
}

// Server is a real server.
type Server struct {
	migrate.Place
	Text    string
	Address netip.Addr
	Port    uint16 // 0: that of the service
	Weight  int
	Method  Method
	// Limited: it gets no connections above a number.
	Limited bool
	// Sorry servers get connections while there is no other one.
	Sorry bool
}

// Method is how packets get to a server.
type Method string

// The methods, by what they are called in notes.
const (
	NAT     Method = "NAT"
	Routing Method = "direct routing"
	Tunnel  Method = "tunneling"
)

// schedulers are those that share connections otherwise than Blixt does, and what is to be
// said about them.
var schedulers = map[string]string{
	"lc":    "each server gets the same share of new connections, however many it has",
	"wlc":   "each server gets new connections by its weight, however many it has",
	"sed":   "each server gets new connections by its weight, however many it has",
	"nq":    "each server gets new connections by its weight, however many it has",
	"twos":  "each server gets new connections by its weight, however many it has",
	"ovf":   "each server gets new connections by its weight, and none overflows to the next",
	"lblc":  "the address that the client asks for is not looked at: servers share new connections by weight",
	"lblcr": "the address that the client asks for is not looked at: servers share new connections by weight",
	"dh":    "the address that the client asks for is not looked at: servers share new connections by weight",
}

// alike are schedulers that take no account of weights, but of weight 0.
var alike = []string{"rr", "lc"}

// Frontend returns what the service is to Blixt.
func (s *Service) Frontend() migrate.Frontend {
	proto := strings.ToLower(string(s.Protocol))
	address := strings.NewReplacer(".", "-", ":", "-").Replace(s.Address.String())
	f := migrate.Frontend{
		Place: s.Place, Name: fmt.Sprintf("%s-%d-%s", proto, s.Port, address), Gateway: "vip-" + address, Protocol: s.Protocol,
		Addresses: []netip.Addr{s.Address}, Port: s.Port, Was: s.Scheduler,
	}
	if s.Port == 0 {
		f.Name, f.Port, f.EndPort = fmt.Sprintf("%s-all-%s", proto, address), 1, 65535
		f.Note(s.Place, migrate.Changed, "%s serves all ports: one listener has ports 1 to 65535, but for those that the host needs itself; other listeners of the address come first", s.Text)
	}
	s.schedule(&f)
	s.persist(&f)
	if s.OnePacket {
		f.Note(s.Place, migrate.Changed, "%s schedules each datagram by itself: with Blixt those of the same client address and port reach the same server, until idleTimeout.udp of the policy has passed without any", s.Text)
	}
	if s.Engine != "" {
		f.Note(s.Place, migrate.Lost, "%s: persistence engine %s looks into packets, which Blixt does not: affinity of the policy goes by the client's address", s.Text, s.Engine)
	}
	s.backends(&f)
	return f
}

// schedule says how connections are shared.
func (s *Service) schedule(f *migrate.Frontend) {
	switch s.Scheduler {
	case "rr", "wrr":
	case "sh", "mh":
		if slices.Contains(s.Flags, s.Scheduler+"-port") {
			break // address and port choose, as with Blixt
		}
		f.Policy.Affinity = &v1alpha1.PolicyAffinity{Type: v1alpha1.AffinityClientAddress}
		s.prefix(f, f.Policy.Affinity, 128)
	case "fo":
		f.Note(s.Place, migrate.Changed, "%s: scheduler fo: servers take over from each other in the order of their weights, by failover of the policy, once a check says that one is down: set health if it has none", s.Text)
	default:
		say, ok := schedulers[s.Scheduler]
		if !ok {
			f.Note(s.Place, migrate.Lost, "%s: scheduler %s is not known: servers share new connections by weight", s.Text, s.Scheduler)
			return
		}
		f.Note(s.Place, migrate.Changed, "%s: scheduler %s: %s", s.Text, s.Scheduler, say)
	}
}

// persist has clients keep their servers.
func (s *Service) persist(f *migrate.Frontend) {
	if s.Persistence == 0 {
		return
	}
	f.Policy.Affinity = &v1alpha1.PolicyAffinity{Type: v1alpha1.AffinityClientAddress, Timeout: &metav1.Duration{Duration: s.Persistence}}
	s.prefix(f, f.Policy.Affinity, cmp.Or(s.Bits, s.Address.BitLen()))
}

// prefix says how many bits of an address make a client.
func (s *Service) prefix(f *migrate.Frontend, a *v1alpha1.PolicyAffinity, bits int) {
	four, six := 32, 128
	if s.Address.Is4() {
		four = min(max(bits, 8), 32)
		if bits < 8 {
			f.Note(s.Place, migrate.Changed, "%s: the first %d bits of an address make a client: Blixt takes at least 8", s.Text, bits)
		}
	} else {
		six = min(max(bits, 32), 128)
		if bits < 32 {
			f.Note(s.Place, migrate.Changed, "%s: the first %d bits of an address make a client: Blixt takes at least 32", s.Text, bits)
		}
	}
	a.PrefixLength = &v1alpha1.PrefixLength{IPv4: pointer(four), IPv6: pointer(six)}
}

func pointer(n int) *int32 {
	v := int32(n)
	return &v
}

// backends are the servers, with what is to change on them.
func (s *Service) backends(f *migrate.Frontend) {
	turns := s.turns()
	said := map[Method]bool{}
	for i, v := range s.Servers {
		b := migrate.Backend{Place: v.Place, Addr: v.Address, Port: v.Port, Weight: v.Weight, Backup: v.Sorry}
		if v.Method != NAT || b.Port == s.Port {
			b.Port = s.Port // 0: the client's
		}
		if slices.Contains(alike, s.Scheduler) {
			b.Weight = min(b.Weight, 1)
		}
		if s.Scheduler == "fo" && !v.Sorry && v.Weight > 0 {
			b.Weight, b.Backup, b.Turn = 1, turns[i] > 0, max(0, turns[i]-1)
		}
		if s.Scheduler == "fo" && v.Sorry {
			b.Turn = len(s.Servers)
		}
		s.noteServer(f, &v, said)
		f.Backends = append(f.Backends, b)
	}
}

// turns returns when each server is asked by the scheduler fo: those of a higher weight first, and
// then in their order.
func (s *Service) turns() []int {
	var order []int
	for i, v := range s.Servers {
		if !v.Sorry && v.Weight > 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return s.Servers[b].Weight - s.Servers[a].Weight })
	turns := make([]int, len(s.Servers))
	for turn, i := range order {
		turns[i] = turn
	}
	return turns
}

// noteServer says what changes for a server. Of several with the same method it is said once.
func (s *Service) noteServer(f *migrate.Frontend, v *Server, said map[Method]bool) {
	if v.Limited {
		f.Note(v.Place, migrate.Lost, "%s has a limit of connections: limits of a policy hold for a listener, not for a server: let the server bound its connections, or set limits.total", v.Text)
	}
	if said[v.Method] {
		return
	}
	said[v.Method] = true
	const sees = "sees the host's address, or the client's where it runs Blixt as well (docs/client-address.md)"
	switch v.Method {
	case Routing:
		f.Note(v.Place, migrate.Lost, "%s gets packets by direct routing, to address %s, like all servers of the service with that method: Blixt sends them to the server's own address, at which it must listen. Take %s from its interfaces (often lo), and arp_ignore and arp_announce from its sysctls. It answers to this host, not to the client, and %s", v.Text, s.Address, s.Address, sees)
	case Tunnel:
		f.Note(v.Place, migrate.Lost, "%s gets packets by a tunnel, to address %s, like all servers of the service with that method: Blixt sends them to the server's own address, to which the host must have a route, and at which it must listen. Take the tunnel and %s from the server. It answers to this host, not to the client, and %s", v.Text, s.Address, s.Address, sees)
	default:
		f.Note(v.Place, migrate.Changed, "%s sees the client's address with IPVS, and answers through this host, like all servers of the service with method NAT: with Blixt it needs no route, and %s", v.Text, sees)
	}
}

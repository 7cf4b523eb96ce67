// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/manifest"
)

// Row is what the source serves at a place, beside what Blixt would.
type Row struct {
	// Frontend is address:port/protocol; the address is 0.0.0.0 or :: for all of the host. Of a
	// Gateway to which the cluster gives an address it is namespace/name:port/protocol.
	Frontend string `json:"frontend"`
	// Was and Will are nil where nothing is served.
	Was  *Side `json:"was"`
	Will *Side `json:"will"`
	Same bool  `json:"same"`
}

// Side is who answers.
type Side struct {
	// How it is chosen: in words of the source, or of Blixt.
	How     string   `json:"how"`
	Servers []Server `json:"servers"`
	Last    uint16   `json:"lastPort,omitempty"` // of a range
	// Sources may connect; nil: everybody, or, of a source that is not served, who may is not known.
	Sources *Sources `json:"sources,omitempty"`
	// Idle is how long a connection without packets is kept, such as 10m; "": the source does not say.
	Idle string `json:"idleTimeout,omitempty"`
}

// Sources are networks. The longest that matches counts.
type Sources struct {
	// Allow, if there is one, refuses all others.
	Allow []netip.Prefix `json:"allow,omitempty"`
	Deny  []netip.Prefix `json:"deny,omitempty"`
}

// equal reports whether both sides say the same. A time-out of which the source says nothing is
// no difference.
func (s *Side) equal(o *Side) bool {
	return s.Last == o.Last && slices.Equal(s.Servers, o.Servers) && reflect.DeepEqual(s.Sources, o.Sources) && (s.Idle == o.Idle || s.Idle == "")
}

// Server is one that answers.
type Server struct {
	Address string `json:"address"` // with its port; of a cluster, namespace/name:port of a Service
	// Share of new connections, while all servers are well.
	Share  float64 `json:"share"`
	Backup bool    `json:"backup,omitempty"`
	// Turn of a backup server: those of a higher one wait for all of a lower one, too.
	Turn int `json:"turn,omitempty"`
	// Missing servers are not carried over, and their Share is not known.
	Missing bool `json:"missing,omitempty"`
}

// Compare returns what the source serves and what Blixt would serve of the YAML, as Blixt itself
// reads and translates it. It returns an error if the YAML is not valid.
func Compare(p *Plan, o Options, text string) ([]Row, error) {
	set, errs := manifest.Parse("", []byte(text))
	if len(errs) > 0 {
		return nil, errs
	}
	p = p.split(o)
	rows := map[string]*Row{}
	var order []string
	at := func(key string) *Row {
		if rows[key] == nil {
			rows[key] = &Row{Frontend: key}
			order = append(order, key)
		}
		return rows[key]
	}
	names := newPlaceNames(p, o, set)
	for i := range p.Frontends {
		f := &p.Frontends[i]
		for _, key := range names.was(i) {
			if r := at(key); r.Was == nil {
				r.Was = wasSide(f, o)
			}
		}
	}
	for key, side := range will(set, p, o, names) {
		at(key).Will = side
	}
	var all []Row
	for _, key := range order {
		r := *rows[key]
		r.Same = r.Was != nil && r.Will != nil && r.Was.equal(r.Will)
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b Row) int { return strings.Compare(a.Frontend, b.Frontend) })
	return all, nil
}

// placeNames tell places of the two sides by the same names.
type placeNames struct {
	plan    *Plan
	options Options
	// gateways are those that Frontends without an address are written for, by their indexes, in a
	// cluster.
	gateways map[int]string
	// given are addresses that stand for those that the cluster gives, with the names of Gateways.
	given map[netip.Addr]string
	said  map[string]bool // names that places of Gateways have
}

// newPlaceNames gives each Gateway of a cluster that names no address one of its own.
func newPlaceNames(p *Plan, o Options, set *manifest.Set) *placeNames {
	n := &placeNames{plan: p, options: o, given: map[netip.Addr]string{}, said: map[string]bool{}}
	if o.WriteClass {
		return n
	}
	n.gateways = p.build(o).gatewayOf
	for i, gateway := range n.gateways {
		n.said[gatewayPlace(gateway, p.Frontends[i].Port, string(p.Frontends[i].Protocol))] = true
	}
	next := anyAddresses[0]
	for i := range set.Objects.Gateways {
		g := &set.Objects.Gateways[i]
		if len(g.Spec.Addresses) > 0 {
			continue
		}
		next = next.Next()
		n.given[next] = g.Namespace + "/" + g.Name
		g.Spec.Addresses = gatewayAddresses([]netip.Addr{next})
	}
	return n
}

// was returns the places of a Frontend.
func (n *placeNames) was(i int) (all []string) {
	f := &n.plan.Frontends[i]
	if n.options.WriteClass || len(f.Addresses) > 0 || len(n.options.Addresses) > 0 {
		for _, a := range was(f, n.options) {
			all = append(all, placeOf(a, f.Port, string(f.Protocol)))
		}
		return all
	}
	if gateway, written := n.gateways[i]; written {
		return []string{gatewayPlace(gateway, f.Port, string(f.Protocol))}
	}
	name := gatewayPlace(cmp.Or(f.Namespace, n.options.Namespace)+"/"+cmp.Or(f.Gateway, f.Name), f.Port, string(f.Protocol))
	if n.said[name] {
		name += " of " + f.Place.String()
	}
	n.said[name] = true
	return []string{name}
}

func gatewayPlace(gateway string, port uint16, protocol string) string {
	return fmt.Sprintf("%s:%d/%s", gateway, port, strings.ToLower(protocol))
}

// will returns a place of a translation.
func (n *placeNames) will(k lb.Key) string {
	if gateway, is := n.given[k.Addr]; is {
		return gatewayPlace(gateway, k.Port, k.Protocol.String())
	}
	return placeOf(anyOf(k.Addr), k.Port, k.Protocol.String())
}

func placeOf(addr netip.Addr, port uint16, protocol string) string {
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(addr, port), strings.ToLower(protocol))
}

// was returns the addresses of a frontend: of none, the unspecified ones of its servers'
// families. Those that --address replaces count as replaced, so that the two sides meet.
func was(f *Frontend, o Options) (all []netip.Addr) {
	given := f.Addresses
	if len(given) == 0 {
		has := map[string]bool{}
		for _, s := range f.Backends {
			has[family(s.Addr)] = true
		}
		if has["IPv4"] || len(f.Services) > 0 {
			given = append(given, netip.IPv4Unspecified())
		}
		if has["IPv6"] {
			given = append(given, netip.IPv6Unspecified())
		}
	}
	for _, a := range given {
		i := slices.IndexFunc(o.Addresses, func(x netip.Addr) bool { return family(x) == family(a) })
		if !a.IsUnspecified() || i < 0 {
			all = append(all, a)
			continue
		}
		for _, x := range o.Addresses[i:] {
			if family(x) == family(a) {
				all = append(all, x)
			}
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// wasSide returns the servers of a frontend in the source, which reaches those of both families.
func wasSide(f *Frontend, o Options) *Side {
	s := &Side{How: f.Was, Sources: wasSources(f.Policy.Sources), Idle: wasIdle(f)}
	if f.EndPort > f.Port {
		s.Last = f.EndPort
	}
	for _, x := range f.Services {
		s.add(fmt.Sprintf("%s/%s:%d", cmp.Or(x.Namespace, f.Namespace, o.Namespace), x.Name, x.Port), float64(cmp.Or(x.Weight, 1)), 0)
	}
	once := merged(f.Backends)
	turns := turnsOf(once)
	for _, b := range once {
		port := cmp.Or(b.Port, f.Port)
		s.add(netip.AddrPortFrom(b.Addr, port).String(), float64(b.Weight), slices.Index(turns, b.order()))
	}
	s.finish()
	for _, m := range f.Missing {
		s.Servers = append(s.Servers, Server{Address: m, Missing: true})
	}
	return s
}

// wasSources returns whom a policy admits, each network once, in order.
func wasSources(p *v1alpha1.PolicySources) *Sources {
	if p == nil {
		return nil
	}
	read := func(networks []string, but []netip.Prefix) (all []netip.Prefix) {
		for _, text := range networks {
			if n, err := netip.ParsePrefix(text); err == nil {
				if n = n.Masked(); !slices.Contains(but, n) {
					all = append(all, n)
				}
			}
		}
		slices.SortFunc(all, netip.Prefix.Compare)
		return slices.Compact(all)
	}
	deny := read(p.Deny, nil)
	return &Sources{Allow: read(p.Allow, deny), Deny: deny}
}

func wasIdle(f *Frontend) string {
	t := f.Policy.IdleTimeout
	switch {
	case t == nil:
	case f.Protocol == corev1.ProtocolTCP && t.TCP != nil:
		return short(t.TCP.Duration)
	case f.Protocol == corev1.ProtocolUDP && t.UDP != nil:
		return short(t.UDP.Duration)
	}
	return ""
}

// willSources returns whom the restrictions of a frontend admit.
func willSources(all []lb.Restriction, sets []lb.SourceSet) *Sources {
	for _, r := range all {
		i := slices.IndexFunc(sets, func(s lb.SourceSet) bool { return s.Policy == r.Policy })
		if r.Sources && !r.DryRun && i >= 0 {
			return &Sources{Allow: sets[i].Allow, Deny: sets[i].Deny} // what is written has one such policy
		}
	}
	return nil
}

func (s *Side) add(address string, weight float64, priority int) {
	if weight == 0 { // it stands by for nobody
		priority = 0
	}
	s.Servers = append(s.Servers, Server{Address: address, Share: weight, Backup: priority > 0, Turn: max(0, priority-1)})
}

// finish makes shares of weights: those of all servers, and those of each turn of backup ones.
func (s *Side) finish() {
	order := func(x Server) int {
		if x.Backup {
			return x.Turn + 1
		}
		return 0
	}
	sum := map[int]float64{}
	for _, x := range s.Servers {
		sum[order(x)] += x.Share
	}
	for i, x := range s.Servers {
		if total := sum[order(x)]; total > 0 {
			// What is shown is what is compared: weights of Blixt are fixed-point numbers.
			s.Servers[i].Share = float64(int(x.Share/total*10000+0.5)) / 100
		}
	}
	slices.SortStableFunc(s.Servers, func(a, b Server) int {
		return cmp.Or(order(a)-order(b), strings.Compare(a.Address, b.Address))
	})
}

// All of a host's addresses are these ones here: none can be anybody's.
var anyAddresses = []netip.Addr{netip.MustParseAddr("240.0.0.1"), netip.MustParseAddr("100::1")}

// will returns what Blixt would serve, by place.
func will(set *manifest.Set, p *Plan, o Options, names *placeNames) map[string]*Side {
	objects := set.Objects
	objects.Services = slices.Concat(objects.Services, p.Known, assumed(p, o))
	class := cmp.Or(o.Class, "blixt")
	if !slices.ContainsFunc(objects.GatewayClasses, func(c gwv1.GatewayClass) bool { return c.Name == class }) {
		objects.GatewayClasses = append(slices.Clone(objects.GatewayClasses), gwv1.GatewayClass{
			ObjectMeta: metav1.ObjectMeta{Name: class}, Spec: gwv1.GatewayClassSpec{ControllerName: gateway.ControllerName}})
	}
	t := gateway.Translate(objects, gateway.Options{DefaultAddresses: anyAddresses})
	endpoints := gateway.IndexEndpoints(set.EndpointSlices, nil)
	state := gateway.Resolve(&t.Unresolved, endpoints, gateway.ResolveOptions{}).State
	all := map[string]*Side{}
	for i := range t.Frontends {
		f := &t.Frontends[i]
		s := &Side{How: how(&f.Settings), Sources: willSources(f.Restrictions, t.Sources), Idle: short(f.IdleTimeout)}
		if f.Ports != nil {
			s.Last = f.Ports.Last
		}
		for _, r := range f.Refs {
			if len(set.EndpointSlices) == 0 || isKnown(p.Known, r.Service.Namespace, r.Service.Name) {
				s.add(fmt.Sprintf("%s:%d", r.Service, r.Port), float64(r.Weight), r.Priority)
			}
		}
		all[names.will(f.Key)] = s
	}
	for i := range state.Frontends {
		f := &state.Frontends[i]
		s := all[names.will(f.Key())]
		if s == nil {
			continue
		}
		standby := backups(t.Frontends, f)
		for _, b := range f.Backends {
			weight, priority := float64(b.Weight), 0
			if b.Standby {
				weight, priority = standby[b.Service].weight, standby[b.Service].priority
			}
			s.add(b.Addr.String(), weight, priority)
		}
	}
	for key, s := range all {
		if s.finish(); len(s.Servers) == 0 {
			delete(all, key) // nobody would answer
		}
	}
	return all
}

// backup is a Service that stands by.
type backup struct {
	weight   float64 // that one endpoint would have; none has any as long as it stands by
	priority int
}

// backups returns the Services that stand by.
func backups(all []gateway.Frontend, f *lb.Frontend) map[string]backup {
	count := map[string]float64{}
	for _, b := range f.Backends {
		if b.Standby {
			count[b.Service]++
		}
	}
	services := map[string]backup{}
	for i := range all {
		if all[i].Key == f.Key() {
			for _, r := range all[i].Refs {
				if n := count[r.Service.String()]; n > 0 {
					services[r.Service.String()] = backup{float64(r.Weight) / n, r.Priority}
				}
			}
		}
	}
	return services
}

// assumed returns the Services of Frontends that were not read, with the ports that are served.
// Readers plan no Frontend for one that they know is not there.
func assumed(p *Plan, o Options) (all []corev1.Service) {
	known := map[types.NamespacedName]bool{}
	for i := range p.Known {
		known[types.NamespacedName{Namespace: p.Known[i].Namespace, Name: p.Known[i].Name}] = true
	}
	index := map[types.NamespacedName]int{}
	has := map[string]bool{}
	for i := range p.Frontends {
		f := &p.Frontends[i]
		for _, s := range f.Services {
			name := types.NamespacedName{Namespace: cmp.Or(s.Namespace, f.Namespace, o.Namespace), Name: s.Name}
			port := fmt.Sprintf("%s-%d", strings.ToLower(string(f.Protocol)), s.Port)
			if known[name] || has[name.String()+port] {
				continue
			}
			has[name.String()+port] = true
			if _, is := index[name]; !is {
				index[name] = len(all)
				all = append(all, corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}})
			}
			spec := &all[index[name]].Spec
			spec.Ports = append(spec.Ports, corev1.ServicePort{Name: port, Protocol: f.Protocol, Port: int32(s.Port)})
		}
	}
	return all
}

func isKnown(all []corev1.Service, namespace, name string) bool {
	return slices.ContainsFunc(all, func(s corev1.Service) bool { return s.Namespace == namespace && s.Name == name })
}

func anyOf(addr netip.Addr) netip.Addr {
	switch addr {
	case anyAddresses[0]:
		return netip.IPv4Unspecified()
	case anyAddresses[1]:
		return netip.IPv6Unspecified()
	}
	return addr
}

// how returns in words how Blixt chooses.
func how(s *lb.Settings) string {
	if s.Affinity != nil {
		return "by the client's address"
	}
	return "by hash"
}

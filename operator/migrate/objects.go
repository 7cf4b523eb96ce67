// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// Options say how a Plan is written.
type Options struct {
	// Namespace of what has none of its own; "": none is written.
	Namespace string
	// Class of the Gateways; "": blixt.
	Class string
	// WriteClass has the GatewayClass written, too.
	WriteClass bool
	// Addresses serve what the source serves at all of the host's; none: all of the host's do.
	Addresses []netip.Addr
}

// Object is an object that is to be written.
type Object struct {
	// From are the places that it comes from.
	From []Place
	// Notes are what to know about it.
	Notes []Note
	Value KubeObject
}

// KubeObject is any object of Kubernetes.
type KubeObject interface {
	metav1.Object
	runtime.Object
}

// Objects returns the objects of a plan, in the order of its frontends, and all notes: those
// of the plan, and what has turned out to have no valid form. Every object is valid by
// itself: blixt check finds fault with no field.
// A plan that is too large becomes a broken one.
func (p *Plan) Objects(o Options) ([]Object, []Note) {
	parts := p.split(o)
	if !p.Broken && len(parts.Frontends) > maxFrontends {
		p.Broken, parts.Broken = true, true
		p.Note(Place{}, Lost, "more than %s ports would be served: give fewer files", phrase.Number(maxFrontends))
	}
	b := parts.build(o)
	return b.objects, sorted(append(p.AllNotes(), b.notes...))
}

// build makes the objects of a plan that split has returned.
func (p *Plan) build(o Options) *builder {
	b := &builder{options: o, gatewayOf: map[int]string{}, ranges: portRanges{}, names: names{}, gateways: map[string]*sharedGateway{}, pools: map[string]*pool{}, taken: map[string]*Frontend{}, served: map[string]Place{}, named: map[string]Place{}}
	b.options.Class = cmp.Or(o.Class, "blixt")
	var all []Frontend
	for i := range p.Frontends {
		if f := p.Frontends[i]; !f.Unserved && !p.Broken {
			f.Notes, f.index = slices.Clone(f.Notes), i
			all = append(all, b.apart(f)...)
		}
	}
	for i := range all {
		for _, a := range all[i].Addresses {
			if gateway.InvalidAddress(a) == "" && !a.IsUnspecified() {
				b.named[all[i].place()] = all[i].Place
				if all[i].EndPort > all[i].Port {
					b.ranges.take(&all[i])
				}
			}
			b.served[fmt.Sprintf("%s/%s", netip.AddrPortFrom(a, all[i].Port), all[i].Protocol)] = all[i].Place
		}
	}
	for i := range all {
		if o.WriteClass && len(o.Addresses) == 0 && all[i].everywhere() {
			by, is := b.named[all[i].place()]
			if !is { // a listener of a port comes before a range, whose addresses may be fewer
				by, is = b.ranges.among(&all[i])
			}
			if is {
				all[i].Note(all[i].Place, Lost, "%s is not served at all of the host's addresses, as %s serves it at one that may be the host's own, with rules of its own: name the other addresses by --address", all[i].title(), by)
				b.notes = append(b.notes, all[i].Notes...)
				continue
			}
		}
		b.frontend(&all[i])
		b.notes = append(b.notes, all[i].Notes...)
	}
	if o.WriteClass && len(b.objects) > 0 {
		b.notes = append(b.notes, Note{Effect: Changed, Text: firewall})
		b.objects = slices.Insert(b.objects, 0, Object{Value: &gwv1.GatewayClass{
			TypeMeta: gatewayKind("GatewayClass"), ObjectMeta: metav1.ObjectMeta{Name: b.options.Class},
			Spec: gwv1.GatewayClassSpec{ControllerName: gateway.ControllerName},
		}})
	}
	return b
}

// firewall holds for all that a host serves: whom its firewall kept from another program's sockets
// would get in.
const firewall = "rules of the host's INPUT hook, as of ufw or firewalld, do not hold for what Blixt serves: before clients move, write who may connect into sources.allow of a BlixtPolicy. See docs/firewall.md"

func gatewayKind(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: gwv1.GroupVersion.String(), Kind: kind}
}

// builder collects objects.
type builder struct {
	options  Options
	objects  []Object
	notes    []Note
	names    names
	gateways map[string]*sharedGateway // by namespace and the name that the source gives it
	pools    map[string]*pool          // by what is in them
	taken    map[string]*Frontend      // by address, port and protocol
	served   map[string]Place          // what all frontends say that they serve, by address, port and protocol
	ranges   portRanges                // of frontends at addresses that are named
	named    map[string]Place          // and those of them at addresses that are named, by port and protocol
	// gatewayOf are Gateways, namespace/name, by the index of the frontend in the plan.
	gatewayOf map[int]string
	size      int // servers and networks of all frontends
}

// everywhere reports whether a frontend has all of the host's addresses.
func (f *Frontend) everywhere() bool {
	return len(f.Addresses) == 0 || slices.ContainsFunc(f.Addresses, netip.Addr.IsUnspecified)
}

// place returns the port and the protocol.
func (f *Frontend) place() string { return fmt.Sprintf("%d/%s", f.Port, f.Protocol) }

// apart returns a frontend with all addresses of one family and some of the other one as two: a
// Gateway has all of the host's, or those that it names.
func (b *builder) apart(f Frontend) []Frontend {
	any4, any6 := slices.Contains(f.Addresses, netip.IPv4Unspecified()), slices.Contains(f.Addresses, netip.IPv6Unspecified())
	named := slices.DeleteFunc(slices.Clone(f.Addresses), func(a netip.Addr) bool { return a.Is4() && any4 || a.Is6() && any6 })
	if len(b.options.Addresses) > 0 || !any4 && !any6 {
		return []Frontend{f}
	}
	f.Addresses = slices.DeleteFunc(slices.Clone(f.Addresses), func(a netip.Addr) bool { return !a.IsUnspecified() }) // the others are among all
	if len(named) == 0 {
		return []Frontend{f}
	}
	other := f
	other.Gateway, other.Addresses, other.Notes = "", named, nil
	f.Gateway = ""
	return []Frontend{f, other}
}

// maxFrontends bounds the objects: there are some for each one.
const maxFrontends = 100_000

// maxSize bounds servers and networks of all frontends together: each one may name all of them.
const maxSize = 1_000_000

func (b *builder) add(f *Frontend, o KubeObject) {
	b.objects = append(b.objects, Object{From: []Place{f.Place}, Value: o})
}

// frontend adds the objects of a frontend, or a note why there are none.
func (b *builder) frontend(f *Frontend) {
	f.Namespace = cmp.Or(f.Namespace, b.options.Namespace)
	first := len(b.objects)
	b.size += len(f.Backends)
	if s := f.Policy.Sources; s != nil {
		b.size += len(s.Allow) + len(s.Deny)
	}
	if b.size > maxSize {
		f.Note(f.Place, Lost, "%s is not served: it and what comes before it have more than %s servers and networks: read fewer files at once", f.title(), phrase.Number(maxSize))
		return
	}
	if !f.possible() || !b.choosePlaces(f) || !f.checkPolicy() {
		return
	}
	refs := b.refs(f)
	if len(refs) == 0 {
		return
	}
	proto := strings.ToLower(string(f.Protocol))
	name := valid(cmp.Or(f.Name, fmt.Sprintf("%s-%d", proto, f.Port)))
	name = b.names.take("frontend/"+f.routeNamespace(), name, name+"-"+proto, fmt.Sprintf("%s-%s-%d", name, proto, f.Port))
	parent := b.listener(f, name)
	route := b.route(f, name, parent, refs)
	b.policies(f, name, parent, route, refs)
	b.servers(f)
	if first < len(b.objects) {
		b.objects[first].Notes = f.Notes
	}
}

// possible reports whether a frontend has what every one needs.
func (f *Frontend) possible() bool {
	switch {
	case f.Protocol != corev1.ProtocolTCP && f.Protocol != corev1.ProtocolUDP:
		f.Note(f.Place, Lost, "%s: protocol %s is not served: Blixt serves TCP and UDP", f.Name, f.Protocol)
	case f.Port == 0:
		f.Note(f.Place, Lost, "%s has no port: give its listener one", f.Name)
	case f.EndPort != 0 && f.EndPort < f.Port:
		f.Note(f.Place, Lost, "%s: ports %d-%d are no range: its last port comes before its first one", f.Name, f.Port, f.EndPort)
	default:
		return true
	}
	return false
}

// family returns that of an address, such as IPv4.
func family(addr netip.Addr) string {
	if addr.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// choosePlaces makes the addresses of a frontend those that its Gateway has, and removes
// backends that no client would reach. It reports whether anything is left.
func (b *builder) choosePlaces(f *Frontend) bool {
	f.Backends = slices.Clone(f.Backends)
	f.Backends = slices.DeleteFunc(f.Backends, func(s Backend) bool {
		why := gateway.InvalidAddress(s.Addr)
		if why == "" && s.Addr.IsLinkLocalUnicast() {
			why = "it is a link-local address, which means something on one interface only"
		}
		if s.Addr.IsLoopback() {
			why += ": have the server listen on an address of an interface, and write that one"
		}
		to := netip.AddrPortFrom(s.Addr, cmp.Or(s.Port, f.Port))
		if by, is := b.served[fmt.Sprintf("%s/%s", to, f.Protocol)]; is && why == "" {
			why = fmt.Sprintf("Blixt would serve this address itself, for %s, and packets would loop: write the servers that it leads to", by)
		}
		if why != "" {
			f.Note(s.Place, Lost, "server %s is left out: %s", s, why)
		}
		return why != ""
	})
	given := len(f.Addresses) > 0
	wanted, addresses := b.addresses(f)
	if given && len(addresses) == 0 {
		return false // it must not be at all addresses instead
	}
	have := map[string]bool{}
	for _, s := range f.Backends {
		have[family(s.Addr)] = true
	}
	if len(f.Services) == 0 && len(f.Backends) == 0 {
		f.Note(f.Place, Lost, "%s is not served: it has no server that Blixt can reach", f.title())
		return false
	}
	if len(f.Services) == 0 && len(wanted) > 0 {
		for _, w := range []string{"IPv4", "IPv6"} {
			if wanted[w] && !have[w] {
				f.Note(f.Place, Lost, "%s is not served to clients of %s addresses: none of its servers has one, and Blixt does not translate between the families: add such servers", f.title(), w)
				addresses = slices.DeleteFunc(addresses, func(a netip.Addr) bool { return family(a) == w })
				delete(wanted, w)
			}
		}
		f.Backends = slices.DeleteFunc(f.Backends, func(s Backend) bool {
			out := !wanted[family(s.Addr)]
			if out {
				f.Note(s.Place, Lost, "server %s is left out: no client of %s reaches it, as Blixt does not translate between IPv4 and IPv6: add an address of its family", s, f.title())
			}
			return out
		})
		if len(wanted) == 0 {
			return false
		}
	}
	f.Addresses = slices.DeleteFunc(addresses, netip.Addr.IsUnspecified)
	return !b.reserved(f) && b.takePlaces(f)
}

// addresses returns the valid addresses of a frontend, and their families; of none, if the
// frontend does not say any.
func (b *builder) addresses(f *Frontend) (wanted map[string]bool, all []netip.Addr) {
	wanted = map[string]bool{}
	given := f.Addresses
	if len(given) == 0 {
		given = b.options.Addresses
	}
	for _, a := range given {
		if !a.IsUnspecified() {
			if why := gateway.InvalidAddress(a); why != "" {
				f.Note(f.Place, Lost, "%s is not served at address %s: %s", f.title(), a, why)
				continue
			}
		}
		wanted[family(a)] = true
		if !a.IsUnspecified() || len(b.options.Addresses) == 0 {
			all = append(all, a)
			continue
		}
		before := len(all)
		for _, o := range b.options.Addresses {
			if family(o) == family(a) {
				all = append(all, o)
			}
		}
		if len(all) == before {
			f.Note(f.Place, Lost, "%s is not served to clients of %s addresses, as no --address is one", f.title(), family(a))
			delete(wanted, family(a))
		}
	}
	if slices.ContainsFunc(all, netip.Addr.IsUnspecified) {
		all = slices.DeleteFunc(all, func(a netip.Addr) bool { return !a.IsUnspecified() }) // they are among all
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return wanted, slices.Compact(all)
}

// takePlaces removes the addresses where another frontend has the port. It reports whether
// anything is left.
func (b *builder) takePlaces(f *Frontend) bool {
	key := func(a netip.Addr) string {
		if !a.IsValid() { // all of the host; of one Gateway in a cluster
			return fmt.Sprintf("%s/%s/%d/%s", f.Namespace, f.Gateway, f.Port, f.Protocol)
		}
		return fmt.Sprintf("%s/%d/%s", a, f.Port, f.Protocol)
	}
	places := f.Addresses
	if len(places) == 0 {
		places = []netip.Addr{{}}
	}
	free := slices.DeleteFunc(slices.Clone(places), func(a netip.Addr) bool {
		first := b.taken[key(a)]
		if first == nil {
			b.taken[key(a)] = f
			return false
		}
		f.Note(f.Place, Lost, "%s is served by what is at %s already: choose another port or address", f.title(), first.Place)
		return true
	})
	if len(f.Addresses) > 0 {
		f.Addresses = free
	}
	return len(free) > 0
}

// title names a frontend in notes.
func (f *Frontend) title() string {
	port := fmt.Sprint(f.Port)
	if f.EndPort > f.Port {
		port = fmt.Sprintf("%d-%d", f.Port, f.EndPort)
	}
	text := fmt.Sprintf("%s port %s", f.Protocol, port)
	var all []string
	for _, a := range f.Addresses {
		if !a.IsUnspecified() {
			all = append(all, a.String())
		}
	}
	if len(all) > 0 {
		text += " of " + phrase.Sample(all)
	}
	return text
}

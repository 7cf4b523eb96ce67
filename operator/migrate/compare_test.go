// SPDX-License-Identifier: Apache-2.0

package migrate_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/migratetest"
)

// compared returns the rows of a plan in words.
func compared(t *testing.T, p *migrate.Plan, o migrate.Options) string {
	t.Helper()
	objects, notes := p.Objects(o)
	text, err := migrate.YAML(objects, notes)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := migrate.Compare(p, o, text)
	if err != nil {
		t.Fatal(err)
	}
	side := func(s *migrate.Side) string {
		if s == nil {
			return "nobody"
		}
		var all []string
		for _, x := range s.Servers {
			all = append(all, fmt.Sprintf("%s %g %t", x.Address, x.Share, x.Backup))
		}
		return fmt.Sprintf("%d %s", s.Last, strings.Join(all, ", "))
	}
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "%s %t | %s | %s\n", r.Frontend, r.Same, side(r.Was), side(r.Will))
	}
	return b.String()
}

// The two sides are the same where all is carried over, and differ where it is not.
func TestCompare(t *testing.T) {
	weighted := servers(8080, "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
	weighted[1].Weight, weighted[2].Weight, weighted[3].Backup = 3, 0, true
	frontend := func(addresses []string, port uint16, backends []migrate.Backend) migrate.Frontend {
		return migrate.Frontend{Place: at(1), Name: "web", Protocol: corev1.ProtocolTCP, Addresses: addrs(addresses...), Port: port, Backends: backends}
	}
	unserved := frontend([]string{"192.0.2.10"}, 443, servers(443, "10.0.0.1"))
	unserved.Unserved = true
	ranged := frontend([]string{"192.0.2.10"}, 1000, servers(0, "10.0.0.1"))
	ranged.EndPort = 1999
	p := &migrate.Plan{Frontends: []migrate.Frontend{
		frontend([]string{"192.0.2.10"}, 80, weighted),
		frontend([]string{"0.0.0.0"}, 81, servers(80, "10.0.0.1", "127.0.0.1")),
		frontend([]string{"192.0.2.10"}, 82, servers(80, "127.0.0.1")),
		unserved, ranged,
	}}
	got := compared(t, p, migratetest.Host)
	want := `0.0.0.0:81/tcp false | 0 10.0.0.1:80 50 false, 127.0.0.1:80 50 false | 0 10.0.0.1:80 100 false
192.0.2.10:1000/tcp true | 1999 10.0.0.1:1000 100 false | 1999 10.0.0.1:1000 100 false
192.0.2.10:443/tcp false | 0 10.0.0.1:443 100 false | nobody
192.0.2.10:80/tcp true | 0 10.0.0.1:8080 25 false, 10.0.0.2:8080 75 false, 10.0.0.3:8080 0 false, 10.0.0.4:8080 100 true | 0 10.0.0.1:8080 25 false, 10.0.0.2:8080 75 false, 10.0.0.3:8080 0 false, 10.0.0.4:8080 100 true
192.0.2.10:82/tcp false | 0 127.0.0.1:80 100 false | nobody
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Of a cluster, Services are compared.
func TestCompareServices(t *testing.T) {
	service := corev1.Service{}
	service.Namespace, service.Name = "games", "game"
	service.Spec.Ports = []corev1.ServicePort{{Protocol: corev1.ProtocolUDP, Port: 7777}}
	p := &migrate.Plan{Known: []corev1.Service{service}, Frontends: []migrate.Frontend{{
		Place: at(1), Name: "game", Namespace: "games", Protocol: corev1.ProtocolUDP, Addresses: addrs("192.0.2.10"), Port: 7777,
		Services: []migrate.Service{{Name: "game", Port: 7777}},
	}}}
	got := compared(t, p, migrate.Options{})
	if want := "192.0.2.10:7777/udp true | 0 games/game:7777 100 false | 0 games/game:7777 100 false\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
}

// A Service that was not read is taken to exist, with each of its ports. One that was read has the
// ports that it has.
func TestCompareServicesThatWereNotRead(t *testing.T) {
	read := corev1.Service{}
	read.Namespace, read.Name = "web", "site"
	read.Spec.Ports = []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: 80}}
	p := &migrate.Plan{Known: []corev1.Service{read}}
	add := func(port uint16, protocol corev1.Protocol, namespace, name string) {
		p.Frontends = append(p.Frontends, migrate.Frontend{
			Place: at(int(port)), Name: name, Gateway: "edge", Protocol: protocol, Port: port,
			Services: []migrate.Service{{Namespace: namespace, Name: name, Port: port}},
		})
	}
	add(5432, corev1.ProtocolTCP, "db", "postgres")
	add(9187, corev1.ProtocolTCP, "db", "postgres")
	add(53, corev1.ProtocolUDP, "", "dns")
	add(80, corev1.ProtocolTCP, "web", "site")
	add(81, corev1.ProtocolTCP, "web", "site")
	got := compared(t, p, migrate.Options{Namespace: "ingress"})
	want := `ingress/edge:53/udp true | 0 ingress/dns:53 100 false | 0 ingress/dns:53 100 false
ingress/edge:5432/tcp true | 0 db/postgres:5432 100 false | 0 db/postgres:5432 100 false
ingress/edge:80/tcp true | 0 web/site:80 100 false | 0 web/site:80 100 false
ingress/edge:81/tcp false | 0 web/site:81 100 false | nobody
ingress/edge:9187/tcp true | 0 db/postgres:9187 100 false | 0 db/postgres:9187 100 false
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Services that get their addresses from the cluster have rows of their own, also of one port.
func TestCompareServicesWithoutAddresses(t *testing.T) {
	p := &migrate.Plan{}
	for _, name := range []string{"chess", "go", "Go"} {
		service := corev1.Service{}
		service.Namespace, service.Name = "games", name
		service.Spec.Ports = []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, Port: 80}}
		p.Known = append(p.Known, service)
		p.Frontends = append(p.Frontends, migrate.Frontend{
			Place: at(1), Name: name, Gateway: name, Namespace: "games", Protocol: corev1.ProtocolTCP, Port: 80, Services: []migrate.Service{{Name: name, Port: 80}},
		})
	}
	p.Frontends[1].Unserved = true
	again := p.Frontends[0]
	again.Place = at(2)
	p.Frontends = append(p.Frontends, again)
	got := compared(t, p, migrate.Options{})
	want := `games/chess:80/tcp true | 0 games/chess:80 100 false | 0 games/chess:80 100 false
games/chess:80/tcp of lb.conf:2 false | 0 games/chess:80 100 false | nobody
games/go:80/tcp true | 0 games/Go:80 100 false | 0 games/Go:80 100 false
games/go:80/tcp of lb.conf:1 false | 0 games/go:80 100 false | nobody
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Who may connect and how long a connection lasts are compared.
func TestCompareSourcesAndTimeouts(t *testing.T) {
	p := &migrate.Plan{}
	add := func(port uint16, idle time.Duration, sources *v1alpha1.PolicySources) {
		f := migrate.Frontend{Place: at(1), Name: "web", Protocol: corev1.ProtocolTCP, Addresses: addrs("192.0.2.10"), Port: port, Backends: servers(80, "10.0.0.1")}
		f.Policy.Sources = sources
		if idle > 0 {
			f.Policy.IdleTimeout = &v1alpha1.PolicyIdleTimeout{TCP: &metav1.Duration{Duration: idle}}
		}
		p.Frontends = append(p.Frontends, f)
	}
	add(80, 0, nil)
	add(81, 10*time.Minute, &v1alpha1.PolicySources{Allow: []string{"10.0.0.0/8", "fd00::/8"}, Deny: []string{"10.1.0.0/16"}})
	add(82, time.Second, nil) // less than a policy can have
	objects, notes := p.Objects(migratetest.Host)
	text, err := migrate.YAML(objects, notes)
	if err != nil {
		t.Fatal(err)
	}
	check := func(text string, want ...string) {
		t.Helper()
		rows, err := migrate.Compare(p, migratetest.Host, text)
		if err != nil || len(rows) != len(want) {
			t.Fatalf("%v, rows %v", err, rows)
		}
		for i, r := range rows {
			side := func(s *migrate.Side) string { return fmt.Sprintf("%v %s", s.Sources, s.Idle) }
			if got := fmt.Sprint(r.Same, " ", side(r.Was), " ", side(r.Will)); got != want[i] {
				t.Errorf("got %s want %s", got, want[i])
			}
		}
	}
	lists := "&{[10.0.0.0/8 fd00::/8] [10.1.0.0/16]} 10m"
	check(text, "true <nil>  <nil> 2h15m", "true "+lists+" "+lists, "false <nil> 1s <nil> 10s")
	// Somebody has changed the file: the list is wider, and the time-out is another one.
	wider := strings.NewReplacer("- 10.1.0.0/16", "- 10.2.0.0/16", "10s", "20s").Replace(text)
	check(wider, "true <nil>  <nil> 2h15m", "false "+lists+" &{[10.0.0.0/8 fd00::/8] [10.2.0.0/16]} 10m", "false <nil> 1s <nil> 20s")
}

// What is served at one bad address is not served at all of the host's instead.
func TestBadAddressIsNotAllAddresses(t *testing.T) {
	for _, o := range []migrate.Options{{WriteClass: true}, {WriteClass: true, Addresses: addrs("2001:db8::10")}} {
		p := &migrate.Plan{Frontends: []migrate.Frontend{
			{Place: at(1), Name: "web", Protocol: corev1.ProtocolTCP, Addresses: addrs("127.0.0.1"), Port: 80, Backends: servers(80, "10.0.0.1", "fd00::1")},
		}}
		if o.Addresses != nil { // no IPv4 address to stand for all of them
			p.Frontends[0].Addresses = addrs("0.0.0.0")
		}
		objects, notes := p.Objects(o)
		if len(objects) > 0 || !migrate.Loses(notes) {
			t.Errorf("%d objects, notes %v", len(objects), notes)
		}
	}
}

// A port or a range at all of the host's addresses is not served beside a range at one of them
// that has some of its ports. A listener of one port comes before a range, and both are served.
func TestRangesBesideAllAddresses(t *testing.T) {
	frontend := func(line int, address string, port, end uint16) migrate.Frontend {
		return migrate.Frontend{Place: at(line), Name: "web", Protocol: corev1.ProtocolTCP, Addresses: addrs(address), Port: port, EndPort: end, Backends: servers(0, "10.0.0.1")}
	}
	for name, c := range map[string]struct {
		everywhere, named [2]uint16
		lost              bool
	}{
		"a port in the range":     {[2]uint16{1500, 1500}, [2]uint16{1000, 1999}, true},
		"ranges that overlap":     {[2]uint16{1900, 2900}, [2]uint16{1000, 1999}, true},
		"a range with the port":   {[2]uint16{1000, 1999}, [2]uint16{1500, 1500}, false},
		"ranges side by side":     {[2]uint16{2000, 2999}, [2]uint16{1000, 1999}, false},
		"the same first port":     {[2]uint16{1000, 1999}, [2]uint16{1000, 1000}, true},
		"a port behind the range": {[2]uint16{2000, 2000}, [2]uint16{1000, 1999}, false},
	} {
		p := &migrate.Plan{Frontends: []migrate.Frontend{
			frontend(1, "0.0.0.0", c.everywhere[0], c.everywhere[1]), frontend(2, "192.0.2.10", c.named[0], c.named[1]),
		}}
		_, notes := migratetest.Written(t, migratetest.Host, p)
		if lost := strings.Contains(notes, "lb.conf:1: lost: "); lost != c.lost {
			t.Errorf("%s: lost %t: %s", name, lost, notes)
		}
	}
}

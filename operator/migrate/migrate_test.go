// SPDX-License-Identifier: Apache-2.0

package migrate_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
	"github.com/kubernetes-sigs/blixt/operator/migrate/migratetest"
)

func at(line int) migrate.Place { return migrate.Place{File: "lb.conf", Line: line} }

func addrs(texts ...string) (all []netip.Addr) {
	for _, t := range texts {
		all = append(all, netip.MustParseAddr(t))
	}
	return all
}

// servers returns backends that differ in their lines.
func servers(port uint16, texts ...string) (all []migrate.Backend) {
	for i, a := range addrs(texts...) {
		all = append(all, migrate.Backend{Place: at(100 + i), Addr: a, Port: port, Weight: 1})
	}
	return all
}

// The files show all that a plan can say.
func TestWritten(t *testing.T) {
	weighted := servers(8080, "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
	weighted[1].Weight, weighted[2].Weight, weighted[3].Backup = 3, 0, true
	timeouts := v1alpha1.BlixtPolicySpec{IdleTimeout: &v1alpha1.PolicyIdleTimeout{TCP: &metav1.Duration{Duration: time.Second}}}
	for name, p := range map[string]*migrate.Plan{
		"weights": {Frontends: []migrate.Frontend{{
			Place: at(1), Name: "Web Site", Pool: "app_servers", Protocol: corev1.ProtocolTCP, Addresses: addrs("192.0.2.10"), Port: 80,
			Backends: weighted, Policy: timeouts,
			Notes: []migrate.Note{{Place: at(2), Effect: migrate.Changed, Text: "a note\nin two lines"}},
		}}, Notes: []migrate.Note{{Place: at(9), Effect: migrate.Unneeded, Text: "worker_connections 1024"}}},
		"dns": {Frontends: []migrate.Frontend{
			{Place: at(1), Name: "dns", Pool: "resolvers", Protocol: corev1.ProtocolTCP, Port: 53, Backends: servers(0, "10.0.0.1", "fd00::1")},
			{Place: at(2), Name: "dns", Pool: "resolvers", Protocol: corev1.ProtocolUDP, Port: 53, Backends: servers(0, "10.0.0.1", "fd00::1")},
		}},
		"range": {Frontends: []migrate.Frontend{
			{Place: at(1), Name: "rtp", Protocol: corev1.ProtocolUDP, Addresses: addrs("192.0.2.10"), Port: 10000, EndPort: 10999, Backends: servers(0, "10.0.0.1")},
			{Place: at(2), Name: "rtp", Protocol: corev1.ProtocolUDP, Addresses: addrs("192.0.2.10"), Port: 20000, EndPort: 20999, Backends: servers(30000, "10.0.0.1")},
		}},
		"families": {Frontends: []migrate.Frontend{
			{Place: at(1), Name: "web", Protocol: corev1.ProtocolTCP, Addresses: addrs("0.0.0.0", "::"), Port: 80, Backends: servers(80, "10.0.0.1", "127.0.0.1", "fe80::1")},
			{Place: at(5), Name: "v6", Protocol: corev1.ProtocolTCP, Addresses: addrs("2001:db8::10", "224.0.0.1"), Port: 80, Backends: servers(80, "10.0.0.1", "fd00::1")},
			{Place: at(9), Name: "again", Protocol: corev1.ProtocolTCP, Addresses: addrs("2001:db8::10"), Port: 80, Backends: servers(80, "fd00::1")},
		}},
		"nothing": {Notes: []migrate.Note{{Place: at(1), Effect: migrate.Lost, Text: "ssl"}}},
	} {
		t.Run(name, func(t *testing.T) {
			text, notes := migratetest.Written(t, migratetest.Host, p)
			golden.File(t, "testdata/"+name+".out.yaml", []byte(text))
			golden.File(t, "testdata/"+name+".notes", []byte(notes))
		})
	}
}

// Frontends of one Gateway are its listeners, beyond 64 those of ListenerSets. A route is in the
// namespace of its first Service, and those of other namespaces are granted.
func TestServicesOfACluster(t *testing.T) {
	p := &migrate.Plan{}
	for port := uint16(1000); port < 1066; port++ {
		p.Frontends = append(p.Frontends, migrate.Frontend{
			Place: at(int(port)), Name: "game", Gateway: "edge", Namespace: "ingress", Protocol: corev1.ProtocolUDP, Port: port,
			Services: []migrate.Service{{Namespace: "games", Name: "game", Port: 7777}},
		})
	}
	last := &p.Frontends[len(p.Frontends)-1]
	last.Services = append(last.Services, migrate.Service{Namespace: "lobby", Name: "lobby", Port: 7777, Weight: 3})
	last.Policy.Affinity = &v1alpha1.PolicyAffinity{Type: v1alpha1.AffinityClientAddress}
	for i := range p.Frontends {
		p.Frontends[i].Annotations, p.Frontends[i].Labels = map[string]string{"metallb.io/address-pool": "edge"}, map[string]string{"team": "games"}
		p.Frontends[i].Config = v1alpha1.BlixtGatewayConfigSpec{ExternalTrafficPolicy: v1alpha1.TrafficPolicyLocal}
	}
	text, notes := migratetest.Written(t, migrate.Options{}, p)
	if notes != "" {
		t.Errorf("notes: %s", notes)
	}
	golden.File(t, "testdata/services.out.yaml", []byte(text))
}

// A firewall in front of another program's sockets is not in front of Blixt. Who moves a host is
// told so first, once, and not as a loss. There is no such firewall in a cluster, nor where
// nothing is served.
func TestFirewallOfTheHostIsNamed(t *testing.T) {
	served := &migrate.Plan{Frontends: []migrate.Frontend{
		{Place: at(1), Name: "web", Protocol: corev1.ProtocolTCP, Port: 80, Backends: servers(80, "10.0.0.1")},
		{Place: at(2), Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53, Backends: servers(53, "10.0.0.1")},
	}}
	const said = "do not hold for what Blixt serves"
	text, notes := migratetest.Written(t, migratetest.Host, served)
	if !strings.HasPrefix(text, "# changed: rules of the host's INPUT hook") || strings.Count(text, said) != 1 {
		t.Errorf("the head of the file does not say it once:\n%s", text)
	}
	if !strings.HasPrefix(notes, "changed: rules of the host's INPUT hook") || strings.Count(notes, said) != 1 {
		t.Errorf("the first note does not say it: %s", notes)
	}
	if _, all := served.Objects(migratetest.Host); migrate.Loses(all) {
		t.Errorf("it is no loss: %v", all)
	}
	for name, c := range map[string]struct {
		plan *migrate.Plan
		o    migrate.Options
	}{
		"a cluster": {served, migrate.Options{}},
		"nothing":   {&migrate.Plan{}, migratetest.Host},
	} {
		if text, notes := migratetest.Written(t, c.o, c.plan); strings.Contains(text+notes, said) {
			t.Errorf("%s: %s", name, notes)
		}
	}
}

// One field that is not valid takes no other one along, but nobody is let in whom networks keep out.
func TestPolicyKeepsWhatIsValid(t *testing.T) {
	hour := &metav1.Duration{Duration: time.Hour}
	policy := func(http v1alpha1.HTTPCheck, deny ...string) v1alpha1.BlixtPolicySpec {
		p := v1alpha1.BlixtPolicySpec{
			IdleTimeout: &v1alpha1.PolicyIdleTimeout{TCP: hour},
			Limits:      &v1alpha1.PolicyLimits{},
			Health:      &v1alpha1.PolicyHealth{Active: &v1alpha1.ActiveHealth{Type: v1alpha1.CheckHTTP, HTTP: &http}},
		}
		if len(deny) > 0 {
			p.Sources = &v1alpha1.PolicySources{Deny: deny}
		}
		return p
	}
	p := &migrate.Plan{Frontends: []migrate.Frontend{
		{Place: at(1), Name: "check", Protocol: corev1.ProtocolTCP, Addresses: addrs("192.0.2.10"), Port: 80, Backends: servers(80, "10.0.0.1"), Policy: policy(v1alpha1.HTTPCheck{Path: "/", Host: "a b"})},
		{Place: at(2), Name: "denied", Protocol: corev1.ProtocolTCP, Addresses: addrs("192.0.2.10"), Port: 81, Backends: servers(80, "10.0.0.1"), Policy: policy(v1alpha1.HTTPCheck{Path: "/"}, "everybody")},
	}}
	text, notes := migratetest.Written(t, migratetest.Host, p)
	golden.File(t, "testdata/invalid.out.yaml", []byte(text))
	golden.File(t, "testdata/invalid.notes", []byte(notes))
}

// A plan without end is refused, whether its frontends are many or become many.
func TestPlansThatAreTooLarge(t *testing.T) {
	for name, c := range map[string]struct{ frontends, ports int }{"many": {100_001, 1}, "ranges": {2_000, 64}} {
		p := &migrate.Plan{}
		for i := range c.frontends {
			p.Frontends = append(p.Frontends, migrate.Frontend{Place: at(i), Name: "web", Protocol: corev1.ProtocolTCP, Port: 20000, EndPort: uint16(20000 + c.ports - 1), Backends: servers(0, "10.0.0.1")})
		}
		text, notes := migratetest.Written(t, migratetest.Host, p)
		if !p.Broken || notes != "lost: more than 100,000 ports would be served: give fewer files\n" || strings.Contains(text, "kind:") {
			t.Errorf("%s: %s", name, notes)
		}
	}
}

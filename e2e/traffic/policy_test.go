// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// What somebody hears who opens a connection, or sends a datagram.
const (
	answered = "answered"
	nothing  = "nothing"
	wasReset = "reset"
)

// hears returns what a client hears from a local address; "": any.
func hears(w *labtest.World, n *lab.Node, network, local, remote string) string {
	w.Helper()
	if local == "" && network == "udp" {
		local = net.JoinHostPort(own(n, familyOf(remote)), "0")
	}
	var late net.Error
	c, err := n.Dial(network, local, remote, silentFor)
	if err == nil {
		defer c.Close()
		_, err = lab.Ask(c, "hello", silentFor)
	}
	switch {
	case err == nil:
		return answered
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return wasReset
	case errors.As(err, &late) && late.Timeout():
		return nothing
	}
	w.Fatalf("%s to %s: %v", network, remote, err)
	return ""
}

// silentFor is how long nothing means that nothing comes.
const silentFor = 700 * time.Millisecond

func familyOf(addr string) int {
	if strings.HasPrefix(addr, "[") {
		return 6
	}
	return 4
}

// both returns the routes of a port, as targets.
func routesOf(port int) []string {
	return []string{fmt.Sprintf("TCPRoute service-%d", port), fmt.Sprintf("UDPRoute service-%d", port)}
}

// TestSourcesAreAdmitted asks with lists of each kind for TCP and UDP, IPv4 and IPv6.
func TestSourcesAreAdmitted(t *testing.T) {
	w := labtest.New(t, "admit", 1, 1)
	cases := []struct {
		spec                   string
		tcp4, udp4, tcp6, udp6 string
	}{
		{"sources: {allow: [10.66.0.0/24, 'fd66::/64']}", answered, answered, answered, answered},
		{"sources: {allow: [10.66.0.0/24]}", answered, answered, nothing, nothing},
		{"sources: {allow: [192.0.2.0/24], action: Reset}", wasReset, nothing, wasReset, nothing},
		{"sources: {deny: [10.66.0.2/32]}", nothing, nothing, answered, answered},
		{"sources: {deny: ['fd66::2/128'], action: Reset}", answered, answered, wasReset, nothing},
		{"sources: {allow: [10.66.0.0/24, 'fd66::2/128'], deny: [10.0.0.0/8, 'fd66::/64']}", answered, answered, answered, answered},
		{"sources: {deny: ['::/0']}", answered, answered, nothing, nothing},
		{"mode: DryRun\nsources: {deny: [0.0.0.0/0, '::/0']}", answered, answered, answered, answered},
	}
	services := map[int][]lab.Endpoint{}
	var policies []lab.Policy
	for i, c := range cases {
		services[90+i] = append(lab.Endpoints(8080, w.Backends...), lab.On("balancer", lab.Endpoints(8080, w.Pods...))...)
		policies = append(policies, lab.Policy{Name: fmt.Sprintf("policy-%d", i), Targets: routesOf(90 + i), Spec: c.spec})
	}
	config := labtest.ConfigOf(services)
	config.Policies = policies
	w.StartBlixt(config)
	before := w.Status()
	t.Run("", func(t *testing.T) {
		for i, c := range cases {
			for _, probe := range []struct {
				network string
				family  int
				want    string
			}{{"tcp", 4, c.tcp4}, {"udp", 4, c.udp4}, {"tcp", 6, c.tcp6}, {"udp", 6, c.udp6}} {
				t.Run(fmt.Sprintf("%s/%s%d", c.spec, probe.network, probe.family), func(t *testing.T) {
					t.Parallel()
					w := w.In(t)
					if got := hears(w, w.Client, probe.network, "", labtest.VIP(probe.family, 90+i)); got != probe.want {
						t.Errorf("%s, want %s", got, probe.want)
					}
				})
			}
		}
	})
	if n := labtest.Rise(before, w.Status(), "reject_source"); n < 12 {
		t.Errorf("%d packets were refused for their source, want one of each client at least", n)
	}
	w.CheckChecksums()
}

// TestDeniedSourceIsReset adds a source to a list while clients are connected: its
// connections end within a second, and those of others go on.
func TestDeniedSourceIsReset(t *testing.T) {
	w := labtest.New(t, "denied", 2, 0)
	w.Client.IP("address add 10.66.0.66/24 dev eth0", "address add fd66::66/64 dev eth0 nodad preferred_lft 0")
	w.Check(w.Err())
	config := labtest.ConfigOf(map[int][]lab.Endpoint{90: lab.Endpoints(8080, w.Backends...)})
	w.StartBlixt(config)
	others := map[string]*labtest.Clients{}
	for _, network := range []string{"tcp", "udp"} {
		others[network] = w.StartClients(40, network, labtest.VIP(4, 90), labtest.VIP(6, 90))
	}
	var denied []net.Conn
	for family, local := range map[int]string{4: "10.66.0.66:0", 6: "[fd66::66]:0"} {
		for range 20 {
			c, err := w.Client.Dial("tcp", local, labtest.VIP(family, 90), labtest.Patience)
			w.Check(err)
			w.Cleanup(func() { _ = c.Close() })
			w.Ask(c, "hello")
			denied = append(denied, c)
		}
	}
	udp, err := w.Client.Dial("udp", "10.66.0.66:0", labtest.VIP(4, 90), labtest.Patience)
	w.Check(err)
	w.Ask(udp, "hello")
	config.Policies = []lab.Policy{{Name: "deny", Targets: []string{"Gateway vip"}, Spec: "sources: {deny: [10.66.0.66/32, 'fd66::66/128']}"}}
	w.Check(w.Blixt.Apply(config))
	applied := time.Now()
	for _, c := range denied {
		// It says nothing, and hears that the connection has ended.
		w.Check(c.SetReadDeadline(applied.Add(2 * labtest.Patience)))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("a denied connection says %v, want a reset", err)
		}
	}
	t.Logf("connections of the denied source have ended %v after Blixt was told", time.Since(applied))
	if took := time.Since(applied); took > labtest.Seconds(1.5) {
		t.Errorf("that took %v, want a second at most", took)
	}
	// The same sweep ends the flows of UDP, after those of TCP.
	w.Check(lab.Eventually(labtest.Seconds(1.5), func() error {
		if _, err := lab.Ask(udp, "again", silentFor); err == nil {
			return errors.New("a denied UDP client is answered")
		}
		return nil
	}))
	for family, local := range map[int]string{4: "10.66.0.66:0", 6: "[fd66::66]:0"} {
		if got := hears(w, w.Client, "tcp", local, labtest.VIP(family, 90)); got != nothing {
			t.Errorf("a new connection of the denied source: %s", got)
		}
	}
	for network, c := range others {
		c.AwaitRound()
		c.CheckUnharmed(network + " of others")
	}
	// Without the policy it is served again, and nothing is left of it.
	config.Policies = nil
	w.Check(w.Blixt.Apply(config))
	if got := hears(w, w.Client, "tcp", "10.66.0.66:0", labtest.VIP(4, 90)); got != answered {
		t.Errorf("without the policy: %s", got)
	}
	w.Check(lab.Eventually(2*labtest.Patience, func() error {
		for _, table := range []string{"policies", "sources"} {
			if use := w.Status().Tables[table]; use.Used != 0 || use.Size == 0 {
				return fmt.Errorf("table %s: %+v", table, use)
			}
		}
		return nil
	}))
}

// TestSetIsSwapped replaces 10,000 networks under new connections that both lists allow: none
// is refused at any moment.
func TestSetIsSwapped(t *testing.T) {
	w := labtest.New(t, "swap", 2, 0)
	config := labtest.ConfigOf(map[int][]lab.Endpoint{90: lab.Endpoints(8080, w.Backends...)})
	list := func(n int) []lab.Policy {
		networks := []string{"10.66.0.0/24", "'fd66::/64'"}
		for i := range 9998 {
			networks = append(networks, fmt.Sprintf("172.%d.%d.%d/32", 16+n, i>>8, i&255))
		}
		return []lab.Policy{{Name: "large", Targets: routesOf(90), Spec: "sources: {allow: [" + strings.Join(networks, ", ") + "]}"}}
	}
	config.Policies = list(0)
	w.StartBlixt(config)
	before := w.Status()
	var stop atomic.Bool
	var opened atomic.Int64
	done := make(chan error, 8)
	for i := range 8 {
		network, family := []string{"tcp", "udp"}[i%2], []int{4, 6}[i/2%2]
		go func() {
			for !stop.Load() {
				c, err := w.Client.Dial(network, net.JoinHostPort(own(w.Client, family), "0"), labtest.VIP(family, 90), labtest.Patience)
				if err == nil {
					if _, err = lab.Ask(c, "hello", labtest.Patience/4); err != nil && network == "udp" {
						_, err = lab.Ask(c, "hello again", labtest.Patience) // a datagram may get lost
					}
					_ = c.Close()
				}
				if err != nil {
					done <- fmt.Errorf("%s%d: %w", network, family, err)
					return
				}
				opened.Add(1)
			}
			done <- nil
		}()
	}
	for n := 1; n <= 6; n++ {
		config.Policies = list(n % 2)
		w.Check(w.Blixt.Apply(config))
	}
	stop.Store(true)
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := labtest.Rise(before, w.Status(), "reject_source"); n > 0 {
		t.Errorf("%d packets of allowed sources were refused", n)
	}
	t.Logf("%d connections while the list was replaced 6 times", opened.Load())
}

// TestLimits opens more than limits allow. Who is over them hears nothing, and others do not
// notice.
func TestLimits(t *testing.T) {
	w := labtest.New(t, "limits", 2, 0)
	w.Client.IP("address add 10.66.0.66/24 dev eth0")
	w.Check(w.Err())
	config := labtest.ConfigOf(map[int][]lab.Endpoint{90: lab.Endpoints(8080, w.Backends...), 91: lab.Endpoints(8080, w.Backends...), 92: lab.Endpoints(8080, w.Backends...)})
	config.Policies = []lab.Policy{
		{Name: "concurrent", Targets: routesOf(90), Spec: "limits: {perSource: {concurrent: 5}, action: Reset}"},
		{Name: "rate", Targets: routesOf(91), Spec: "limits: {perSource: {newPerSecond: 1, burst: 10}, action: Reset}"},
		{Name: "total", Targets: routesOf(92), Spec: "limits: {total: {newPerSecond: 1, burst: 10}, action: Reset}"},
	}
	w.StartBlixt(config)
	t.Run("concurrent", func(t *testing.T) {
		w := w.In(t)
		var open []net.Conn
		for range 5 {
			c := w.Dial(w.Client, "tcp", labtest.VIP(4, 90))
			w.Ask(c, "hello")
			open = append(open, c)
		}
		if got := hears(w, w.Client, "tcp", "", labtest.VIP(4, 90)); got != wasReset {
			t.Errorf("the sixth connection: %s", got)
		}
		if got := hears(w, w.Client, "tcp", "10.66.0.66:0", labtest.VIP(4, 90)); got != answered {
			t.Errorf("of another source: %s", got)
		}
		w.Check(open[0].Close())
		w.Check(lab.Eventually(labtest.Patience, func() error {
			if got := hears(w, w.Client, "tcp", "", labtest.VIP(4, 90)); got != answered {
				return fmt.Errorf("one of five has ended: %s", got)
			}
			return nil
		}))
	})
	for port, name := range map[int]string{91: "of a source", 92: "in all"} {
		t.Run("new "+name, func(t *testing.T) {
			w, got := w.In(t), map[string]int{}
			began := time.Now()
			for range 30 {
				got[hears(w, w.Client, "tcp", "", labtest.VIP(4, port))]++
			}
			most := 10 + int(time.Since(began)/time.Second) + 1
			if got[answered] < 10 || got[answered] > most || got[wasReset] != 30-got[answered] {
				t.Errorf("of 30 connections: %v, want 10 to %d answered", got, most)
			}
			want := map[int]string{91: answered, 92: wasReset}[port]
			if other := hears(w, w.Client, "tcp", "10.66.0.66:0", labtest.VIP(4, port)); other != want {
				t.Errorf("another source: %s, want %s", other, want)
			}
		})
	}
	var names []string
	for _, p := range w.Status().Policies {
		names = append(names, p.Policy+" of "+p.Target)
		refused := uint64(0)
		for _, n := range p.Refused {
			refused += n
		}
		if strings.HasPrefix(p.Target, "TCPRoute/") == (refused == 0) {
			t.Errorf("%s of %s: %d connections were refused: %v", p.Policy, p.Target, refused, p.Refused)
		}
	}
	if !slices.Contains(names, "default/rate of TCPRoute/default/service-91") || len(names) != 6 {
		t.Errorf("status has the policies %v", names)
	}
}

// TestIdleTimeoutOfAPolicy: that of TCP and that of UDP differ.
func TestIdleTimeoutOfAPolicy(t *testing.T) {
	w := labtest.New(t, "policyidle", 1, 0)
	config := labtest.ConfigOf(map[int][]lab.Endpoint{90: lab.Endpoints(8080, w.Backends...)})
	config.Policies = []lab.Policy{{Name: "idle", Targets: []string{"Gateway vip"}, Spec: "idleTimeout: {tcp: 1h, udp: 7s}"}}
	w.StartBlixt(config)
	for network, want := range map[string]string{"tcp": "1h0m", "udp": "8s"} { // in ticks, rounded up
		if got := w.Frontend(w.Status(), network, labtest.VIP(4, 90)).IdleTimeout; !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", network, got, want)
		}
	}
}

// TestListHasNoRoom fills the table: a policy whose list was in force keeps it, and one that is new
// refuses all.
func TestListHasNoRoom(t *testing.T) {
	w := labtest.New(t, "noroom", 1, 0)
	const large = 28
	services := map[int][]lab.Endpoint{}
	for port := 90; port < 90+large+2; port++ {
		services[port] = lab.Endpoints(8080, w.Backends...)
	}
	config := labtest.ConfigOf(services)
	list := func(n int, first string, size int) lab.Policy {
		networks := []string{first}
		for i := range size - 1 {
			networks = append(networks, fmt.Sprintf("172.%d.%d.%d/32", 16+n, i>>8, i&255))
		}
		return lab.Policy{Name: fmt.Sprintf("large-%02d", n), Targets: routesOf(90 + n)[:1], Spec: "sources: {deny: [" + strings.Join(networks, ", ") + "]}"}
	}
	for n := range large {
		config.Policies = append(config.Policies, list(n, "192.0.2.0/24", 10000))
	}
	w.StartBlixt(config)
	for _, port := range []int{90, 90 + large} {
		if got := hears(w, w.Client, "tcp", "", labtest.VIP(4, port)); got != answered {
			t.Fatalf("port %d: %s", port, got)
		}
	}
	// The first one changes and would deny the client; another one is new.
	config.Policies[0] = list(0, "10.66.0.2/32", 10000)
	config.Policies = append(config.Policies, list(large, "192.0.2.0/24", 10000))
	w.Check(w.Blixt.Apply(config))
	if got := hears(w, w.Client, "tcp", "", labtest.VIP(4, 90)); got != answered {
		t.Errorf("the list that was in force is not any more: %s", got)
	}
	before := w.Status()
	if got := hears(w, w.Client, "tcp", "", labtest.VIP(4, 90+large)); got != nothing || labtest.Rise(before, w.Status(), "reject_unenforced") == 0 {
		t.Errorf("a route whose list was never in force: %s", got)
	}
	if got := hears(w, w.Client, "tcp", "", labtest.VIP(4, 91+large)); got != answered {
		t.Errorf("a route without a policy: %s", got)
	}
	if log := w.Blixt.Log(); !strings.Contains(log, "table sources has no room for all of the policies") {
		t.Errorf("the log does not say so:\n%s", log)
	}
	// There is room again.
	config.Policies = slices.Concat(config.Policies[:1], config.Policies[3:])
	w.Check(w.Blixt.Apply(config))
	w.Check(lab.Eventually(4*labtest.Patience, func() error {
		first, last := hears(w, w.Client, "tcp", "", labtest.VIP(4, 90)), hears(w, w.Client, "tcp", "", labtest.VIP(4, 90+large))
		if first != nothing || last != answered {
			return fmt.Errorf("with room for both, the first says %s, the new one %s", first, last)
		}
		return nil
	}))
}

// TestPodsAreAsked: pods of this node are asked by their own address, as anybody else, also one
// that reaches itself.
func TestPodsAreAsked(t *testing.T) {
	w := labtest.New(t, "podsasked", 0, 2)
	config := labtest.ConfigOf(map[int][]lab.Endpoint{
		90: lab.On("balancer", lab.Endpoints(8080, w.Pods[0])), 91: lab.On("balancer", lab.Endpoints(8080, w.Pods[0])),
	})
	config.Policies = []lab.Policy{
		{Name: "no-pods", Targets: routesOf(90), Spec: "sources: {allow: [10.66.0.0/24, 'fd66::/64']}"},
		{Name: "one-pod", Targets: routesOf(91), Spec: "sources: {allow: [10.88.0.11/32, 'fd88::11/128']}"},
	}
	w.StartBlixt(config)
	for _, family := range []int{4, 6} {
		for _, network := range []string{"tcp", "udp"} {
			for _, c := range []struct {
				who  *lab.Node
				port int
				want string
			}{{w.Client, 90, answered}, {w.Pods[0], 90, nothing}, {w.Pods[1], 90, nothing}, {w.Client, 91, nothing}, {w.Pods[0], 91, answered}, {w.Pods[1], 91, nothing}} {
				t.Run(fmt.Sprintf("%s%d of %s to port %d", network, family, c.who.Name, c.port), func(t *testing.T) {
					t.Parallel()
					if got := hears(w.In(t), c.who, network, "", labtest.VIP(family, c.port)); got != c.want {
						t.Errorf("%s, want %s", got, c.want)
					}
				})
			}
		}
	}
}

// TestIperfMeetsLimits: iperf3 makes two connections for each run, so its second run is refused.
func TestIperfMeetsLimits(t *testing.T) {
	w := labtest.New(t, "iperflimits", 1, 0)
	_, err := w.Backends[0].Daemon("iperf3", "--server", "--port", "5201")
	w.Check(err)
	w.Check(listening(w.Backends[0], 5201))
	config := labtest.ConfigOf(map[int][]lab.Endpoint{5201: lab.Endpoints(5201, w.Backends[0])})
	config.Policies = []lab.Policy{{Name: "two", Targets: routesOf(5201), Spec: "sources: {allow: [10.66.0.0/24]}\nlimits: {perSource: {newPerSecond: 1, burst: 2, concurrent: 2}, action: Reset}"}}
	w.StartBlixt(config)
	run := func() (string, error) {
		return w.Client.Run(4*labtest.Patience, "iperf3", "--client", lab.VIP4, "--port", "5201", "--time", "1", "--connect-timeout", "2000")
	}
	if out, err := run(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	before := w.Status()
	refused := 0
	for range 3 { // a token comes back each second
		if _, err := run(); err != nil {
			refused++
		}
	}
	if refused == 0 || labtest.Rise(before, w.Status(), "reject_rate") == 0 {
		t.Errorf("%d runs were refused, and %d segments", refused, labtest.Rise(before, w.Status(), "reject_rate"))
	}
}

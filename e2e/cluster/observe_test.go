// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// TestObservability has an administrator look at a cluster whose clients are known to
// the last one: what commands and metrics say is what clients have done.
func TestObservability(t *testing.T) {
	install(t)
	awaitLinks(t, uplinks()...)
	applyUntilEnd(t, "seen.yaml", "NAME", "server")
	vips := awaitProgrammed(t, "server")
	awaitSeen(t)
	a := administrator{t, builtBlixt(t)}

	routeAddresses(t, vips, c.Nodes[0])
	a.wantNothingRecorded(vips)
	kubectl(t, "patch", "blixtgatewayconfig", "server", "--type=merge", "-p", `{"spec":{"flowRecords":"Enabled"}}`)
	a.awaitRecords(vips)
	t.Run("flows and metrics", func(t *testing.T) { a.with(t).testTraffic(vips) })
	t.Run("drops", func(t *testing.T) { a.with(t).testDrops(vips) })
	t.Run("trace", func(t *testing.T) { a.with(t).testTrace(vips) })
	t.Run("top", func(t *testing.T) { a.with(t).testTop(vips) })
	t.Run("status", func(t *testing.T) { a.with(t).testStatus() })
	t.Run("one without the right", func(t *testing.T) { a.with(t).testNoRight() })
	t.Run("sysdump", func(t *testing.T) { a.with(t).testSysdump() })
}

// administrator uses commands as people do.
type administrator struct {
	*testing.T
	blixt string
}

func (a administrator) with(t *testing.T) administrator { a.T = t; return a }

// run runs a command in the cluster, and returns what it prints.
func (a administrator) run(args ...string) (stdout, stderr string, err error) {
	a.Helper()
	ctx, cancel := context.WithTimeout(a.Context(), patience)
	defer cancel()
	var out, warnings bytes.Buffer
	cmd := exec.CommandContext(ctx, a.blixt, append(args, "--kubeconfig", c.Kubeconfig())...)
	cmd.Stdout, cmd.Stderr = &out, &warnings
	err = cmd.Run()
	return out.String(), warnings.String(), err
}

func (a administrator) must(args ...string) string {
	a.Helper()
	out, warnings, err := a.run(args...)
	if err != nil {
		a.Fatalf("blixt %s: %v\n%s%s", strings.Join(args, " "), err, out, warnings)
	}
	return out
}

// records are what blixt flows tells of flows that have ended, of clients outside.
func (a administrator) records(args ...string) (all []observe.Record) {
	a.Helper()
	out := a.must(append([]string{"flows", "--event", "end", "--last", "0", "--open=false", "-o", "json"}, args...)...)
	for line := range strings.Lines(out) {
		var r observe.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			a.Fatalf("%v: %s", err, line)
		}
		all = append(all, r)
	}
	return all
}

// connect has n clients outside ask by TCP, and returns their addresses and ports by those of
// the servers that they have got.
func (a administrator) connect(addr string, n int) (clients []netip.AddrPort) {
	a.Helper()
	first := ports(n)
	if _, err := (asker{dial: usual}).askFrom(a.T, first, "tcp", addr, n); err != nil {
		a.Error(err)
	}
	vip, _, _ := net.SplitHostPort(addr)
	for i := range n {
		clients = append(clients, netip.AddrPortFrom(netip.MustParseAddr(usual.ip(vip)), uint16(first+i)))
	}
	return clients
}

func (a administrator) wantNothingRecorded(vips []string) {
	a.Helper()
	started := time.Now().Format(time.RFC3339Nano)
	a.connect(net.JoinHostPort(vips[0], "80"), 3)
	if got := a.records("--since", started); len(got) > 0 {
		a.Errorf("nobody has asked for records, got %+v", got)
	}
}

// awaitRecords waits until flows are recorded on every node.
func (a administrator) awaitRecords(vips []string) {
	a.Helper()
	for _, by := range c.Nodes {
		routeAddresses(a.T, vips, by)
		kube.Wait(a.T, patience, "a flow is recorded on "+by.Name, true, func() (bool, error) {
			started := time.Now()
			client := a.connect(net.JoinHostPort(vips[0], "80"), 1)[0]
			for range 20 {
				if slices.ContainsFunc(a.records("--node", by.Name, "--since", started.Format(time.RFC3339Nano)), func(r observe.Record) bool { return at(r.Client) == client }) {
					return true, nil
				}
				time.Sleep(100 * time.Millisecond)
			}
			return false, nil
		})
	}
}

func at(e observe.Endpoint) netip.AddrPort { return netip.AddrPortFrom(e.Address, e.Port) }

// testTraffic sends known traffic by each node, and compares it with what is told.
func (a administrator) testTraffic(vips []string) {
	const n = 40
	started := time.Now().Format(time.RFC3339Nano)
	before := a.scrape()
	want := map[string]int{} // by node and listener
	clients := map[netip.AddrPort]string{}
	for _, by := range c.Nodes {
		routeAddresses(a.T, vips, by)
		for _, vip := range vips {
			for _, client := range a.connect(net.JoinHostPort(vip, "80"), n) {
				clients[client] = by.Name
			}
			want[by.Name] += n
		}
	}
	got := map[string]int{}
	snats := map[string]observe.Record{}
	kube.Wait(a.T, patience, "records", cmp.Diff(want, want), func() (string, error) {
		clear(got)
		missing := maps.Clone(clients)
		for _, r := range a.records("--route", "server", "--since", started) {
			by, ours := clients[at(r.Client)]
			if !ours {
				continue
			}
			got[r.Node]++
			delete(missing, at(r.Client))
			if err := a.check(r, by); err != nil {
				return "", err
			}
			if r.SNAT != nil {
				snats[at(*r.SNAT).String()] = r
			}
		}
		diff := cmp.Diff(want, got)
		if len(missing) <= 2 { // did they not end, or is the record lost?
			for client, by := range missing {
				events, warnings, _ := a.run("flows", "--client", client.Addr().String(), "--since", started, "--last", "0", "-o", "json")
				diff += fmt.Sprintf("no end of %s by %s, of whose address there are:\n%s%s", client, by, events, warnings)
			}
		}
		return diff, nil
	})

	// Who was behind this address and port?
	asked := 0
	for source, r := range snats {
		if asked++; asked > 5 {
			break
		}
		again := a.records(source, "--until", r.Time.Add(time.Second).Format(time.RFC3339Nano))
		if !slices.ContainsFunc(again, func(o observe.Record) bool { return at(o.Client) == at(r.Client) }) {
			a.Errorf("behind %s was %v, got %+v", source, at(r.Client), again)
		}
	}
	if len(snats) == 0 {
		a.Error("no record names a source that was translated to")
	}

	kube.Wait(a.T, patience, "metrics", "", func() (string, error) {
		after := a.scrape()
		told := map[string]int{}
		refs := map[string]int{}
		latencies := 0
		for _, node := range slices.Sorted(maps.Keys(want)) {
			told[node] = after.sum(node, "blixt_frontend_connections_total", `listener="tcp"`, `gateway="server"`, `protocol="tcp"`) -
				before.sum(node, "blixt_frontend_connections_total", `listener="tcp"`, `gateway="server"`, `protocol="tcp"`)
			refs[node] = after.sum(node, "blixt_backend_connections_total", `route="server"`, `protocol="tcp"`) - before.sum(node, "blixt_backend_connections_total", `route="server"`, `protocol="tcp"`)
			latencies += after.sum(node, "blixt_backend_connect_duration_seconds_count", `route="server"`) - before.sum(node, "blixt_backend_connect_duration_seconds_count", `route="server"`)
		}
		total := 0
		for _, n := range want {
			total += n
		}
		if latencies != total {
			return fmt.Sprintf("%d connections have their latency counted, want %d; connections of frontends: %v, of backends: %v", latencies, total, told, refs), nil
		}
		return cmp.Diff(want, told) + cmp.Diff(want, refs), nil
	})
}

// check checks one record.
func (a administrator) check(r observe.Record, node string) error {
	switch {
	case r.Node != node:
		return fmt.Errorf("record of node %s, want %s: %+v", r.Node, node, r)
	case r.Gateway != "default/server" || r.Listener != "tcp" || r.Route != "TCPRoute/default/server" || r.Service != "default/server" || r.Protocol != "tcp":
		return fmt.Errorf("names of %+v", r)
	case r.Backend == nil || r.In == nil || r.Out == nil || r.In.Packets < 3 || r.Out.Packets < 2 || r.In.Bytes < 120:
		return fmt.Errorf("backend and counts of %+v", r)
	case r.Reason != "fin" && r.Reason != "reset":
		return fmt.Errorf("reason of %+v", r)
	case r.Connect <= 0 || r.Connect > 30 || r.Duration <= 0 || time.Since(r.Time) > time.Hour || time.Until(r.Time) > time.Second:
		return fmt.Errorf("times of %+v", r)
	}
	return nil
}

// pages are the metrics of agents by node.
type pages map[string]string

// scrape reads the metrics of all agents, as Prometheus does.
func (a administrator) scrape() pages {
	a.Helper()
	var secret corev1.Secret
	if err := c.Client.Get(a.Context(), client.ObjectKey{Namespace: "blixt-system", Name: "blixt-metrics"}, &secret); err != nil {
		a.Fatal(err)
	}
	var pods corev1.PodList
	if err := c.Client.List(a.Context(), &pods, client.InNamespace("blixt-system"), client.MatchingLabels{"app.kubernetes.io/component": "agent"}); err != nil {
		a.Fatal(err)
	}
	all := pages{}
	for _, p := range pods.Items {
		m := machineOf(a.T, p.Spec.NodeName)
		transport := &http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
			return m.Dial(network, "", addr, patience)
		}}
		request, err := http.NewRequestWithContext(a.Context(), http.MethodGet, "http://"+net.JoinHostPort(p.Status.PodIP, "8082")+"/metrics", nil)
		if err != nil {
			a.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+string(secret.Data["token"]))
		response, err := (&http.Client{Transport: transport}).Do(request)
		if err != nil {
			a.Fatal(err)
		}
		page, err := io.ReadAll(response.Body)
		if err = errors.Join(err, response.Body.Close()); err != nil || response.StatusCode != http.StatusOK {
			a.Fatalf("metrics of %s: %v, %s: %s", p.Name, err, response.Status, page)
		}
		all[p.Spec.NodeName] += string(page)
	}
	return all
}

func machineOf(t *testing.T, node string) *cluster.Machine {
	t.Helper()
	for _, m := range c.Nodes {
		if m.Name == node {
			return m
		}
	}
	t.Fatalf("no machine is node %s", node)
	return nil
}

var sample = regexp.MustCompile(`^([a-z_]+)\{(.*)\} (\S+)$`)

// sum adds the values of a metric that has all these labels.
func (p pages) sum(node, name string, labels ...string) (total int) {
	for line := range strings.Lines(p[node]) {
		m := sample.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil || m[1] != name || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(m[2], l) }) {
			continue
		}
		v, _ := strconv.ParseFloat(m[3], 64)
		total += int(v)
	}
	return total
}

// testDrops sends packets that nobody serves.
func (a administrator) testDrops(vips []string) {
	for _, vip := range vips {
		if conn, err := usual.Dial("tcp", "", net.JoinHostPort(vip, "81"), patience); err == nil {
			_ = conn.Close()
			a.Errorf("port 81 of %s is served", vip)
		}
	}
	kube.Wait(a.T, patience, "a packet that was rejected", true, func() (bool, error) {
		out := a.must("drops")
		return strings.Contains(out, "reject_unserved") && strings.Contains(out, usual.ip(vips[0])) && strings.Contains(out, net.JoinHostPort(vips[0], "81")), nil
	})
}

// testTrace asks where connections would go, makes them, and compares.
func (a administrator) testTrace(vips []string) {
	by, started := c.Nodes[0], time.Now()
	routeAddresses(a.T, vips, by)
	for _, vip := range vips {
		addr := net.JoinHostPort(vip, "80")
		first := ports(8)
		for i := range 8 {
			from := netip.AddrPortFrom(netip.MustParseAddr(usual.ip(vip)), uint16(first+i))
			out := a.must("trace", from.String(), addr+"/tcp", "--node", by.Name)
			if _, err := (asker{dial: usual}).askFrom(a.T, first+i, "tcp", addr, 1); err != nil {
				a.Error(err)
			}
			var got []observe.Record
			kube.Wait(a.T, patience, "its record", true, func() (bool, error) {
				got = a.records("--client", from.String(), "--node", by.Name, "--since", started.Format(time.RFC3339Nano))
				return len(got) == 1, nil
			})
			if backend := at(*got[0].Backend).String(); !strings.Contains(out, backend) {
				a.Errorf("%v to %s went to %s, and trace said\n%s", from, addr, backend, out)
			}
		}
	}
}

func (a administrator) testTop(vips []string) {
	conn, err := usual.Dial("tcp", "", net.JoinHostPort(vips[0], "8082"), patience) // clients are those of flows that last
	if err != nil {
		a.Fatal(err)
	}
	defer conn.Close()
	for _, what := range []string{"frontends", "backends", "clients"} {
		if out := a.must("top", what, "--watch=false"); len(strings.Split(out, "\n")) < 3 {
			a.Errorf("blixt top %s:\n%s", what, out)
		}
	}
	if out := a.must("top", "frontends", "--watch=false"); !strings.Contains(out, vips[0]) {
		a.Errorf("blixt top frontends lacks %s:\n%s", vips[0], out)
	}
}

func (a administrator) testStatus() {
	out, warnings, err := a.run("status")
	a.Logf("%s%s", out, warnings)
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) { // installBlixt signs nothing, of which doctor warns
		a.Errorf("blixt status: %v", err)
	}
	for _, want := range []string{c.Nodes[0].Name, c.Nodes[1].Name} {
		if !strings.Contains(out, want) && !strings.Contains(out, "2/2") && !strings.Contains(out, "2 of 2") {
			a.Errorf("blixt status does not tell of node %s:\n%s", want, out)
		}
	}
	if n := len(strings.Split(strings.TrimSpace(out), "\n")); n > 24 {
		a.Errorf("blixt status has %d lines", n)
	}
}

// testNoRight asks as a user who may read pods, and nothing of Blixt.
func (a administrator) testNoRight() {
	out, warnings, err := a.run("flows", "--as=nobody")
	if err == nil && out != "" {
		a.Errorf("got %s, want that nobody has the right", out)
	}
	a.Logf("%v: %s%s", err, out, warnings)
}

func (a administrator) testSysdump() {
	file := a.TempDir() + "/dump.tar.gz"
	a.must("sysdump", "--output-file", file)
	list, err := exec.CommandContext(a.Context(), "tar", "tzf", file).Output()
	if err != nil {
		a.Fatal(err)
	}
	for _, want := range []string{"index.json", c.Nodes[0].Name, c.Nodes[1].Name} {
		if !bytes.Contains(list, []byte(want)) {
			a.Errorf("the archive lacks %s:\n%s", want, list)
		}
	}
	content, err := exec.CommandContext(a.Context(), "tar", "xzOf", file).Output()
	if err != nil {
		a.Fatal(err)
	}
	for _, client := range []string{usual.ipv4, usual.ipv6} {
		if bytes.Contains(content, []byte(client)) {
			a.Errorf("the archive names client %s", client)
		}
	}
}

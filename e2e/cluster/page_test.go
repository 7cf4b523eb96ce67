// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/page"
)

// pageNamed is a name by which browsers reach the operator's page.
const pageNamed = "page.example.com"

// wrongGateway wants an address that nobody has to give.
const wrongGateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: zzz, namespace: default}
spec:
  gatewayClassName: blixt
  addresses: [{type: IPAddress, value: 203.0.113.200}]
  listeners: [{name: http, protocol: TCP, port: 80}]
`

// TestPage looks at the page of a cluster, as blixt page shows it with the rights of a
// kubeconfig, and as the operator shows it to those who have a token.
func TestPage(t *testing.T) {
	install(t, "--set=page.enabled=true,page.hosts={"+pageNamed+"}")
	awaitLinks(t, uplinks()...)
	applyUntilEnd(t, "seen.yaml", "NAME", "server")
	if err := c.ApplyYAML(t.Context(), []byte(wrongGateway)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Kubectl(context.Background(), "delete", "gateway", "zzz") }) // it serves nothing
	vips := awaitProgrammed(t, "server")
	a := administrator{t, builtBlixt(t)}
	mine, operators := a.startPage(), a.operatorsPage(c.Nodes[0])
	for name, r := range map[string]*pageReader{"blixt page": mine, "the operator": operators} {
		t.Run(name, func(t *testing.T) { r.with(t).testView(vips) })
		t.Run("somebody else at "+name, func(t *testing.T) { r.with(t).testStrangers() })
	}
	t.Run("by the API server's proxy", func(t *testing.T) { a.with(t).testProxy() })
	t.Run("a node that is away", func(t *testing.T) {
		testNodeAway(t, mine.with(t))
	})
	t.Run("a leader that ends", func(t *testing.T) {
		testLeaderEnds(t, mine.with(t), operators.with(t))
	})
}

// pageReader reads a page.
type pageReader struct {
	administrator
	url, token string
	client     *http.Client
}

func (r *pageReader) with(t *testing.T) *pageReader {
	other := *r
	other.T = t
	return &other
}

// startPage runs blixt page until the test ends.
func (a administrator) startPage() *pageReader {
	a.Helper()
	cmd := exec.CommandContext(a.Context(), a.blixt, "page", "--http-address=127.0.0.1:0", "--kubeconfig="+c.Kubeconfig())
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		a.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		a.Fatal(err)
	}
	a.Cleanup(func() { _ = cmd.Wait() }) // it was interrupted
	line, err := bufio.NewReader(out).ReadString('\n')
	url, token, is := strings.Cut(strings.TrimSpace(line), "#token=")
	if err != nil || !is {
		a.Fatalf("blixt page prints %q, %v", line, err)
	}
	return &pageReader{administrator: a, url: url, token: token, client: &http.Client{}}
}

// operatorsPage returns who reads the operator's page from a node, as an ingress
// controller does: by the Service, and with a certificate that the CA has signed.
func (a administrator) operatorsPage(from *cluster.Machine) *pageReader {
	a.Helper()
	get := func(args ...string) string {
		out, err := c.Kubectl(a.Context(), append([]string{"-n", v1alpha1.Namespace}, args...)...)
		if err != nil {
			a.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(get("get", "configmap", v1alpha1.CAConfigMap, "-o", `jsonpath={.data.ca\.crt}`)))
	ip := get("get", "service", v1alpha1.PageService, "-o", "jsonpath={.spec.clusterIP}")
	transport := &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13},
		DialContext: func(_ context.Context, network, _ string) (net.Conn, error) {
			return from.Dial(network, "", net.JoinHostPort(ip, "8460"), 10*time.Second)
		},
	}
	return &pageReader{
		administrator: a, url: "https://" + pageNamed + "/", client: &http.Client{Transport: transport},
		token: get("create", "token", v1alpha1.ObserverAccount, "--audience="+v1alpha1.ObserveAudience),
	}
}

// get asks for a path; the token may be "".
func (r *pageReader) get(ctx context.Context, path, token string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+path, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	return r.client.Do(request)
}

// view returns what the page shows, and how long that took.
func (r *pageReader) view() (v page.View, took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	began := time.Now()
	response, err := r.get(ctx, "api/view", r.token)
	if err != nil {
		return v, 0, err
	}
	text, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, text)
	}
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	return v, time.Since(began), err
}

// testView has clients ask, and looks for that on the page, below what is wrong.
func (r *pageReader) testView(vips []string) {
	routeAddresses(r.T, vips, c.Nodes[0])
	kube.Wait(r.T, patience, "what the page shows", "", func() (string, error) {
		r.connect(net.JoinHostPort(vips[0], "80"), 5)
		v, took, err := r.view()
		if err != nil {
			return "", err
		}
		switch server := find(v, "default/server"); {
		case v.Kind != "cluster" || v.NodesAll != 2 || len(v.Nodes) != 2 || len(v.Versions) != 1:
			return fmt.Sprintf("%s with nodes %+v", v.Kind, v.Nodes), nil
		case v.All != 2 || v.Gateways[0].Name != "default/zzz" || !strings.Contains(v.Gateways[0].Problem, "203.0.113.200"):
			return fmt.Sprintf("what is wrong does not come first: %+v", v.Gateways), nil
		case server == nil || server.Problem != "" || len(server.Listeners) != 4:
			return fmt.Sprintf("Gateway server: %+v", server), nil
		case server.Listeners[0].Route != "TCPRoute/default/server" || len(server.Listeners[0].Services) != 1 || server.Listeners[0].Services[0].Ready == 0:
			return fmt.Sprintf("listener of server: %+v", server.Listeners[0]), nil
		case v.Totals.Frontends == 0 || v.Totals.Gateways != 2 || len(v.Unanswered) > 0:
			return fmt.Sprintf("totals %+v, unanswered %v", v.Totals, v.Unanswered), nil
		case server.Listeners[0].Services[0].Seen == 0:
			return "no flow of the clients is counted", nil
		}
		r.Logf("a look took %v", took)
		return "", nil
	})
}

func find(v page.View, gateway string) *page.Gateway {
	for i := range v.Gateways {
		if v.Gateways[i].Name == gateway {
			return &v.Gateways[i]
		}
	}
	return nil
}

// testStrangers looks without a right.
func (r *pageReader) testStrangers() {
	other, err := c.Kubectl(r.Context(), "-n", "default", "create", "token", "default", "--audience="+v1alpha1.ObserveAudience)
	if err != nil {
		r.Fatal(err)
	}
	of := map[string]int{"": http.StatusUnauthorized, "a.b.c": http.StatusUnauthorized, strings.TrimSpace(other): http.StatusForbidden}
	if !strings.HasPrefix(r.url, "https") { // its token is of blixt page alone
		of[strings.TrimSpace(other)] = http.StatusUnauthorized
	}
	for token, want := range of {
		response, err := r.get(r.Context(), "events", token)
		if err != nil {
			r.Fatal(err)
		}
		text, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if response.StatusCode != want || strings.Contains(string(text), "default/server") {
			r.Errorf("token %.10q: %s: %s, want %d", token, response.Status, text, want)
		}
	}
}

// testProxy gets the page by the API server's proxy, which puts a path before it.
func (a administrator) testProxy() {
	pod, _ := leader(a.T)
	out, err := c.Kubectl(a.Context(), "get", "--raw", "/api/v1/namespaces/"+v1alpha1.Namespace+"/pods/https:"+pod+":8460/proxy/")
	if err != nil {
		a.Fatal(err)
	}
	if !strings.Contains(out, "<html") || strings.Contains(out, `src="/`) || strings.Contains(out, `href="/`) {
		a.Errorf("the page has paths that begin at the root, or is none:\n%s", out)
	}
}

// leader returns the pod that leads, and its node.
func leader(t *testing.T) (pod, node string) {
	t.Helper()
	holder, err := c.Kubectl(t.Context(), "-n", v1alpha1.Namespace, "get", "lease", v1alpha1.Operator, "-o", "jsonpath={.spec.holderIdentity}")
	if err != nil {
		t.Fatal(err)
	}
	pod, _, _ = strings.Cut(holder, "_")
	node, err = c.Kubectl(t.Context(), "-n", v1alpha1.Namespace, "get", "pod", pod, "-o", "jsonpath={.spec.nodeName}")
	if err != nil {
		t.Fatal(err)
	}
	return pod, strings.TrimSpace(node)
}

// testNodeAway unplugs a node that the leader is not on: it is named, and the others go on
// being shown in time.
func testNodeAway(t *testing.T, mine *pageReader) {
	_, by := leader(t)
	readers := []*pageReader{mine, mine.operatorsPage(machineOf(t, by))}
	var away *cluster.Machine
	for _, m := range c.Nodes {
		if m.Name != by {
			away = m
		}
	}
	if err := c.Unplug(away); err != nil {
		t.Fatal(err)
	}
	plug := func() error { return c.Plug(away) }
	defer func() {
		if err := plug(); err != nil {
			t.Error(err)
		}
	}()
	for _, r := range readers {
		kube.Wait(t, patience, "a node that is named at "+r.url, true, func() (bool, error) {
			v, took, err := r.view()
			if took > 6*time.Second {
				t.Errorf("a look took %v", took)
			}
			return v.Unanswered[away.Name] != "" && v.Unanswered[by] == "" && find(v, "default/server") != nil, err
		})
	}
	if err := plug(); err != nil {
		t.Fatal(err)
	}
	for _, r := range readers {
		kube.Wait(t, 2*patience, "a node that is back at "+r.url, 0, func() (int, error) {
			v, _, err := r.view()
			return len(v.Unanswered), err
		})
	}
}

// testLeaderEnds deletes the leader while people look.
func testLeaderEnds(t *testing.T, mine, operators *pageReader) {
	stream, err := mine.get(t.Context(), "events", mine.token)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	old, err := operators.get(t.Context(), "events", operators.token)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Body.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, old.Body)
		ended <- err
	}()
	pod, _ := leader(t)
	kubectl(t, "-n", v1alpha1.Namespace, "delete", "pod", pod, "--wait=false")
	began := time.Now()
	select {
	case err := <-ended:
		t.Logf("the stream of the leader has ended after %v: %v", time.Since(began), err)
	case <-time.After(patience):
		t.Error("the stream of a leader that has ended goes on")
	}
	kube.Wait(t, 2*patience, "the operator's page again", 0, func() (int, error) {
		v, _, err := operators.view()
		return len(v.Unanswered), err
	})
	t.Logf("the operator's page has all nodes again after %v", time.Since(began))
	// The stream of blixt page has gone on, and nodes answer again.
	lines := bufio.NewScanner(stream.Body)
	lines.Buffer(nil, 8<<20)
	deadline := time.AfterFunc(2*patience, func() { _ = stream.Body.Close() })
	defer deadline.Stop()
	after := time.Now()
	for lines.Scan() {
		var v page.View
		text, is := strings.CutPrefix(lines.Text(), "data: ")
		if is && json.Unmarshal([]byte(text), &v) == nil && v.V > 0 && v.Time.After(after) && len(v.Unanswered) == 0 {
			t.Logf("blixt page has all nodes again after %v", time.Since(began))
			return
		}
	}
	t.Errorf("the stream of blixt page has no nodes any more: %v", lines.Err())
}

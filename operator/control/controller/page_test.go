// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/admin/clusterpage"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/controller"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/page"
)

// badGateway wants an address that nobody has to give.
const badGateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: zzz, namespace: default}
spec:
  gatewayClassName: blixt
  addresses: [{type: IPAddress, value: 203.0.113.200}]
  listeners: [{name: http, protocol: TCP, port: 80}]
`

// browser looks at the page of a replica.
type browser struct {
	*operator
	address string // of the replica
	client  *http.Client
}

// browse returns a browser that knows the operator's CA.
func (o *operator) browse(address string) *browser {
	o.Helper()
	ca := named[corev1.ConfigMap](namespace, v1alpha1.CAConfigMap)
	o.eventually("CA", func() error { return o.kube.Get(o.Context(), client.ObjectKeyFromObject(ca), ca) })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ca.Data["ca.crt"]))
	jar, err := cookiejar.New(nil)
	o.must(err)
	b := &browser{operator: o, address: address}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, b.address)
		},
	}
	o.Cleanup(transport.CloseIdleConnections)
	b.client = &http.Client{Transport: transport, Jar: jar}
	return b
}

// get asks for a path, with a token unless it is "".
func (b *browser) get(host, path, token string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "https://page.test/"+path, nil)
	if err != nil {
		return nil, err
	}
	r.Host = host
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return b.client.Do(r)
}

// want returns an error unless there is an answer with a status and a text.
func (b *browser) want(host, path, token string, status int, text string) error {
	response, err := b.get(host, path, token)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode != status || !strings.Contains(string(body), text) {
		return fmt.Errorf("%s: %s: %s, want %d and %q", path, response.Status, body, status, text)
	}
	return nil
}

// view returns what the page shows.
func (b *browser) view(token string) (v page.View, err error) {
	response, err := b.get("page.test", "api/view", token)
	if err != nil {
		return v, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		return v, fmt.Errorf("%s: %s", response.Status, text)
	}
	return v, json.NewDecoder(response.Body).Decode(&v)
}

// token returns a token of a ServiceAccount.
func (o *operator) token(account, audience string) string {
	o.Helper()
	var spec authenticationv1.TokenRequestSpec
	if audience != "" {
		spec.Audiences = []string{audience}
	}
	token, err := server.Token(o.Context(), namespace, account, spec)
	o.must(err)
	return token
}

// pageReplica starts a replica with a page, whose pod has an address, and returns how to
// end it.
func (o *operator) pageReplica(pod, podIP, fleetAddress, pageAddress string) (stop func()) {
	o.Helper()
	self := named[corev1.Pod](namespace, pod)
	self.Spec.Containers = []corev1.Container{{Name: "operator", Image: "x"}}
	o.create(self)
	self.Status.PodIPs = []corev1.PodIP{{IP: podIP}, {IP: "fd00::9"}}
	self.Status.PodIP = podIP
	o.must(o.kube.Status().Update(o.Context(), self))
	return o.replica(fleetAddress, func(m *controller.ManagerOptions) {
		p := &clusterpage.Operator{Address: pageAddress, Hosts: []string{"page.test"}, Namespace: namespace, Version: "v1", Log: slog.New(slog.NewTextHandler(o.Output(), nil))}
		m.Pod, m.Page, m.PageNames = pod, p.Run, p.Hosts
	})
}

// leadsTo returns an error unless the Service of the page leads to an address.
func (o *operator) leadsTo(ip string) func() error {
	return func() error {
		slice := named[discoveryv1.EndpointSlice](namespace, v1alpha1.PageService+"-ipv4")
		if err := o.kube.Get(o.Context(), client.ObjectKeyFromObject(slice), slice); err != nil {
			return err
		}
		if len(slice.Endpoints) == 0 {
			return errors.New("the Service leads nowhere")
		}
		if got := slice.Endpoints[0].Addresses[0]; got != ip || *slice.Ports[0].Port != v1alpha1.PagePort || slice.Labels[discoveryv1.LabelServiceName] != v1alpha1.PageService {
			return fmt.Errorf("the Service leads to %s, want %s", got, ip)
		}
		return nil
	}
}

// TestPageOfTheOperator: the leader shows a page to those who may ask nodes, other replicas
// say who leads, and a stream of a leader that ends leads to the next one.
func TestPageOfTheOperator(t *testing.T) {
	o := prepare(t)
	o.must(grant())
	resolve(t, "127.0.0.1", "127.0.0.2")
	service := named[corev1.Service](namespace, v1alpha1.PageService)
	service.Spec.Ports = []corev1.ServicePort{{Name: "page", Port: v1alpha1.PagePort}}
	o.create(service, named[corev1.ServiceAccount](namespace, "nobody"))
	port, pagePort := o.freePort(), o.freePort()
	stop := o.pageReplica("operator-1", "10.9.0.1", "127.0.0.1:"+port, "127.0.0.1:"+pagePort)
	o.apply(kube.WebGateway + "---" + badGateway)
	o.loadKernel(firstCode, "n1", "n2")
	application := rollout.Name(firstCode)
	o.agent("n1", application, port)
	o.agent("n2", application, port)
	o.condition(named[gwv1.Gateway]("default", "web"), "Programmed", "True Programmed", "All nodes serve it.")
	o.pageReplica("operator-2", "10.9.0.2", "127.0.0.2:"+port, "127.0.0.2:"+pagePort)
	o.eventually("endpoint of the page", o.leadsTo("10.9.0.1"))

	observer := o.token(v1alpha1.ObserverAccount, v1alpha1.ObserveAudience)
	first, second := o.browse("127.0.0.1:"+pagePort), o.browse("127.0.0.2:"+pagePort)
	o.eventually("the page", func() error { return first.want("page.test", "", "", http.StatusOK, "<html") })
	for name, err := range map[string]error{
		"nobody has logged in":          first.want("page.test", "api/view", "", http.StatusUnauthorized, "log in"),
		"an invented token":             first.want("page.test", "api/view", "a.b.c", http.StatusUnauthorized, ""),
		"a token for the API server":    first.want("page.test", "api/view", o.token(v1alpha1.ObserverAccount, ""), http.StatusUnauthorized, ""),
		"somebody without the right":    first.want("page.test", "events", o.token("nobody", v1alpha1.ObserveAudience), http.StatusForbidden, "system:serviceaccount:"+namespace+":nobody may not"),
		"a name that leads here (DNS)":  first.want("evil.example.com", "", observer, http.StatusMisdirectedRequest, "evil.example.com"),
		"the other replica":             second.want("page.test", "api/view", observer, http.StatusServiceUnavailable, "the page is at pod "),
		"the other replica, by a guess": second.want("page.test", "", "", http.StatusServiceUnavailable, "does not lead"),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	o.eventually("what the page shows", func() error {
		v, err := first.view(observer)
		switch {
		case err != nil:
			return err
		case v.Kind != "cluster" || v.Version != "v1" || v.All != 2 || v.NodesAll != 2:
			return fmt.Errorf("%s of version %s with %d Gateways and %d nodes", v.Kind, v.Version, v.All, v.NodesAll)
		case v.Gateways[0].Name != "default/zzz" || v.Gateways[0].Problem == "" || v.Gateways[1].Name != "default/web":
			return fmt.Errorf("what is wrong does not come first: %+v", v.Gateways)
		case len(v.Gateways[1].Listeners) != 1 || v.Gateways[1].Listeners[0].Name != "http" || v.Gateways[1].Listeners[0].Routes[0] != "TCPRoute/default/web":
			return fmt.Errorf("listeners of web: %+v", v.Gateways[1].Listeners)
		case len(v.Unanswered) > 0 || v.Totals.Frontends == 0:
			return fmt.Errorf("unanswered %v, totals %+v", v.Unanswered, v.Totals)
		}
		return nil
	})

	// A browser logs in once, and has a stream.
	login, err := first.client.PostForm("https://page.test/login", url.Values{"token": {observer}})
	o.must(err)
	o.must(login.Body.Close())
	stream, err := first.get("page.test", "events", "")
	o.must(err)
	defer stream.Body.Close()
	if login.StatusCode != http.StatusNoContent || stream.StatusCode != http.StatusOK {
		t.Fatalf("login %s, stream %s", login.Status, stream.Status)
	}
	lines := bufio.NewScanner(stream.Body)
	lines.Buffer(nil, 4<<20)
	next := func(prefix string) string {
		for lines.Scan() {
			if text, is := strings.CutPrefix(lines.Text(), prefix); is {
				return text
			}
		}
		return ""
	}
	if event := next("event: "); event != "view" {
		t.Errorf("the stream begins with event %q", event)
	}
	stop()
	if o.leadsTo("10.9.0.1")() == nil {
		t.Error("the Service leads to a replica that has ended")
	}
	began := time.Now()
	for next("data: ") != "" && time.Since(began) < patience {
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the stream of a leader that has ended lasts for %v", took)
	}
	o.eventually("the page of the next leader", func() error { _, err := second.view(observer); return err })
	o.eventually("endpoint of the page", o.leadsTo("10.9.0.2"))
}

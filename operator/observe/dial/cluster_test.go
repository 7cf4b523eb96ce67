// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	ktesting "k8s.io/client-go/testing"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/ask"
	"github.com/kubernetes-sigs/blixt/operator/control/certs"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/observe/transport"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

var question = observe.Query{Status: &observe.StatusQuery{}}

// fleet is what a replica's agents answer.
type fleet func(nodes []string, send func(*wire.AskReply) error) error

func (f fleet) Ask(_ context.Context, _ observe.Query, nodes []string, send func(*wire.AskReply) error) error {
	return f(nodes, send)
}

// saysWho is a fleet that answers with the replica's name.
func saysWho(replica string) fleet {
	return func(nodes []string, send func(*wire.AskReply) error) error {
		text, err := json.Marshal(map[string]any{"replica": replica, "nodes": nodes})
		return errors.Join(err, send(&wire.AskReply{Node: "n1", Data: text, Last: true}), send(&wire.AskReply{Node: "n1", End: true}))
	}
}

// operators is a cluster with replicas of the operator.
type operators struct {
	*cluster
	kube     *fake.Clientset
	forbid   atomic.Pointer[string] // a resource
	allowed  atomic.Bool
	replicas map[string]string // addresses, by the pod's name
	forwards atomic.Int32
}

func newOperators(t *testing.T, replicas map[string]fleet) *operators {
	t.Helper()
	c, _, err := certs.Certificates{}.Renew(time.Now(), v1alpha1.Operator+".blixt.svc")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := c.Pair()
	if err != nil {
		t.Fatal(err)
	}
	o := &operators{replicas: map[string]string{}, kube: fake.NewClientset(
		&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "blixt", Name: v1alpha1.Operator}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "blixt", Name: v1alpha1.CAConfigMap}, Data: map[string]string{"ca.crt": string(c.Bundle())}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "blixt", Name: v1alpha1.ObserverAccount}},
	)}
	o.allowed.Store(true)
	o.kube.PrependReactor("*", "*", func(a ktesting.Action) (bool, runtime.Object, error) {
		resource := strings.TrimSuffix(a.GetResource().Resource+"/"+a.GetSubresource(), "/")
		if f := o.forbid.Load(); f != nil && *f == resource {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "x", errors.New("no"))
		}
		switch r := created(a).(type) {
		case *authenticationv1.TokenRequest:
			r.Status.Token = "token for " + strings.Join(r.Spec.Audiences, " ")
			return true, r, nil
		case *authenticationv1.TokenReview:
			r.Status.Authenticated = r.Spec.Token == "token for "+v1alpha1.ObserveAudience
			r.Status.User.Username, r.Status.Audiences = "observer", r.Spec.Audiences
			return true, r, nil
		case *authorizationv1.SubjectAccessReview:
			r.Status.Allowed = o.allowed.Load()
			return true, r, nil
		}
		return false, nil, nil
	})
	ctx, stop := context.WithCancel(context.Background())
	var served sync.WaitGroup
	for name, f := range replicas {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		o.replicas[name] = l.Addr().String()
		served.Go(func() {
			if err := ask.Serve(ctx, l, &tls.Config{Certificates: []tls.Certificate{pair}}, o.kube, f, slog.New(slog.DiscardHandler)); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		stop()
		served.Wait()
	})
	o.cluster = &cluster{kube: o.kube, namespace: "blixt", forward: func(_ context.Context, pod string) (net.Conn, error) {
		o.forwards.Add(1)
		address, known := o.replicas[pod]
		if !known {
			return nil, fmt.Errorf("there is no pod %s", pod)
		}
		return net.Dial("tcp", address)
	}}
	return o
}

func created(a ktesting.Action) runtime.Object {
	if c, is := a.(ktesting.CreateAction); is {
		return c.GetObject()
	}
	return nil
}

// lead makes a replica the leader.
func (o *operators) lead(t *testing.T, holder string) {
	t.Helper()
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "blixt", Name: v1alpha1.Operator}}
	if holder != "" {
		lease.Spec.HolderIdentity = &holder
	}
	if _, err := o.kube.CoordinationV1().Leases("blixt").Update(t.Context(), lease, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// connectTo returns who asks nodes.
func (o *operators) connectTo(t *testing.T, nodes ...string) (*Conn, error) {
	t.Helper()
	conn, err := o.connect(t.Context())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &Conn{Asker: transport.NewAsker(conn, nodes), conn: conn}, nil
}

// answer returns what is answered.
func answer(t *testing.T, c *Conn) (string, error) {
	t.Helper()
	var text strings.Builder
	err := c.Ask(t.Context(), question, func(node string, piece json.RawMessage) error {
		text.WriteString(node + string(piece))
		return nil
	})
	return text.String(), err
}

func TestAskTheLeader(t *testing.T) {
	t.Parallel()
	o := newOperators(t, map[string]fleet{"a": saysWho("a"), "b": saysWho("b")})
	o.lead(t, "b_0d7cbb8e")
	c, err := o.connectTo(t, "n1", "n2")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got, err := answer(t, c); got != `n1{"nodes":["n1","n2"],"replica":"b"}` || err != nil {
			t.Errorf("got %s, %v", got, err)
		}
	}
	if n := o.forwards.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// What is missing is said, with the remedy.
func TestWhatIsMissing(t *testing.T) {
	t.Parallel()
	o := newOperators(t, map[string]fleet{"a": saysWho("a")})
	expect := func(want string) {
		t.Helper()
		c, err := o.connectTo(t)
		if err == nil {
			_, err = answer(t, c)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	expect("no operator leads")
	o.lead(t, "gone_1")
	expect("there is no pod gone")
	o.lead(t, "a_1")
	for _, resource := range []string{"leases", "configmaps", "serviceaccounts/token"} {
		o.forbid.Store(&resource)
		expect("--role=blixt-observer")
	}
	o.forbid.Store(nil)
	o.allowed.Store(false)
	expect("may not get status of all nodes: that takes the right to get nodedataplanes/status.blixt.x-k8s.io")
	o.allowed.Store(true)
	o.namespace = "elsewhere"
	expect("in another one (--namespace)")
}

// Somebody else at the other end of the forwarded port is not told the token.
func TestForeignOperator(t *testing.T) {
	t.Parallel()
	o, foreign := newOperators(t, map[string]fleet{"a": saysWho("a")}), newOperators(t, map[string]fleet{"a": saysWho("foreign")})
	o.lead(t, "a_1")
	o.replicas = foreign.replicas
	c, err := o.connectTo(t)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := answer(t, c); got != "" || err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %s, %v", got, err)
	}
	for _, a := range foreign.kube.Actions() {
		t.Errorf("the foreign operator has got far enough to %s %s", a.GetVerb(), a.GetResource().Resource)
	}
}

// A leader that ends in the middle of an answer is no end of the answer, and the next
// question goes to the next leader.
func TestLeaderChanges(t *testing.T) {
	t.Parallel()
	var cut atomic.Pointer[net.Conn]
	o := newOperators(t, map[string]fleet{
		"a": func(_ []string, send func(*wire.AskReply) error) error {
			err := send(&wire.AskReply{Node: "n1", Data: []byte(`1`), Last: true})
			for err == nil { // until the connection is gone
				err = send(&wire.AskReply{Node: "n1", Data: []byte(`2`), Last: true})
			}
			return err
		},
		"b": saysWho("b"),
	})
	forward := o.forward
	o.forward = func(ctx context.Context, pod string) (net.Conn, error) {
		c, err := forward(ctx, pod)
		if err == nil {
			cut.Store(&c)
		}
		return c, err
	}
	o.lead(t, "a_1")
	c, err := o.connectTo(t)
	if err != nil {
		t.Fatal(err)
	}
	first := true
	err = c.Ask(t.Context(), question, func(string, json.RawMessage) error {
		if first {
			first = false
			o.lead(t, "b_1")
			_ = (*cut.Load()).Close()
		}
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "not complete") {
		t.Errorf("cut in the middle: %v", err)
	}
	var got string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // gRPC waits before it connects again
		if got, err = answer(t, c); err == nil {
			break
		}
	}
	if !strings.Contains(got, `"b"`) {
		t.Errorf("got %s, %v", got, err)
	}
}

// kubelet forwards ports by SPDY as API servers do, to an echo.
func kubelet(t *testing.T, refuse string) *rest.Config {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/namespaces/blixt/pods/a/portforward" {
			http.NotFound(w, r)
			return
		}
		if r.Method != http.MethodPost { // as before WebSockets
			http.Error(w, "upgrade by SPDY", http.StatusBadRequest)
			return
		}
		w.Header().Set(httpstream.HeaderProtocolVersion, r.Header.Get(httpstream.HeaderProtocolVersion))
		var failures httpstream.Stream
		c := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, replied <-chan struct{}) error {
			if s.Headers().Get(corev1.PortHeader) != fmt.Sprint(v1alpha1.ObservePort) {
				return errors.New("another port")
			}
			if s.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
				failures = s
				return nil
			}
			go func() {
				<-replied
				if refuse != "" {
					_, _ = io.WriteString(failures, refuse)
					_ = failures.Close()
					_ = s.Reset()
					return
				}
				_, _ = io.Copy(s, s)
				_ = s.Close()
			}()
			return nil
		})
		if c != nil {
			<-c.CloseChan()
		}
	}))
	t.Cleanup(server.CloseClientConnections)
	return &rest.Config{Host: server.URL}
}

func TestForwardPort(t *testing.T) {
	t.Parallel()
	c, err := newCluster(kubelet(t, ""), "blixt")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.forwardPort(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := bytes.Repeat([]byte("0123456789"), 50_000)
	go func() { _, _ = conn.Write(sent) }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%v; what came back is the same: %v", err, bytes.Equal(got, sent))
	}
	if _, err := c.forwardPort(t.Context(), "other"); err == nil {
		t.Error("there is no such pod")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := c.forwardPort(ended, "a"); err == nil { // it was faster
		_ = c.Close()
	}
}

func TestPortIsRefused(t *testing.T) {
	t.Parallel()
	c, err := newCluster(kubelet(t, "connection refused in the pod"), "blixt")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.forwardPort(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "connection refused in the pod") {
		t.Error(err)
	}
}

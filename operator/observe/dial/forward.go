// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// forwardPort connects to the port of the operator in a pod, through the API server.
// No port of this host is opened: others on it could use that.
func (c *cluster) forwardPort(ctx context.Context, pod string) (net.Conn, error) {
	core := rest.CopyConfig(c.config)
	core.APIPath, core.GroupVersion, core.NegotiatedSerializer = "/api", &corev1.SchemeGroupVersion, scheme.Codecs.WithoutConversion()
	client, err := rest.RESTClientFor(core)
	if err != nil {
		return nil, err
	}
	url := client.Post().Resource("pods").Namespace(c.namespace).Name(pod).SubResource("portforward").URL()
	tripper, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	tunnel, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, c.config)
	if err != nil {
		return nil, err
	}
	// API servers before 1.31 know no WebSockets here, and some proxies neither.
	dialer := portforward.NewFallbackDialerForStreaming(tunnel, spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: tripper}, http.MethodPost, url), func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	type result struct {
		conn net.Conn
		err  error
	}
	dialed := make(chan result, 1)
	go func() { // Dial knows no context
		connection, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
		if err != nil {
			dialed <- result{err: c.readable("forward a port of pod "+pod, err)}
			return
		}
		conn, err := newStream(connection, v1alpha1.ObservePort)
		if err != nil {
			_ = connection.Close()
		}
		dialed <- result{conn, err}
	}()
	select {
	case r := <-dialed:
		return r.conn, r.err
	case <-ctx.Done():
		go func() {
			if r := <-dialed; r.conn != nil {
				_ = r.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// stream is a connection to a port of a pod.
type stream struct {
	httpstream.Stream
	connection httpstream.Connection
	pod        address

	mu     sync.Mutex
	failed error // what the kubelet says
	known  chan struct{}
}

func newStream(connection httpstream.Connection, port int) (*stream, error) {
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, strconv.Itoa(port))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	failures, err := connection.CreateStream(headers)
	if err != nil {
		return nil, fmt.Errorf("forward a port: %w", err)
	}
	_ = failures.Close() // only the other end writes to it
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := connection.CreateStream(headers)
	if err != nil {
		return nil, fmt.Errorf("forward a port: %w", err)
	}
	s := &stream{Stream: data, connection: connection, pod: address(fmt.Sprint("port ", port)), known: make(chan struct{})}
	go func() {
		defer close(s.known)
		text, err := io.ReadAll(io.LimitReader(failures, 4096))
		if len(text) > 0 {
			err = fmt.Errorf("forward a port: %s", text)
		}
		s.mu.Lock()
		s.failed = err
		s.mu.Unlock()
		if err != nil {
			_ = connection.Close()
		}
	}()
	return s, nil
}

// Read implements net.Conn. Its error is what the kubelet says, if it says anything.
func (s *stream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	if err == nil || n > 0 {
		return n, nil
	}
	select {
	case <-s.known:
	case <-time.After(time.Second):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return 0, s.failed
	}
	return 0, err
}

// Close implements net.Conn.
func (s *stream) Close() error { return errors.Join(s.Reset(), s.connection.Close()) }

// LocalAddr implements net.Conn.
func (s *stream) LocalAddr() net.Addr { return address("here") }

// RemoteAddr implements net.Conn.
func (s *stream) RemoteAddr() net.Addr { return s.pod }

// The deadlines implement net.Conn: there are none, and Close ends what blocks.

// SetDeadline implements net.Conn.
func (s *stream) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (s *stream) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (s *stream) SetWriteDeadline(time.Time) error { return nil }

// address is one of no network.
type address string

// Network implements net.Addr.
func (address) Network() string { return "portforward" }

// String implements net.Addr.
func (a address) String() string { return string(a) }

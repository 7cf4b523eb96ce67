// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair returns a certificate of a name, and its key, in PEM.
func pair(t testing.TB, name string) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: text})
}

// certificate returns a configuration for localhost, and a client that trusts it.
func certificate(t testing.TB) (*tls.Config, *http.Client) {
	t.Helper()
	cert, key := pair(t, "localhost")
	c, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &tls.Config{Certificates: []tls.Certificate{c}}, &http.Client{Transport: transport}
}

func TestExposedPagesAreRefused(t *testing.T) {
	cert, _ := certificate(t)
	for _, address := range []string{"0.0.0.0:0", "[::]:0", ":0"} {
		for name, c := range map[string]struct {
			tls    *tls.Config
			access Access
			ok     bool
		}{"neither": {}, "TLS": {tls: cert}, "token": {access: rightToken()}, "both": {cert, rightToken(), true}} {
			s, err := Listen(Endpoint{Address: address, TLS: c.tls}, Options{Source: &fake{}, Access: c.access})
			if err == nil {
				s.Close()
			}
			if (err == nil) != c.ok {
				t.Errorf("%s with %s: %v", address, name, err)
			}
			for _, flag := range []string{"--http-tls-cert", "--http-tls-key", "--http-token-file", "127.0.0.1"} {
				if err != nil && !strings.Contains(err.Error(), flag) {
					t.Errorf("%v: does not name %s", err, flag)
				}
			}
		}
	}
	for _, address := range []string{"127.0.0.1:0", "127.9.9.9:0", "localhost:0", "[::1]:0", "[::ffff:127.0.0.1]:0"} {
		s, err := Listen(Endpoint{Address: address}, Options{Source: &fake{}})
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		s.Close()
	}
}

func TestAddressesToListenAt(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1": "127.0.0.1:8460", "127.0.0.1:80": "127.0.0.1:80", "localhost": "localhost:8460", "localhost:1": "localhost:1", "::1": "[::1]:8460", "[::1]": "[::1]:8460", "[::1]:5": "[::1]:5",
		":8460": ":8460", "[fe80::1%eth0]": "[fe80::1%eth0]:8460", "": "", ":": "", "127.0.0.1:": "", "a:b:c": "", "http://127.0.0.1:8460": "",
	} {
		if got, err := withPort(address); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", address, got, err, want)
		}
	}
}

func TestBusyPortIsNamed(t *testing.T) {
	s, err := Listen(Endpoint{Address: "127.0.0.1:0"}, Options{Source: &fake{}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	address := s.l.Addr().String()
	if _, err := Listen(Endpoint{Address: address}, Options{Source: &fake{}}); err == nil || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), "--http-address") {
		t.Errorf("a port that is taken: %v", err)
	}
	if got := s.URL(); got != "http://"+address+"/" {
		t.Errorf("URL %s", got)
	}
	cert, _ := certificate(t)
	exposed, err := Listen(Endpoint{Address: ":0", TLS: cert}, Options{Source: &fake{}, Access: rightToken(), Hosts: []string{"lb.example"}})
	if err != nil {
		t.Fatal(err)
	}
	defer exposed.Close()
	if got := exposed.URL(); !strings.HasPrefix(got, "https://lb.example:") {
		t.Errorf("URL %s", got)
	}
}

func TestRenewedCertificateIsUsed(t *testing.T) {
	var log bytes.Buffer
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	write := func(c, k []byte) {
		for path, text := range map[string][]byte{cert: c, key: k} {
			if text != nil {
				if err := os.WriteFile(path, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		later := time.Now().Add(time.Duration(log.Len()+1) * time.Second) // a file system may have coarse times
		_ = os.Chtimes(cert, later, later)
	}
	if _, err := CertificateFiles(cert, key, slog.Default()); err == nil {
		t.Error("no files are no error")
	}
	write(pair(t, "first.example"))
	config, err := CertificateFiles(cert, key, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	address := serve(t, Endpoint{TLS: config}, Options{Access: rightToken()})
	shown := func() string {
		t.Helper()
		c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test looks at it
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].DNSNames[0]
	}
	is := func(want string) {
		t.Helper()
		if got := shown(); got != want {
			t.Errorf("the certificate is %s, want %s", got, want)
		}
	}
	is("first.example")
	c, k := pair(t, "second.example")
	write(c, nil) // the key comes later
	is("first.example")
	write(nil, k)
	is("second.example")
	write([]byte("broken"), nil)
	is("second.example")
	is("second.example")
	if text := log.String(); strings.Count(text, "cannot be used") != 2 || strings.Count(text, "has a new certificate") != 1 {
		t.Errorf("log:\n%s", text)
	}
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	is("second.example")
	write(pair(t, "third.example"))
	is("third.example")
}

// Plain HTTP to a page with TLS, and other noise, gets nothing and stops nothing.
func TestNoiseAtTheTLSPort(t *testing.T) {
	cert, client := certificate(t)
	address := serve(t, Endpoint{TLS: cert}, Options{Access: rightToken()})
	for _, noise := range []string{"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "\x16\x03\x01\xff\xff", "\x00\x00\x00\x00", "SSH-2.0-x\r\n"} {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, noise)
		_ = c.(*net.TCPConn).CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if text, err := io.ReadAll(c); err == nil && bytes.Contains(text, []byte("<html")) {
			t.Errorf("%q gets %s", noise, text)
		}
		c.Close()
	}
	a, err := client.Get("https://" + address + "/")
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if a.StatusCode != http.StatusOK {
		t.Error(a.Status)
	}
}

// Somebody who opens connections, and says nothing or half of it, keeps nobody out, of his
// own address neither, and takes no file descriptors.
func TestManyConnections(t *testing.T) {
	leaksNothing(t)
	address := serve(t, Endpoint{}, Options{})
	stream, _ := open(t, "http://"+address+"/events")
	next := events(t, stream.Body)
	viewOf(t, next())
	for _, text := range []string{"", "GET / HTTP/1.1\r\nHost: localhost\r\nX-"} {
		var conns []net.Conn
		for i := range 1000 {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = io.WriteString(c, text)
			conns = append(conns, c)
			if i%100 == 99 {
				a, err := http.Get("http://" + address + "/")
				if err != nil {
					t.Fatalf("beside %d connections: %v", i, err)
				}
				_, _ = io.Copy(io.Discard, a.Body)
				a.Body.Close()
			}
		}
		eventually(t, "the first ones are closed", func() bool {
			open := 0
			for _, c := range conns {
				_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
				if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
					open++
				}
			}
			return open <= clientConns
		})
	}
	viewOf(t, next())
}

func TestConnectionsOfManyClients(t *testing.T) {
	c := &crowd{}
	from := func(n int) net.Conn { return addressed{&net.TCPAddr{IP: net.IPv4(10, 0, byte(n/256), byte(n))}} }
	var guests []*guest
	for n := range 2 * mostConns {
		g := c.enter(from(n))
		if g == nil {
			t.Fatal("a client gets no connection beside those that wait")
		}
		guests = append(guests, g)
	}
	if len(c.all) != mostConns || c.all[0] != guests[mostConns] {
		t.Errorf("%d connections, want the last %d", len(c.all), mostConns)
	}
	for _, g := range c.all {
		c.state(g, http.StateActive)
	}
	if c.enter(from(5000)) != nil {
		t.Error("one more than all that have requests")
	}
	_ = c.all[7].Close()
	_ = guests[0].Close() // again
	if c.enter(from(5000)) == nil || len(c.all) != mostConns {
		t.Error("no room after one has gone")
	}
}

// addressed is a connection from an address.
type addressed struct{ from net.Addr }

func (a addressed) RemoteAddr() net.Addr           { return a.from }
func (addressed) LocalAddr() net.Addr              { return nil }
func (addressed) Close() error                     { return nil }
func (addressed) Read([]byte) (int, error)         { return 0, io.EOF }
func (addressed) Write(b []byte) (int, error)      { return len(b), nil }
func (addressed) SetDeadline(time.Time) error      { return nil }
func (addressed) SetReadDeadline(time.Time) error  { return nil }
func (addressed) SetWriteDeadline(time.Time) error { return nil }

// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// errPlainHTTP prevents the library from falling back to HTTP, with credentials, for
// registries at loopback and private addresses.
var errPlainHTTP = errors.New("refused to speak plain HTTP")

// maxManifest bounds the answers that are read whole before anything is verified: whoever
// may push to the registry chooses their size. A manifest of ours has some 2 kB.
const maxManifest = 1 << 20

var errTooLarge = fmt.Errorf("the answer has more than %d bytes: this is no manifest of a bytecode image", maxManifest)

// httpsOnly refuses other schemes than HTTPS and huge manifests, and counts bytes.
type httpsOnly struct {
	base     http.RoundTripper
	progress func(int)
}

func (o Options) transport() (http.RoundTripper, error) {
	base := remote.DefaultTransport.(*http.Transport).Clone()
	base.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read CA: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read CA: %s holds no certificate in PEM", o.CAFile)
		}
		base.TLSClientConfig.RootCAs = pool
	}
	return &httpsOnly{base: base, progress: o.Progress}, nil
}

func (t *httpsOnly) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, errPlainHTTP
	}
	count := t.progress
	if count == nil {
		count = func(int) {}
	}
	asked := r
	if r.Body != nil {
		r = r.Clone(r.Context())
		r.Body = &counted{r.Body, count}
	}
	answer, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if !isBlob(asked) {
		answer.Body = &limited{answer.Body, maxManifest}
	}
	answer.Body = &counted{answer.Body, count}
	return answer, nil
}

// isBlob reports whether a request, or the one that was redirected to it, is for a blob:
// those are read up to a limit of their own.
func isBlob(r *http.Request) bool {
	for r.Response != nil && r.Response.Request != nil {
		r = r.Response.Request
	}
	return strings.Contains(r.URL.Path, "/blobs/")
}

// limited is a body that fails when it is larger than what is left.
type limited struct {
	io.ReadCloser
	left int
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if l.left -= n; l.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

type counted struct {
	io.ReadCloser
	progress func(int)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.progress(n)
	return n, err
}

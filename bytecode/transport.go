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

	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// errPlainHTTP prevents the library from falling back to HTTP, with credentials, for
// registries at loopback and private addresses.
var errPlainHTTP = errors.New("refused to speak plain HTTP")

// httpsOnly refuses other schemes than HTTPS, and counts bytes.
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
	if t.progress == nil {
		return t.base.RoundTrip(r)
	}
	if r.Body != nil {
		r = r.Clone(r.Context())
		r.Body = &counted{r.Body, t.progress}
	}
	answer, err := t.base.RoundTrip(r)
	if err == nil {
		answer.Body = &counted{answer.Body, t.progress}
	}
	return answer, err
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

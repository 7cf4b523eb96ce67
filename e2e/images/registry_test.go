// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package images

import (
	"bytes"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// imageRegistry is a registry that Blixt and bpfman reach at the same address: it
// listens in the network of each.
type imageRegistry struct {
	*labtest.Managed
	addr, ca string
	toBpfman *httptest.Server
}

// The repositories of which layers arrive damaged: for everybody, and for
// bpfman alone.
const (
	damaged  = "blixt/damaged"
	halfSafe = "blixt/half-safe"
)

func startRegistry(m *labtest.Managed) *imageRegistry {
	m.Helper()
	quiet := log.New(io.Discard, "", 0)
	r := &imageRegistry{Managed: m, addr: "127.0.0.1:0", ca: filepath.Join(m.Dir(), "registry.crt")}
	handler := registry.New(registry.Logger(quiet))
	serve := func(l net.Listener, err error, handler http.Handler) *httptest.Server {
		m.Helper()
		m.Check(err)
		s := httptest.NewUnstartedServer(handler)
		m.Check(s.Listener.Close())
		s.Listener, s.Config.ErrorLog = l, quiet
		s.StartTLS()
		m.Cleanup(s.Close)
		r.addr = l.Addr().String()
		return s
	}
	l, err := m.Bpfman.Listen("tcp", r.addr)
	r.toBpfman = serve(l, err, damaging(damaging(handler, damaged), halfSafe))
	l, err = m.Balancer.Listen("tcp", r.addr)
	s := serve(l, err, damaging(handler, damaged))
	m.Check(os.WriteFile(r.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o644))
	return r
}

// trust has bpfman trust the registry's certificate.
func (r *imageRegistry) trust() {
	r.Helper()
	r.Check(r.Bpfman.Kill())
	r.Check(os.Rename(r.ca, filepath.Join(r.Dir(), labtest.TrustFile)))
	r.ca = filepath.Join(r.Dir(), labtest.TrustFile)
	r.Check(r.Bpfman.Start())
}

// damaging flips a byte in each layer of a repository.
func damaging(next http.Handler, repository string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Method != http.MethodGet || !strings.HasPrefix(q.URL.Path, "/v2/"+repository+"/blobs/") {
			next.ServeHTTP(w, q)
			return
		}
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, q)
		body := bytes.Clone(answer.Body.Bytes())
		if len(body) > 100_000 { // a layer, not a configuration
			body[50_000] ^= 1
		}
		for key, values := range answer.Header() {
			w.Header()[key] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(body)
	})
}

// blixt runs a command of Blixt that uses the registry.
func (r *imageRegistry) blixt(args ...string) string {
	r.Helper()
	out, err := r.Balancer.Run(3*labtest.Patience, labtest.Binary, append([]string{"bytecode"}, append(args, "--ca-file", r.ca)...)...)
	r.Check(err)
	return strings.TrimSpace(out)
}

// push builds an image and returns its name by digest.
func (r *imageRegistry) push(repository string) string {
	r.Helper()
	out := filepath.Join(r.Dir(), "out")
	_, err := r.Balancer.Run(3*labtest.Patience, labtest.Binary, "bytecode", "build", "-d", out, "--flows", "65536")
	r.Check(err)
	return r.blixt("push", out, r.addr+"/"+repository+":v1")
}

// relabel pushes the image for this machine, of an image that is there, with
// another label.
func (r *imageRegistry) relabel(image, repository, label, value string) string {
	r.Helper()
	transport := remote.WithTransport(r.toBpfman.Client().Transport)
	from, err := name.ParseReference(image)
	r.Check(err)
	to, err := name.ParseReference(r.addr + "/" + repository + ":v1")
	r.Check(err)
	found, err := remote.Image(from, transport)
	r.Check(err)
	config, err := found.ConfigFile()
	r.Check(err)
	config = config.DeepCopy()
	config.Config.Labels[label] = value
	other, err := mutate.ConfigFile(found, config)
	r.Check(err)
	r.Check(remote.Write(to, other, transport))
	digest, err := other.Digest()
	r.Check(err)
	return to.Context().Digest(digest.String()).String()
}

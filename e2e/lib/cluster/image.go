// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is a container image made of files of this machine.
type Image struct {
	// Files are paths in the image, and whose content they have.
	Files      map[string]string
	Entrypoint []string
	// User is a number; "": root.
	User string
}

// library is a line of ldd(1): a file, or a name and the file that it leads to.
var library = regexp.MustCompile(`(?m)^\s+(?:\S+ => )?(/\S+) \(0x`)

// linked makes an image of a program of this machine, with its libraries.
func linked(inside, program string) (Image, error) {
	i := Image{Files: map[string]string{inside: program}, Entrypoint: []string{inside}}
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		return i, fmt.Errorf("find libraries of %s: %w", program, err)
	}
	for _, match := range library.FindAllStringSubmatch(string(out), -1) {
		i.Files[match[1]] = match[1]
	}
	return i, nil
}

// Push pushes an image to the registry, where nodes look for the images of every
// registry: pods name it as usual, REPOSITORY:TAG with or without a host. It returns
// the image's name by digest.
func (c *Cluster) Push(ctx context.Context, repository string, i Image) (string, error) {
	image, err := i.build()
	if err != nil {
		return "", fmt.Errorf("make image %s: %w", repository, err)
	}
	to := Registry + "/" + repository
	if c.given != nil { // all that is ours of the registry is this path
		to = c.given.Registry + "/" + path.Base(repository)
	}
	ref, err := name.ParseReference(to)
	if err != nil {
		return "", err
	}
	transport, err := c.transport()
	if err != nil {
		return "", err
	}
	defer transport.CloseIdleConnections()
	if err := remote.Write(ref, image, remote.WithTransport(transport), remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return "", fmt.Errorf("push %s: %w", repository, err)
	}
	digest, err := image.Digest()
	return ref.Context().Digest(digest.String()).String(), err
}

// transport returns a transport that connects to the registry.
func (c *Cluster) transport() (*http.Transport, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	if c.given == nil {
		transport.Proxy, transport.DialContext = nil, func(_ context.Context, network, addr string) (net.Conn, error) {
			return c.Control.Dial(network, "", addr, 10*time.Second)
		}
	}
	if c.CA() == "" {
		return transport, nil
	}
	ca, err := os.ReadFile(c.CA())
	if err != nil {
		return nil, err
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, err
	}
	roots.AppendCertsFromPEM(ca)
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	return transport, nil
}

func (i Image) build() (v1.Image, error) {
	layer, err := i.layer()
	if err != nil {
		return nil, err
	}
	// Compressing would take longer than all else.
	image, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), static.NewLayer(layer, types.OCIUncompressedLayer))
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config.Entrypoint, config.Config.User = i.Entrypoint, i.User
	config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return mutate.ConfigFile(mutate.ConfigMediaType(image, types.OCIConfigJSON), config)
}

func (i Image) layer() ([]byte, error) {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	made := map[string]bool{"tmp/": true}
	if err := w.WriteHeader(&tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}); err != nil {
		return nil, err
	}
	for _, file := range slices.Sorted(maps.Keys(i.Files)) {
		inside := strings.TrimPrefix(file, "/")
		for n, char := range inside {
			if dir := inside[:n] + "/"; char == '/' && !made[dir] {
				made[dir] = true
				if err := w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
					return nil, err
				}
			}
		}
		if err := add(w, inside, i.Files[file]); err != nil {
			return nil, fmt.Errorf("add %s: %w", path.Base(file), err)
		}
	}
	return buffer.Bytes(), w.Close()
}

func add(w *tar.Writer, inside, source string) error {
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	// Whoever the image runs as may read all, and run what its owner may run,
	// whatever the umask was when the file was made.
	mode := int64(info.Mode().Perm() | 0o444)
	if mode&0o100 != 0 {
		mode |= 0o111
	}
	if err := w.WriteHeader(&tar.Header{Name: inside, Typeflag: tar.TypeReg, Mode: mode, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}

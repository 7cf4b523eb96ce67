// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/kubernetes-sigs/blixt/operator/release/chart"
)

func image(t *testing.T, archive []byte) v1.Image {
	t.Helper()
	i, err := chart.OCI(archive, options())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func digest(t *testing.T, i v1.Image) string {
	t.Helper()
	d, err := i.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func TestImageHoldsTheArchive(t *testing.T) {
	archive := pack(t, options())
	i := image(t, archive)
	m, err := i.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	types := []string{string(m.MediaType), string(m.Config.MediaType), string(m.Layers[0].MediaType)}
	want := []string{"application/vnd.oci.image.manifest.v1+json", "application/vnd.cncf.helm.config.v1+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"}
	if diff := cmp.Diff(want, types); diff != "" || len(m.Layers) != 1 {
		t.Errorf("media types, %d layers (-want +got):\n%s", len(m.Layers), diff)
	}
	layers, err := i.Layers()
	if err != nil {
		t.Fatal(err)
	}
	r, err := layers[0].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, archive) {
		t.Errorf("the layer is not the archive (%v)", err)
	}
	raw, err := i.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	var config struct{ Name, Version, AppVersion string }
	if err := json.Unmarshal(raw, &config); err != nil || config.Name+" "+config.Version+" "+config.AppVersion != "blixt 1.2.3 1.2.3" {
		t.Errorf("config %s (%v), want that of blixt 1.2.3", raw, err)
	}
}

func TestImageSaysWhatHelmSays(t *testing.T) {
	i := image(t, pack(t, options()))
	m, err := i.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for key, value := range m.Annotations {
		if name, ok := strings.CutPrefix(key, "org.opencontainers.image."); ok {
			got[name] = value
		}
	}
	want := map[string]string{
		"title": "blixt", "version": "1.2.3", "created": "2026-12-01T10:20:30Z", "authors": "The authors of Blixt",
		"description": "A layer-4 load balancer for Kubernetes Gateway API, with an eBPF data plane that bpfman loads",
		"url":         "https://github.com/kubernetes-sigs/blixt", "source": "https://github.com/kubernetes-sigs/blixt",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	if m.Annotations["artifacthub.io/category"] != "networking" {
		t.Error("the annotations of Chart.yaml are not in the manifest")
	}
}

// A layout and a registry keep the image as it is.
func TestImageThroughLayoutAndRegistry(t *testing.T) {
	i := image(t, pack(t, options()))
	want := digest(t, i)
	if again := digest(t, image(t, pack(t, options()))); again != want {
		t.Errorf("made twice: %s and %s", want, again)
	}
	path, err := layout.Write(t.TempDir(), empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(i); err != nil {
		t.Fatal(err)
	}
	h, err := v1.NewHash(want)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := path.Image(h)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	ref, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/charts/blixt:1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, stored); err != nil {
		t.Fatal(err)
	}
	pulled, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	if got := digest(t, pulled); got != want {
		t.Errorf("pulled %s, want %s", got, want)
	}
	if err := validate.Image(pulled, validate.Fast); err != nil {
		t.Error(err)
	}
}

func TestWrongArchiveIsRefused(t *testing.T) {
	archive := pack(t, options())
	for name, wrong := range map[string][]byte{"empty": nil, "cut": archive[:len(archive)/2], "no archive": []byte("words")} {
		if _, err := chart.OCI(wrong, options()); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

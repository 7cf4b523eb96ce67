// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/release/chart"
)

// release is what the chart in the tests is published as.
var release = chart.Options{
	Dir: ".", Version: "v1.2.3", Time: time.Date(2026, 12, 1, 10, 20, 30, 0, time.UTC),
	Image:    "registry.example.com/blixt/operator@sha256:" + strings.Repeat("1", 64),
	Bytecode: "registry.example.com/blixt/bytecode@sha256:" + strings.Repeat("2", 64),
}

// packed returns the archive of the release.
func packed(t *testing.T) []byte {
	t.Helper()
	archive, err := chart.Package(release)
	if err != nil {
		t.Fatal(err)
	}
	return archive
}

// startRegistry returns the address of an empty registry, which talks HTTP.
func startRegistry(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// publish pushes the release into a registry, and returns its name there, for Helm.
func publish(t *testing.T, archive []byte) (ref, digest string) {
	t.Helper()
	image, err := chart.OCI(archive, release)
	if err != nil {
		t.Fatal(err)
	}
	repository := startRegistry(t) + "/charts/blixt"
	tag, err := name.NewTag(repository + ":1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image); err != nil {
		t.Fatal(err)
	}
	h, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return "oci://" + repository, h.String()
}

// inArchive returns the files in an archive, by their names.
func inArchive(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	zipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for r := tar.NewReader(zipped); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			all[h.Name] = string(text)
		}
	}
}

// unpackInto writes the files of an archive into a directory, and returns the chart's.
func unpackInto(t *testing.T, dir string, archive []byte) string {
	t.Helper()
	for name, text := range inArchive(t, archive) {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "blixt")
}

// Both Helms take the published chart from a registry, without any values, and make the
// same of it as of the source with the images as values.
func TestHelmTakesThePublishedChart(t *testing.T) {
	archive := packed(t)
	ref, digest := publish(t, archive)
	want, err := run(t, "template", "blixt", unpackInto(t, t.TempDir(), archive), "--namespace="+namespace, oldest)
	if err != nil {
		t.Fatal(err)
	}
	rendered, err := run(t, "template", "blixt", ".", "--namespace="+namespace, oldest, values)
	if err != nil {
		t.Fatal(err)
	}
	source := names(objectsOf(t, rendered))
	for _, helm := range helms {
		t.Run(helm, func(t *testing.T) {
			helm := func(args ...string) string {
				t.Helper()
				out, err := runHelm(t, helm, append(args, "--plain-http")...)
				if err != nil {
					t.Fatalf("helm %v: %v", args, err)
				}
				return out
			}
			for _, args := range [][]string{{ref}, {ref, "--version=1.2.3"}, {ref + "@" + digest}} {
				got := helm(append([]string{"template", "blixt", "--namespace=" + namespace, oldest}, args...)...)
				if diff := cmp.Diff(documents(want), documents(got)); diff != "" {
					t.Errorf("objects of %v (-helm 3 of the archive +got):\n%s", args, diff)
				}
				objects := objectsOf(t, got)
				if diff := cmp.Diff(source, names(objects)); diff != "" {
					t.Errorf("objects of %v (-source +got):\n%s", args, diff)
				}
				if image := field(t, objects, "Deployment/blixt-operator", "{.spec.template.spec.containers[0].image}"); image != release.Image {
					t.Errorf("image %s, want %s", image, release.Image)
				}
			}
			content := inArchive(t, archive)
			for what, file := range map[string]string{"values": "values.yaml", "readme": "README.md"} {
				if diff := cmp.Diff(strings.TrimSpace(content["blixt/"+file]), strings.TrimSpace(helm("show", what, ref))); diff != "" {
					t.Errorf("helm show %s (-%s +got):\n%s", what, file, diff)
				}
			}
			dir := t.TempDir()
			helm("pull", ref, "--destination="+dir)
			if pulled, err := os.ReadFile(filepath.Join(dir, "blixt-1.2.3.tgz")); err != nil || !bytes.Equal(pulled, archive) {
				t.Errorf("helm pull gives another archive (%v)", err)
			}
		})
	}
}

// documents returns what Helm prints without lines that say nothing.
func documents(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

func TestHelmLintsThePublishedChart(t *testing.T) {
	dir := unpackInto(t, t.TempDir(), packed(t))
	for _, helm := range helms {
		if out, err := runHelm(t, helm, "lint", dir, "--strict", oldest); err != nil {
			t.Errorf("%s lint: %v%s", helm, err, out)
		}
	}
}

// What Helm packs has the same files as what is published: of the source but for those that
// tell the release.
func TestHelmPacksTheSame(t *testing.T) {
	archive := packed(t)
	want := inArchive(t, archive)
	for _, helm := range helms {
		for of, dir := range map[string]string{"the source": ".", "the release": unpackInto(t, t.TempDir(), archive)} {
			out := t.TempDir()
			if _, err := runHelm(t, helm, "package", dir, "--destination="+out); err != nil {
				t.Fatal(err)
			}
			made, err := filepath.Glob(filepath.Join(out, "blixt-*.tgz"))
			if err != nil || len(made) != 1 {
				t.Fatalf("%s package made %v (%v)", helm, made, err)
			}
			text, err := os.ReadFile(made[0])
			if err != nil {
				t.Fatal(err)
			}
			got := inArchive(t, text)
			compare := normal(t, want)
			if of == "the source" {
				for _, file := range []string{"Chart.yaml", "values.yaml", "README.md"} {
					if got["blixt/"+file] == "" {
						t.Errorf("%s package of %s leaves out %s", helm, of, file)
					}
					got["blixt/"+file], compare["blixt/"+file] = "", ""
				}
			} else {
				got = normal(t, got)
			}
			if diff := cmp.Diff(compare, got); diff != "" {
				t.Errorf("%s package of %s (-published +got):\n%s", helm, of, diff)
			}
		}
	}
}

// normal returns files with a Chart.yaml as Helm writes it anew.
func normal(t *testing.T, files map[string]string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for name, text := range files {
		all[name] = text
	}
	text, err := yaml.YAMLToJSON([]byte(files["blixt/Chart.yaml"]))
	if err != nil {
		t.Fatal(err)
	}
	all["blixt/Chart.yaml"] = string(text)
	return all
}

// Helm's own push of the archive, at the time of the commit, makes the same image, but
// that Helm does not name the media type of the manifest.
func TestHelmPushesTheSameImage(t *testing.T) {
	archive := packed(t)
	image, err := chart.OCI(archive, release)
	if err != nil {
		t.Fatal(err)
	}
	want, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	want = want.DeepCopy()
	want.MediaType = ""
	file := filepath.Join(t.TempDir(), "blixt-1.2.3.tgz")
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, release.Time, release.Time); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TZ", "UTC")
	for _, helm := range helms {
		host := startRegistry(t)
		if _, err := runHelm(t, helm, "push", file, "oci://"+host+"/charts", "--plain-http"); err != nil {
			t.Fatal(err)
		}
		ref, err := name.NewTag(host + "/charts/blixt:1.2.3")
		if err != nil {
			t.Fatal(err)
		}
		pushed, err := remote.Image(ref)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pushed.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		got.MediaType = ""
		if diff := cmp.Diff(*want, *got, cmp.Comparer(func(a, b v1.Hash) bool { return a == b })); diff != "" {
			t.Errorf("manifest that %s pushes (-ours +Helm's):\n%s", helm, diff)
		}
	}
}

func objectsOf(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	objects, err := kube.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

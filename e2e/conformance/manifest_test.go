// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"embed"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/yaml"
)

// base is the name of the suite's base manifests without their Gateways, which
// are all for HTTP, and with backends of ours.
const base = "base/layer4.yaml"

//go:embed manifests
var ours embed.FS

var dns = regexp.MustCompile(`image: \S*(coredns/coredns):\S+`)

// manifests returns the base, and the manifests of the twins for each protocol as
// PROTOCOL/FILE.
func manifests(t *testing.T) fs.FS {
	t.Helper()
	read := func(from fs.FS, name string) string {
		text, err := fs.ReadFile(from, name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var objects []string
	for _, object := range strings.Split(read(conformance.Manifests, "base/manifests.yaml"), "\n---\n") {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(object), &kind); err != nil {
			t.Fatal(err)
		}
		if kind.Kind != "Gateway" && !strings.Contains(object, "Corefile: |") {
			objects = append(objects, dns.ReplaceAllString(object, "image: $1:v1.14.7")) // which the cluster has
		}
	}
	objects = append(objects, read(ours, "manifests/backends.yaml"))
	files := fstest.MapFS{base: {Data: []byte(strings.Join(objects, "\n---\n"))}}
	names, err := fs.Glob(ours, "manifests/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range protocols {
		words := strings.NewReplacer("{PROTOCOL}", string(p.name), "{OTHER}", string(p.other), "{ROUTE}", string(p.route), "{OTHER_ROUTE}", string(p.otherRoute),
			"{BACKEND}", p.backend, "{PORT}", p.port)
		for _, name := range names {
			files[path.Join(string(p.name), path.Base(name))] = &fstest.MapFile{Data: []byte(words.Replace(read(ours, name)))}
		}
	}
	return files
}

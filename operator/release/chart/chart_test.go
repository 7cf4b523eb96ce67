// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/kubernetes-sigs/blixt/operator/release/chart"
)

// source is the chart of this repository.
const source = "../../../charts/blixt"

func options() chart.Options {
	return chart.Options{
		Dir: source, Version: "v1.2.3", Time: time.Date(2026, 12, 1, 10, 20, 30, 0, time.UTC),
		Image:    "registry.example.com/net/blixt/operator@sha256:" + strings.Repeat("a", 64),
		Bytecode: "registry.example.com/net/blixt/bytecode@sha256:" + strings.Repeat("b", 64),
	}
}

func pack(t *testing.T, o chart.Options) []byte {
	t.Helper()
	archive, err := chart.Package(o)
	if err != nil {
		t.Fatal(err)
	}
	return archive
}

// unpack returns the headers of an archive, and the content by name.
func unpack(t *testing.T, archive []byte) (headers []*tar.Header, content map[string]string) {
	t.Helper()
	zipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	if zipped.Name != "" || zipped.Comment != "" || !zipped.ModTime.IsZero() {
		t.Errorf("header of gzip: %+v, want an empty one", zipped.Header)
	}
	content = map[string]string{}
	r := tar.NewReader(zipped)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return headers, content
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		headers = append(headers, h)
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		content[h.Name] = string(text)
	}
}

// tree copies the chart, and the changelog where it is looked for.
func tree(t *testing.T) string {
	t.Helper()
	top := t.TempDir()
	dir := filepath.Join(top, "charts/blixt")
	if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(source, "../../CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(top, "CHANGELOG.md"), string(text))
	return dir
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// edit replaces text in a file of a chart.
func edit(t *testing.T, dir, file, old, by string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		t.Fatalf("%s does not contain %q", file, old)
	}
	write(t, filepath.Join(dir, file), strings.ReplaceAll(string(text), old, by))
}

func TestArchiveIsInOrder(t *testing.T) {
	o := options()
	headers, _ := unpack(t, pack(t, o))
	var names []string
	for _, h := range headers {
		names = append(names, h.Name)
		if h.Typeflag != tar.TypeReg || h.Mode != 0o644 || !h.ModTime.Equal(o.Time) || h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" {
			t.Errorf("%s: %+v, want a file of root with mode 0644 and the commit's time", h.Name, h)
		}
	}
	if !slices.IsSorted(names) {
		t.Errorf("files are not sorted: %v", names)
	}
}

// Only what belongs in a chart is in it, and all of that.
func TestArchiveHasTheChartAlone(t *testing.T) {
	_, content := unpack(t, pack(t, options()))
	for name := range content {
		file, inside := strings.CutPrefix(name, "blixt/")
		first, _, _ := strings.Cut(file, "/")
		if !inside || !slices.Contains([]string{".helmignore", "Chart.yaml", "LICENSE", "README.md", "values.yaml", "values.schema.json", "files", "templates"}, first) ||
			strings.HasSuffix(file, ".go") || strings.Contains(file, "test") {
			t.Errorf("%s does not belong in the chart", name)
		}
	}
	for _, name := range []string{"LICENSE", "README.md", "templates/deployment.yaml", "files/crds/blixt.x-k8s.io_blixtconfigs.yaml", "files/seccomp/blixt-agent.json"} {
		if content["blixt/"+name] == "" {
			t.Errorf("%s is missing", name)
		}
	}
}

// A umask, another directory, the time of day and zone, and files' own times change nothing.
func TestArchiveDependsOnTheSourceAlone(t *testing.T) {
	want := pack(t, options())
	o := options()
	o.Dir = tree(t)
	o.Time = o.Time.In(time.FixedZone("elsewhere", 3600)).Add(999 * time.Millisecond)
	if err := os.Chtimes(filepath.Join(o.Dir, "values.yaml"), time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{".git/x": "a", "ci/more.yaml": "a", "testdata/more": "a", "more_test.go": "a", "templates/.swp": "a"} {
		write(t, filepath.Join(o.Dir, name), text)
	}
	if err := os.Chmod(filepath.Join(o.Dir, "README.md"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(o.Dir, ".git")); err != nil {
		t.Fatal(err)
	}
	if got := pack(t, o); !bytes.Equal(got, want) {
		t.Error("the archive of a copy of the source differs")
	}
}

func TestValuesNameImages(t *testing.T) {
	o := options()
	_, content := unpack(t, pack(t, o))
	got := content["blixt/values.yaml"]
	before, err := os.ReadFile(filepath.Join(source, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var changed []string
	was := strings.Split(string(before), "\n")
	for i, line := range strings.Split(got, "\n") {
		if line != was[i] {
			changed = append(changed, strings.TrimSpace(was[i])+" -> "+strings.TrimSpace(line))
		}
	}
	want := []string{
		`repository: "" -> repository: "registry.example.com/net/blixt/operator"`,
		`digest: "" -> digest: "sha256:` + strings.Repeat("a", 64) + `"`,
		`image: "" -> image: "` + o.Bytecode + `"`,
	}
	if diff := cmp.Diff(want, changed); diff != "" {
		t.Errorf("lines of values.yaml that changed (-want +got):\n%s", diff)
	}
}

func TestVersions(t *testing.T) {
	for version, want := range map[string]string{"v1.2.3": "1.2.3 false", "v0.1.0-rc.1": "0.1.0-rc.1 true"} {
		o := options()
		o.Version = version
		_, content := unpack(t, pack(t, o))
		var got struct {
			Version, Icon string
			AppVersion    string `yaml:"appVersion"`
			Annotations   map[string]string
		}
		decode(t, content["blixt/Chart.yaml"], &got)
		if s := got.Version + " " + got.Annotations["artifacthub.io/prerelease"]; s != want || got.AppVersion != got.Version {
			t.Errorf("%s: version and whether it is a prerelease are %s, of the program %s, want %s", version, s, got.AppVersion, want)
		}
		if want := "https://raw.githubusercontent.com/kubernetes-sigs/blixt/" + version + "/docs/icon.svg"; got.Icon != want {
			t.Errorf("%s: icon %s, want %s", version, got.Icon, want)
		}
	}
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
}

// Who reads the page on Artifact Hub has no source beside it, and wants this release.
func TestReadmeOfRelease(t *testing.T) {
	o := options()
	o.Version = "v0.9.1-rc.1"
	_, content := unpack(t, pack(t, o))
	page := content["blixt/README.md"]
	for _, want := range []string{
		"helm install blixt oci://registry.example.com/net/blixt/charts/blixt ",
		"cosign verify registry.example.com/net/blixt/charts/blixt:0.9.1-rc.1 ",
		"/release.yaml@refs/tags/v0.9.1-rc.1\n",
		"| image.digest | string | `\"sha256:" + strings.Repeat("a", 64) + "\"` |",
		"| bytecode.image | string | `\"" + o.Bytecode + "\"` |",
		"](https://github.com/kubernetes-sigs/blixt/blob/v0.9.1-rc.1/docs/ARCHITECTURE.md)",
		"](https://github.com/kubernetes-sigs/blixt/blob/v0.9.1-rc.1/charts/blixt/files/seccomp/blixt-agent.json)",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("README.md does not say %s", want)
		}
	}
	for _, no := range []string{"](../", "](files/", "ghcr.io/kubernetes-sigs", "1.2.3"} {
		if strings.Contains(page, no) {
			t.Errorf("README.md says %s", no)
		}
	}
}

func TestWrongOptionsAreRefused(t *testing.T) {
	for want, change := range map[string]func(*chart.Options){
		"version 1.2.3: tags begin with a v":          func(o *chart.Options) { o.Version = "1.2.3" },
		"version v1.2.3+x: neither Go nor":            func(o *chart.Options) { o.Version = "v1.2.3+x" },
		"which version?":                              func(o *chart.Options) { o.Version = "" },
		"version \"v1.2.3\\nicon: x\"":                func(o *chart.Options) { o.Version += "\nicon: x" },
		"time: want that of the commit":               func(o *chart.Options) { o.Time = time.Time{} },
		"image of the operator: want it by digest":    func(o *chart.Options) { o.Image = "registry.example.com/operator:v1" },
		"is not in a repository of the name operator": func(o *chart.Options) { o.Image = o.Bytecode },
		"bytecode: want it by digest":                 func(o *chart.Options) { o.Bytecode = "" },
		"values.yaml: image.repository is \"there\", want \"\"": func(o *chart.Options) {
			edit(t, o.Dir, "values.yaml", `repository: ""`+"\n  # -- Digest", `repository: "there"`+"\n  # -- Digest")
		},
		"values.yaml: bytecode.image: there is no such value": func(o *chart.Options) { edit(t, o.Dir, "values.yaml", "bytecode:\n", "program:\n") },
		"annotation artifacthub.io/images is written when": func(o *chart.Options) {
			edit(t, o.Dir, "Chart.yaml", "artifacthub.io/operator:", "artifacthub.io/images:")
		},
		`unknown field "versions"`:                        func(o *chart.Options) { edit(t, o.Dir, "Chart.yaml", "version: 0.1.0\n", "versions: 0.1.0\n") },
		"README.md has no row":                            func(o *chart.Options) { edit(t, o.Dir, "README.md", "| image.digest |", "| image.sum |") },
		"does not say from where to install":              func(o *chart.Options) { edit(t, o.Dir, "README.md", "oci://", "https://") },
		"template.yaml is no regular file":                func(o *chart.Options) { link(t, filepath.Join(o.Dir, "templates/template.yaml")) },
		`.helmignore: pattern "!x" is not supported here`: func(o *chart.Options) { write(t, filepath.Join(o.Dir, ".helmignore"), "!x\n") },
		"CHANGELOG.md: no such file":                      func(o *chart.Options) { remove(t, filepath.Join(o.Dir, "../../CHANGELOG.md")) },
		"there is no section for v1.2.3":                  func(o *chart.Options) { write(t, filepath.Join(o.Dir, "../../CHANGELOG.md"), "# Changelog\n") },
	} {
		t.Run(want, func(t *testing.T) {
			o := options()
			o.Dir = tree(t)
			change(&o)
			if _, err := chart.Package(o); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got error %v, want one with %q", err, want)
			}
		})
	}
}

func link(t *testing.T, file string) {
	t.Helper()
	if err := os.Symlink("/etc/hostname", file); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

func TestLicenseIsThatOfTheRepository(t *testing.T) {
	want, err := os.ReadFile("../../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(source, "LICENSE")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the chart's LICENSE (%v) differs from that of the repository: copy it", err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
)

// read is the text of a file that is valid.
func read(t *testing.T, file, text string) *Set {
	t.Helper()
	set, err := Parse(file, []byte(text))
	if err != nil {
		t.Fatalf("%s\n%s", err, text)
	}
	return set
}

// The same values as an API server gets from kubectl apply.
func TestParse_TakesWhatTheAPIServerTakes(t *testing.T) {
	head := "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  labels: {"
	for text, want := range map[string]string{
		"day: 2026-01-01":                   "2026-01-01",
		"day: 2026-01-01T10-00":             "2026-01-01T10-00",
		"day: !!str 5":                      "5",
		"day: '5'":                          "5",
		"day: '2026-01-01'":                 "2026-01-01",
		"day: 1_a":                          "1_a",
		"day: null":                         "",
		"day: &a x, night: *a":              "x",
		"<<: {day: y2}":                     "y2",
		"<<: [{day: first}, {day: second}]": "first",
	} {
		if got := read(t, "a.yaml", head+text+"}\nspec: {ports: [{port: 80}]}\n").Objects.Services[0].Labels["day"]; got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	// A number or true is no string there either.
	for _, text := range []string{"day: 5", "day: 1.10", "day: true", "day: yes", "day: on"} {
		_, err := Parse("a.yaml", []byte(head+text+"}\nspec: {ports: [{port: 80}]}\n"))
		if want := "a.yaml:5: Service default/web: metadata.labels.day: want a string, got "; !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: error %v, want %s...", text, err, want)
		}
	}
	// A boolean may be one of YAML 1.1, a key a number.
	set := read(t, "a.yaml", "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web, labels: {kubernetes.io/service-name: web}, annotations: {1: one}}\n"+
		"addressType: IPv4\nports: [{port: 0x50}]\nendpoints: [{addresses: [192.0.2.1], conditions: {ready: yes, serving: off}}]\n")
	s := set.EndpointSlices[0]
	if c := s.Endpoints[0].Conditions; !*c.Ready || *c.Serving || *s.Ports[0].Port != 80 || s.Annotations["1"] != "one" {
		t.Errorf("read as %+v", s)
	}
}

func TestParse_JSON(t *testing.T) {
	object := `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "NAME", "annotations": {"a": "TEXT"}}, "spec": {"ports": [{"port": 80}]}}`
	for text, want := range map[string]string{
		`https:\/\/example.com`:                  "https://example.com",
		`\ud83d\ude00 \u00e4`:                    "\U0001f600 \u00e4",
		`\b\f\n\r\t\"\\`:                         "\b\f\n\r\t\"\\",
		`\u2028 and ` + "\u2028" + ` and \u0000`: "\u2028 and \u2028 and \x00",
		"\x7f\u0085":                             "\x7f\u0085",
	} {
		for _, file := range []string{"a.json", "a.yaml"} {
			set := read(t, file, strings.NewReplacer("NAME", "web", "TEXT", text).Replace(object))
			if got := set.Objects.Services[0].Annotations["a"]; got != want {
				t.Errorf("%s: %s: %q, want %q", file, text, got, want)
			}
		}
	}
	// Several values one after the other, with lines of their own.
	many := strings.ReplaceAll(object, "NAME", "one") + "\n\n" + strings.ReplaceAll(object, "NAME", "two") + strings.ReplaceAll(object, "NAME", "three")
	set := read(t, "a.json", many)
	lines := map[string]int{}
	for name, o := range set.seen {
		lines[name] = o.Line
	}
	if diff := cmp.Diff(map[string]int{"Service default/one": 1, "Service default/two": 3, "Service default/three": 3}, lines); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	for text, want := range map[string]string{
		"{\n\"a\": \"b\" \"c\"}":             "a.json:2: invalid character '\"' after object key:value pair",
		"{\n\"apiVersion\": \"v1\"\n\n":      "a.json:2: unexpected EOF",
		"{\n\"a\": \"\\x\"}":                 "a.json:2: invalid character 'x' in string escape code",
		"[\n{}]":                             "a.json:1: want a Kubernetes object with apiVersion and kind",
		"{\n\"a\": 1,\n\"a\": 2}":            "a.json:1: apiVersion and kind are needed",
		"{\"name\": \"x\", \"scripts\": {}}": "a.json:1: apiVersion and kind are needed: this looks like a package.json of npm, so move it out of the directory",
		"{\n\"apiVersion\": \"v1\",\n\"kind\": \"Service\",\n\"kind\": \"Service\", \"metadata\": {\"name\": \"x\"}}":                      `a.json:4: Service default/x: mapping key "kind" already defined at line 3`,
		"{\"apiVersion\": \"v1\", \"kind\": \"Service\",\n\"metadata\": {\"name\": \"x\"},\n\"spec\": {\"ports\": [\n{\"port\": 99999}]}}": "a.json:4: Service default/x: spec.ports[0].port: 99999 is not a port: use 1 to 65535",
	} {
		if _, err := Parse("a.json", []byte(text)); err.Error() != want {
			t.Errorf("%s\nerror %v\nwant  %s", text, err, want)
		}
	}
}

func TestParse_EncodingsAndDocuments(t *testing.T) {
	two := service + "--- # the next\n" + strings.ReplaceAll(service, "web", "other")
	wide := func(text string) string {
		out := "\xff\xfe"
		for _, u := range utf16.Encode([]rune(text)) {
			out += string([]byte{byte(u), byte(u >> 8)})
		}
		return out
	}
	for name, text := range map[string]string{
		"plain": two, "CRLF": strings.ReplaceAll(two, "\n", "\r\n"), "byte order mark": "\ufeff" + two, "UTF-16": wide(two),
		"directive": "%YAML 1.1\n---\n" + two, "end of document": strings.Replace(two, "---", "...\n---", 1),
		"no newline at the end": strings.TrimSpace(two), "JSON": "\ufeff{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"web\"}}," +
			"{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"other\"}}]}",
		"text that looks like a marker": strings.Replace(two, "{name: web}", "{name: web, annotations: {a: \"\n --- \n\"}}", 1),
	} {
		set := read(t, "a.yaml", text)
		if got := slices.Sorted(maps.Keys(set.seen)); !slices.Equal(got, []string{"Service default/other", "Service default/web"}) {
			t.Errorf("%s: read %v", name, got)
		}
	}
	// What has no --- before it is not passed over.
	_, err := Parse("a.yaml", []byte(service+"...\n"+service))
	if want := "a.yaml:6: did not find expected <document start>"; err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	// A fault hides no other.
	_, err = Parse("a.yaml", []byte("a: [\n---\nb: *no\n---\n"+service))
	if len(err) != 2 || err[1].Line != 3 {
		t.Errorf("errors %v, want two", err)
	}
}

func TestParse_SaysWhoseAFileIs(t *testing.T) {
	for text, want := range map[string]string{
		"services:\n  web:\n    image: nginx\n":       ": this looks like a Docker Compose file, so move it out of the directory",
		"version: '3'\nservices: {web: {build: .}}\n": ": this looks like a Docker Compose file, so move it out of the directory",
		"on: push\njobs: {}\n":                        ": this looks like a workflow of GitHub Actions, so move it out of the directory",
		"network: {version: 2, ethernets: {}}\n":      ": this looks like a configuration of netplan, so move it out of the directory",
		"colour: blue\n":                              "",
		"- hosts: all\n  tasks: []\n":                 ": this looks like a playbook of Ansible, so move it out of the directory",
	} {
		_, err := Parse("a.yaml", []byte(text))
		if !strings.HasSuffix(err.Error(), "apiVersion and kind are needed"+want) && !strings.HasSuffix(err.Error(), "with apiVersion and kind"+want) {
			t.Errorf("%s\nerror %v, want ...%s", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"apiVersion: v1\nmetadata: {name: x}\n":       "a.yaml:1: x: kind is needed",
		"kind: Gateway\nmetadata: {name: x}\n":        "a.yaml:1: Gateway x: apiVersion is needed: write apiVersion: gateway.networking.k8s.io/v1",
		"kind: Widget\nmetadata: {name: x}\n":         "a.yaml:1: Widget x: apiVersion is needed",
		"apiVersion: v2\nname: blixt\nversion: 1.0\n": "a.yaml:1: kind is needed: this looks like a Chart.yaml of Helm, so move it out of the directory",
		"a: {{ .Values.a }}\n":                        "a.yaml:1: invalid map key: map[interface {}]interface {}{\".Values.a\":interface {}(nil)}. This looks like a template: render it first, such as with helm template",
	} {
		if _, err := Parse("a.yaml", []byte(text)); err.Error() != want {
			t.Errorf("%s\nerror %v\nwant  %s", text, err, want)
		}
	}
}

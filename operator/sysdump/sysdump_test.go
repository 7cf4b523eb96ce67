// SPDX-License-Identifier: Apache-2.0

package sysdump_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/kube"
	"github.com/kubernetes-sigs/blixt/operator/sysdump"
)

// Planted secrets: none may be anywhere in an archive.
const (
	planted   = "hunter2-planted"
	plantedIP = "203.0.113.77"
	planted6  = "2001:db8:77::77"
	jwt       = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.c2lnbmF0dXJlLXBsYW50ZWQ"
	pem       = "-----BEGIN RSA PRIVATE KEY-----\nMIIplanted\nhunter2-planted\n-----END RSA PRIVATE KEY-----"
)

// secretTexts are texts that have secrets in all the places where they have been seen.
var secretTexts = []string{
	"password=" + planted, "password: " + planted, `{"password": "` + planted + `"}`, `{"db_password":"a ` + planted + ` b"}`, `msg="said {\"token\": \"` + planted + `\"}"`,
	"DB_PASSWORD='x " + planted + "'", "--registry-password=" + planted, "--registry-password " + planted, "blixt run --token " + planted + " -f x",
	"Authorization: Bearer " + planted, "authorization: Basic " + planted, `Authorization="Token ` + planted + `"`, "bearer " + planted, "token " + jwt, jwt,
	pem, strings.ReplaceAll(pem, "\n", `\n`), "https://user:" + planted + "@registry.example.com/v2/", "https://" + planted + ":@registry.example.com/",
	"https://x.example.com/?access_token=" + planted + "&a=b", "aws AKIAIOSFODNN7EXAMPLE", "ghp_" + strings.Repeat("a", 36), "X-Api-Key: " + planted, "client_secret=" + planted,
	"-----BEGIN PRIVATE KEY-----\ncut " + planted,
}

func TestSecretsAreLeftOut(t *testing.T) {
	s := sysdump.NewScrubber()
	for _, text := range secretTexts {
		got := s.Text("before " + text + "\nafter")
		for _, secret := range []string{planted, "eyJ", "MIIplanted", "AKIAIOSFODNN7EXAMPLE", "ghp_aaaa"} {
			if strings.Contains(got, secret) {
				t.Errorf("%q becomes %q", text, got)
			}
		}
		if !strings.HasPrefix(got, "before ") {
			t.Errorf("%q becomes %q: too much is left out", text, got)
		}
	}
	for _, text := range []string{
		"image sha256:" + strings.Repeat("1", 64), "the token is refused", "12:00:00.123456 INFO serving frontends=1 took=2ms", "00:1a:2b:3c:4d:5e", "v1.37.2",
		"web.yaml:7: Gateway default/web: unknown field", "digest sha256:abcdef0123456789", "secretName", "fe80::1 127.0.0.1 ::1 0.0.0.0",
	} {
		if got := s.Text(text); got != text {
			t.Errorf("%q becomes %q", text, got)
		}
	}
}

func TestClientsAreReplaced(t *testing.T) {
	s := sysdump.NewScrubber()
	s.Know(netip.MustParseAddr("192.0.2.1"))
	s.Know(netip.MustParseAddr("2001:db8::1"))
	for _, text := range []string{
		plantedIP, plantedIP + ":40000", plantedIP + ".", "client=" + plantedIP + ", ", planted6, "[" + planted6 + "]:443", "(" + planted6 + ")", "::ffff:" + plantedIP,
		`"` + plantedIP + `"`, plantedIP + "/32", "at " + planted6 + "%eth0:", plantedIP + "->192.0.2.1",
	} {
		got := s.Text("192.0.2.1 2001:db8::1 " + text)
		if strings.Contains(got, "203.0.113") || strings.Contains(got, "db8:77") || !strings.Contains(got, "client-") || !strings.HasPrefix(got, "192.0.2.1 2001:db8::1 ") {
			t.Errorf("%q becomes %q", text, got)
		}
	}
	if s.Text(plantedIP) != s.Text("::ffff:"+plantedIP) || s.Text(plantedIP) == s.Text(planted6) || s.Text(plantedIP) == sysdump.NewScrubber().Text(plantedIP) {
		t.Error("an address has one name, in one archive")
	}
	s.KeepClients = true
	if got := s.Text(plantedIP); got != plantedIP {
		t.Errorf("kept: %s", got)
	}
}

// archive is what is in one, by name without the directory.
func archive(t *testing.T, packed []byte) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(packed))
	must(t, err)
	files := map[string]string{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		must(t, err)
		text, err := io.ReadAll(r)
		must(t, err)
		name, is := strings.CutPrefix(h.Name, "root/")
		if !is || strings.Contains(name, "..") || h.Mode != 0o600 {
			t.Errorf("file %s, mode %o", h.Name, h.Mode)
		}
		files[name] = string(text)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// None of what is planted all over a cluster is in its archive, and what is needed is.
func TestArchiveOfAClusterHasNoSecrets(t *testing.T) {
	note := map[string]string{
		"kubectl.kubernetes.io/last-applied-configuration": `{"data":{"x":"` + planted + `"}}`, "example.com/note": planted, "gateway.networking.k8s.io/bundle-version": "v1.6.3",
	}
	object := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: note}
	}
	container := corev1.Container{
		Name: "agent", Env: []corev1.EnvVar{{Name: "HARMLESS_NAME", Value: planted}}, Args: []string{"--registry-password", planted, "--token=" + planted, "--flows=4096"},
		Command:       []string{"sh", "-c", "curl -H 'Authorization: Bearer " + planted + "' x"},
		LivenessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{HTTPHeaders: []corev1.HTTPHeader{{Name: "X-Whatever", Value: planted}}}}},
	}
	secretRead := false
	as := fake.NewClientBuilder().WithScheme(kube.Scheme).WithObjects(
		&corev1.Secret{ObjectMeta: object("blixt-system", "sh.helm.release.v1.blixt.v1"), Data: map[string][]byte{"release": []byte(planted)}},
		&corev1.ConfigMap{ObjectMeta: object("blixt-system", "values"), Data: map[string]string{"x": planted}},
		&corev1.Node{ObjectMeta: object("", "n1"), Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: "InternalIP", Address: "192.0.2.11"}}}},
		&corev1.Pod{ObjectMeta: object("blixt-system", "agent-1"), Spec: corev1.PodSpec{Containers: []corev1.Container{container}}, Status: corev1.PodStatus{PodIP: "10.244.1.7"}},
		&corev1.Pod{ObjectMeta: object("shop", "customer"), Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: planted}}}},
		&corev1.Event{ObjectMeta: object("blixt-system", "e"), Message: "pull with password=" + planted + " for " + plantedIP},
		&gwv1.Gateway{ObjectMeta: object("shop", "web"), Status: gwv1.GatewayStatus{Conditions: []metav1.Condition{{Type: "Programmed", Message: "Serves " + plantedIP}}}},
	).WithInterceptorFuncs(interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, o ...client.ListOption) error {
		kind := list.GetObjectKind().GroupVersionKind().Kind
		secretRead = secretRead || strings.HasPrefix(kind, "Secret") || strings.HasPrefix(kind, "ConfigMap")
		if kind == "LeaseList" {
			return errors.New("leases is forbidden: token=" + planted)
		}
		return c.List(ctx, list, o...)
	}}).Build()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("previous") == "true" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, "INFO serving 192.0.2.11\n"+strings.Join(secretTexts[:10], "\n")+"\n"+
			`{"v":1,"event":"end","client":{"address":"10.244.1.7","port":40000},"server":{"address":"192.0.2.11","port":443}}`+"\n"+"WARN client "+plantedIP+":4711 and "+planted6+"\n")
	}))
	defer server.Close()
	logs, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
	must(t, err)

	var packed bytes.Buffer
	d := sysdump.New(&packed, "root", "v1", sysdump.NewScrubber())
	d.AddCluster(t.Context(), &sysdump.Cluster{Client: as, Logs: logs, Namespaces: []string{"blixt-system"}, LogsSince: time.Hour, Pods: 2})
	failed, err := d.Close()
	must(t, err)
	if failed != 1 || secretRead {
		t.Errorf("%d things failed, want 1; secrets were read: %v", failed, secretRead)
	}
	files := archive(t, packed.Bytes())
	for name, text := range files {
		for _, secret := range []string{planted, plantedIP, planted6, "eyJ", "MIIplanted", "10.244.1.7\",\"port"} {
			if strings.Contains(name+text, secret) {
				t.Errorf("%s has %s:\n%s", name, secret, text)
			}
		}
	}
	for name, words := range map[string][]string{
		"objects/node.yaml":                   {"192.0.2.11", "bundle-version: v1.6.3"},
		"objects/pod.yaml":                    {"HARMLESS_NAME", "--flows=4096", "10.244.1.7"},
		"objects/gateway.yaml":                {"Serves client-"},
		"logs/blixt-system/agent-1/agent.log": {"INFO serving 192.0.2.11", "WARN client client-"},
		"index.json":                          {"leases is forbidden", `"records": 1`, "the container has not ended before", `"version": "v1"`},
	} {
		for _, word := range words {
			if !strings.Contains(files[name], word) {
				t.Errorf("%s has no %s:\n%s", name, word, files[name])
			}
		}
	}
	for _, name := range []string{"objects/secret.yaml", "objects/configmap.yaml"} {
		if _, is := files[name]; is {
			t.Errorf("there is %s", name)
		}
	}
}

func TestFilesOfOthersAreLeftOut(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata: {a: " + planted + "}\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: web, annotations: {note: " + planted + "}}\nspec: {addresses: [{value: 192.0.2.1}]}\n",
		"b.yaml": "kind: [ " + planted, "c.json": `{"kind": "List", "items": [{"kind": "Secret", "x": "` + planted + `"}, {"kind": "Service", "metadata": {"name": "svc"}}]}`,
		"compose.yml": "services: {x: " + planted + "}", "d.txt": planted, "huge.yaml": "# " + strings.Repeat("x", 2<<20),
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	s := sysdump.NewScrubber()
	text, err := s.Files([]string{dir, "-", filepath.Join(dir, "not")})
	if err == nil || strings.Contains(err.Error(), planted) || !strings.Contains(err.Error(), "b.yaml") || !strings.Contains(err.Error(), "huge.yaml") {
		t.Errorf("errors: %v", err)
	}
	got := s.Text(string(text))
	if strings.Contains(got, planted) || !strings.Contains(got, "name: web") || !strings.Contains(got, "name: svc") || !strings.Contains(got, "192.0.2.1") {
		t.Errorf("got:\n%s", got)
	}
}

// What fails, hangs, is missing or too large is noted, and the rest is there.
func TestArchiveGoesOn(t *testing.T) {
	var packed bytes.Buffer
	d := sysdump.New(&packed, "root", "v1", sysdump.NewScrubber())
	d.Limit = 50 * time.Millisecond
	ctx := t.Context()
	d.Add(ctx, "fails", "x", func(context.Context) ([]byte, error) { return nil, errors.New("password=" + planted) })
	d.Add(ctx, "half", "x", func(context.Context) ([]byte, error) { return []byte("half"), errors.New("cut") })
	d.Add(ctx, "missing", "x", func(context.Context) ([]byte, error) { return os.ReadFile("/nowhere") })
	d.Add(ctx, "hangs", "x", func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() })
	d.Add(ctx, "../../etc/\x1b[2J/large", "x", func(context.Context) ([]byte, error) { return bytes.Repeat([]byte("0123456 "), 2<<20), nil })
	d.AddCommand(ctx, "no-command", "blixt-has-no-such-command")
	if _, err := exec.LookPath("sleep"); err == nil {
		d.AddCommand(ctx, "slow", "sleep", "60")
	}
	d.AddJSON(ctx, "good.json", "x", func(context.Context) (any, error) { return runtime.TypeMeta{Kind: "good"}, nil })
	failed, err := d.Close()
	must(t, err)
	files := archive(t, packed.Bytes())
	var index sysdump.Index
	must(t, json.Unmarshal([]byte(files["index.json"]), &index))
	by := map[string]sysdump.Entry{}
	for _, e := range index.Entries {
		by[e.File] = e
	}
	if failed != 4 || by["fails"].Error == "" || by["half"].Error == "" || by["hangs"].Error == "" || by["missing"].Absent == "" || by["no-command"].Absent == "" {
		t.Errorf("%d failed: %+v", failed, index.Entries)
	}
	if files["half"] != "half" || !strings.Contains(files["good.json"], "good") || strings.Contains(files["index.json"], planted) {
		t.Errorf("got %v", files)
	}
	if text := files[`etc/\u001b[2J/large`]; len(text) != 8<<20 || by["../../etc/\x1b[2J/large"].Cut != 8<<20 {
		t.Errorf("a large one has %d bytes, and %d are cut", len(text), by["../../etc/\x1b[2J/large"].Cut)
	}
}

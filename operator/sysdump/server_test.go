// SPDX-License-Identifier: Apache-2.0

package sysdump_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	"github.com/kubernetes-sigs/blixt/operator/admin/overview"
	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/sysdump"
)

var server *kube.Server

func TestMain(m *testing.M) { os.Exit(kube.Run(m, kube.Options{}, &server)) }

// Of a real API server, an administrator gets all, and a user with rights for some kinds
// gets those and is told of the others; neither gets a secret.
func TestArchiveHasWhatItsUserMayRead(t *testing.T) {
	admin, err := client.New(server.Config, client.Options{Scheme: kube.Scheme})
	must(t, err)
	meta := metav1.ObjectMeta{Name: "some", Namespace: "blixt-system", Annotations: map[string]string{"example.com/note": planted}}
	for _, o := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "blixt-system"}},
		&corev1.Secret{ObjectMeta: meta, StringData: map[string]string{"x": planted}},
		&corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"x": planted}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Annotations: meta.Annotations}},
		&corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "some"}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"nodes", "services"}, Verbs: []string{"list"}},
			{APIGroups: []string{"gateway.networking.k8s.io"}, Resources: []string{"*"}, Verbs: []string{"list"}},
		}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "some"}, RoleRef: rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "some"},
			Subjects: []rbacv1.Subject{{APIGroup: "rbac.authorization.k8s.io", Kind: "User", Name: "ann"}}},
	} {
		must(t, client.IgnoreAlreadyExists(admin.Create(t.Context(), o)))
	}
	as := rest.CopyConfig(server.Config)
	as.Impersonate.UserName = "ann"
	for name, c := range map[string]struct {
		config *rest.Config
		has    string
		fails  []string
	}{
		"administrator": {server.Config, "objects/lease.yaml", nil},
		"ann":           {as, "objects/gateway.yaml", []string{"Pod", "Event", "NodeDataplane", "CustomResourceDefinition"}},
	} {
		t.Run(name, func(t *testing.T) {
			reader, err := client.New(c.config, client.Options{Scheme: kube.Scheme})
			must(t, err)
			logs, err := kubernetes.NewForConfig(c.config)
			must(t, err)
			var files map[string]string
			kube.Wait(t, time.Minute, "archive", "", func() (string, error) { // until RBAC has the role
				var packed bytes.Buffer
				d := sysdump.New(&packed, "root", "v1", sysdump.NewScrubber())
				d.AddCluster(t.Context(), &sysdump.Cluster{Client: reader, Logs: logs, Namespaces: []string{"blixt-system"}, LogsSince: time.Hour, Pods: 2})
				if _, err := d.Close(); err != nil {
					return "", err
				}
				files = archive(t, packed.Bytes())
				if !strings.Contains(files["objects/node.yaml"], "name: n1") || !strings.Contains(files["objects/service.yaml"], "name: some") {
					return files["index.json"], nil
				}
				return "", nil
			})
			for file, text := range files {
				if strings.Contains(text, planted) {
					t.Errorf("%s has a secret:\n%s", file, text)
				}
			}
			if _, is := files[c.has]; !is {
				t.Errorf("there is no %s", c.has)
			}
			for _, kind := range c.fails {
				if !strings.Contains(files["index.json"], `"from": "list `+kind) || !strings.Contains(files["index.json"], "forbidden") {
					t.Errorf("index.json does not say that %s is forbidden:\n%s", kind, files["index.json"])
				}
				if files["objects/"+strings.ToLower(kind)+".yaml"] != "" {
					t.Errorf("there is a file of %s", kind)
				}
			}

			// What could not be read is no reason to call it well.
			facts, err := doctor.Read(t.Context(), reader, "v1.37.2", "blixt-system")
			must(t, err)
			found := overview.Check(facts)
			if finding.Verdict(found) == finding.OK || (finding.Count(found, finding.Unknown) > 5) != (len(c.fails) > 0) {
				t.Errorf("the overview says %+v", found)
			}
		})
	}
}

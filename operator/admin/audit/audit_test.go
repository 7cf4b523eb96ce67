// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/admin/audit"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

func TestAsDeclared(t *testing.T) {
	s := newScene(t)
	account := rbacv1.Subject{Kind: "ServiceAccount", Namespace: "team", Name: "deployer"}
	s.grant("team", account, rbacv1.PolicyRule{APIGroups: []string{"bpfman.io"}, Resources: []string{"*"}, Verbs: []string{"get", "patch"}})
	s.grant("reader", account, rbacv1.PolicyRule{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"get", "list", "watch"}})
	r := s.audit(s.kube, s.key)
	if len(r.Problems) > 0 || r.Failures() > 0 {
		t.Errorf("problems: got %+v, want none", r.Problems)
	}
	if r.Declared != s.image {
		t.Errorf("declared: got %s, want %s", r.Declared, s.image)
	}
	var got []string
	for _, p := range r.Programs {
		got = append(got, fmt.Sprintf("%s %s@%s %d links, layout %d, %d frontends, since %t", p.Node, p.Image, p.Digest, len(p.Links), p.Layout, p.Frontends, p.Since != nil && p.AckedAt != nil && p.ID != nil))
	}
	if diff := cmp.Diff([]string{"n1 " + s.image + " 2 links, layout 2, 2 frontends, since true", "n2 " + s.image + " 2 links, layout 2, 2 frontends, since true"}, got); diff != "" {
		t.Errorf("programs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]audit.Image{{Name: s.image, Layout: int32(bpf.Layout), VerifiedBy: []string{s.key.ID}}}, r.Images); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
	want := []audit.Writer{
		{Subject: "Group system:masters", Binding: "cluster-admin", Role: "cluster-admin", Resources: []string{
			"blixtconfigs", "clusterbpfapplications", "validatingadmissionpolicies", "validatingadmissionpolicybindings",
			"pods", "replicationcontrollers", "deployments", "daemonsets", "replicasets", "statefulsets", "jobs", "cronjobs",
			"pods/exec", "pods/attach", "pods/ephemeralcontainers", "serviceaccounts/token", "secrets",
		}},
		// Whoever reads the Secrets of Blixt's namespace has the operator's certificate.
		{Subject: "ServiceAccount team/deployer", Binding: "reader", Role: "reader", Resources: []string{"pods/exec", "pods/attach", "secrets"}},
		{Subject: "ServiceAccount team/deployer", Binding: "team", Role: "team", Resources: []string{"clusterbpfapplications"}},
	}
	writers := slices.DeleteFunc(r.Writers, func(w audit.Writer) bool { return strings.HasPrefix(w.Binding, "system:") })
	if diff := cmp.Diff(want, writers); diff != "" {
		t.Errorf("writers (-want +got):\n%s", diff)
	}
}

func TestOtherInterfacesAsDeclared(t *testing.T) {
	for name, interfaces := range map[string]v1alpha1.Interfaces{
		"names":    {Names: []string{"eth7"}},
		"discover": {Discover: &v1alpha1.Discover{Allow: []string{"/eth[0-9]/"}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSceneOf(t, interfaces)
			if r := s.audit(s.kube, s.key); len(r.Problems) > 0 {
				t.Errorf("problems: got %+v, want none", r.Problems)
			}
		})
	}
}

func (s *scene) grant(name string, to rbacv1.Subject, rule rbacv1.PolicyRule) {
	s.Helper()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{rule}}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: []rbacv1.Subject{to},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
	}
	for _, object := range []client.Object{role, binding} {
		s.must(s.kube.Create(s.Context(), object))
		s.Cleanup(func() { s.must(s.kube.Delete(context.WithoutCancel(s.Context()), object)) })
	}
}

// set makes a condition of a node's something else.
func set(kind, status, reason string) func(*v1alpha1.NodeDataplaneStatus) {
	return func(n *v1alpha1.NodeDataplaneStatus) {
		for i := range n.Conditions {
			if c := &n.Conditions[i]; c.Type == kind {
				c.Status, c.Reason = metav1.ConditionStatus(status), reason
			}
		}
	}
}

// tampered are what somebody, or bpfman, may do, and all that is to be found.
// An object is given by its kind, of which there is one or the one of node n1.
var tampered = []struct {
	name   string
	tamper func(s *scene, application string)
	want   []string // severity, reason, kind
}{
	{"another digest in the application", func(s *scene, app string) {
		s.kubectl(&bpfmanv1.ClusterBpfApplication{}, app, `{"spec":{"byteCode":{"image":{"url":"`+s.plain+`"}}}}`)
	}, []string{
		"failed AnotherDigest ClusterBpfApplication", "failed AnotherDigest NodeDataplane", "failed AnotherDigest NodeDataplane", "failed ForeignManager ClusterBpfApplication",
		"failed ImageNotVerified image",
	}},
	{"a program is missing", func(s *scene, _ string) { s.bpfman.Break("n1", kube.LoadFails); s.bpfman.Forget("n1") },
		[]string{"failed ProgramMissing ClusterBpfApplicationState"}},
	{"no links", func(s *scene, _ string) { s.bpfman.Break("n1", kube.LinksEmpty); s.bpfman.Forget("n1") },
		[]string{"failed AnotherProgram ClusterBpfApplicationState", "failed LinkMissing ClusterBpfApplicationState"}},
	{"links are not attached", func(s *scene, _ string) { s.bpfman.Break("n1", kube.AttachFails); s.bpfman.Forget("n1") },
		[]string{"failed AnotherProgram ClusterBpfApplicationState", "failed LinkMissing ClusterBpfApplicationState", "failed LinkMissing ClusterBpfApplicationState"}},
	{"a program was loaded behind the agent's back", func(s *scene, _ string) { s.bpfman.Forget("n1") },
		[]string{"failed AnotherProgram ClusterBpfApplicationState"}},
	{"somebody else writes the maps", func(s *scene, _ string) { s.node("n1", set("Drifted", "True", "ForeignWriter")) },
		[]string{"failed ForeignWriter NodeDataplane"}},
	{"maps are of an old generation", func(s *scene, _ string) { s.node("n1", set("Ready", "False", "Outdated")) },
		[]string{"failed OldGeneration NodeDataplane"}},
	{"a node serves nothing", func(s *scene, _ string) { s.node("n1", set("Ready", "False", "ProgramGone")) },
		[]string{"failed NotReady NodeDataplane"}},
	{"an agent is silent", func(s *scene, _ string) {
		s.node("n1", func(n *v1alpha1.NodeDataplaneStatus) { n.LastContact.Time = time.Now().Add(-time.Hour) })
	}, []string{"failed Silent NodeDataplane"}},
	{"the operator does not know of a program", func(s *scene, _ string) {
		s.node("n1", func(n *v1alpha1.NodeDataplaneStatus) { n.Applications = nil })
	}, []string{"failed Silent ClusterBpfApplicationState"}},
	{"maps of another layout", func(s *scene, _ string) {
		s.node("n1", func(n *v1alpha1.NodeDataplaneStatus) { n.Applications[0].Layout = 7 })
	}, []string{"failed AnotherLayout NodeDataplane"}},
	{"another is declared, and nobody has loaded it", func(s *scene, _ string) {
		s.kubectl(&v1alpha1.BlixtConfig{}, "blixt", `{"spec":{"dataplane":{"bytecode":{"image":"`+s.plain+`"}}}}`)
	}, []string{
		"failed ImageNotVerified image", "failed OldGeneration ClusterBpfApplication", "failed ProgramMissing Node", "failed ProgramMissing Node",
	}},
	{"the one of before drains", func(s *scene, app string) {
		for _, name := range []string{"n1", "n2"} {
			s.must(s.kube.Delete(s.Context(), &v1alpha1.NodeDataplane{ObjectMeta: metav1.ObjectMeta{Name: name}}))
		}
		s.run(s.plain)
		for _, name := range []string{"n1", "n2"} {
			s.node(name, func(n *v1alpha1.NodeDataplaneStatus) {
				for _, state := range s.states(app) {
					if state.Status.Node == name {
						old := *n.Applications[0].DeepCopy()
						old.Name, old.Draining, old.ProgramID = app, true, new(int64(*state.Status.Programs[0].ProgramId))
						old.Bytecode.Digest = s.image[strings.Index(s.image, "@")+1:]
						n.Applications = append(n.Applications, old)
					}
				}
			})
		}
		s.kubectl(&v1alpha1.BlixtConfig{}, "blixt", `{"spec":{"dataplane":{"bytecode":{"image":"`+s.plain+`"}}}}`)
	}, []string{"failed ImageNotVerified image", "warning OldGeneration ClusterBpfApplication"}},
	{"an image is not in the registry", func(s *scene, _ string) {
		s.kubectl(&v1alpha1.BlixtConfig{}, "blixt", `{"spec":{"dataplane":{"bytecode":{"image":"`+s.image[:strings.Index(s.image, "@")]+"@sha256:"+strings.Repeat("9", 64)+`"}}}}`)
	}, []string{
		"failed ImageNotFound image", "failed OldGeneration ClusterBpfApplication", "failed ProgramMissing Node", "failed ProgramMissing Node",
	}},
	{"the priority was changed", func(s *scene, app string) {
		s.kubectl(&bpfmanv1.ClusterBpfApplication{}, app, `{"metadata":{"annotations":{"blixt.x-k8s.io/priority":"900+0"}}}`)
	}, []string{"failed ForeignManager ClusterBpfApplication"}},
	{"nodes were left out", func(s *scene, app string) {
		s.kubectl(&bpfmanv1.ClusterBpfApplication{}, app, `{"spec":{"nodeSelector":{"matchLabels":{"a":"b"}}}}`)
	}, []string{"failed AnotherSpec ClusterBpfApplication", "failed ForeignManager ClusterBpfApplication"}},
	{"other interfaces", func(s *scene, app string) {
		s.kubectl(&bpfmanv1.ClusterBpfApplication{}, app, `{"spec":{"programs":[{"name":"blixt","type":"TCX","tcx":{"links":[{"direction":"Ingress","interfaceSelector":{"interfaces":["eth7"]}}]}}]}}`)
	}, []string{
		"failed AnotherSpec ClusterBpfApplication", "failed ForeignManager ClusterBpfApplication",
		"failed LinkMissing ClusterBpfApplicationState", "failed LinkMissing ClusterBpfApplicationState",
	}},
	{"data was given to the program", func(s *scene, app string) {
		s.kubectl(&bpfmanv1.ClusterBpfApplication{}, app, `{"spec":{"globalData":{"x":"AQ=="}}}`)
	}, []string{"failed AnotherSpec ClusterBpfApplication", "failed ForeignManager ClusterBpfApplication"}},
	{"the operator's label is gone", func(s *scene, app string) {
		s.kubectl(&bpfmanv1.ClusterBpfApplication{}, app, `{"metadata":{"labels":{"app.kubernetes.io/managed-by":"me"}}}`)
	}, []string{"failed AnotherSpec ClusterBpfApplication", "failed ForeignManager ClusterBpfApplication"}},
	{"a program of nobody", func(s *scene, _ string) {
		s.must(s.kube.Create(s.Context(), &bpfmanv1.ClusterBpfApplicationState{ObjectMeta: metav1.ObjectMeta{
			Name: "orphan", Labels: map[string]string{"bpfman.io/ownedByProgram": "gone", corev1.LabelHostname: "n1"},
		}}))
	}, []string{"failed NobodysProgram ClusterBpfApplicationState"}},
	{"nothing is declared", func(s *scene, _ string) {
		class := s.class()
		s.must(s.kube.Delete(s.Context(), class))
	}, []string{"failed OldGeneration ClusterBpfApplication"}},
	{"a program of others comes first", func(s *scene, app string) { s.other(app, 10) },
		[]string{"warning ProgramBefore ClusterBpfApplication", "warning ProgramBefore ClusterBpfApplication"}},
	{"a program of others comes later", func(s *scene, app string) { s.other(app, 90) }, nil},
}

// other attaches a program of somebody else's at ingress.
func (s *scene) other(app string, priority int32) {
	s.Helper()
	stored := &bpfmanv1.ClusterBpfApplication{}
	s.must(s.kube.Get(s.Context(), client.ObjectKey{Name: app}, stored))
	other := &bpfmanv1.ClusterBpfApplication{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: stored.Spec}
	other.Spec.Programs[0].Name = "snoop"
	other.Spec.Programs[0].TCX.Links = other.Spec.Programs[0].TCX.Links[:1]
	other.Spec.Programs[0].TCX.Links[0].Priority = &priority
	s.must(s.kube.Create(s.Context(), other))
	kube.Wait(s.T, 10*time.Second, "other", 2, func() (n int, err error) {
		for _, state := range s.states("other") {
			if state.Status.AppLoadStatus == bpfmanv1.AppLoadSuccess {
				n++
			}
		}
		return n, nil
	})
}

func TestTampered(t *testing.T) {
	for _, c := range tampered {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t)
			c.tamper(s, rollout.Name(s.image))
			kube.Wait(t, 10*time.Second, "problems", c.want, func() (got []string, err error) {
				for _, p := range s.audit(s.kube, s.key).Problems {
					kind, _, _ := strings.Cut(p.Object, " ")
					got = append(got, string(p.Severity)+" "+p.Reason+" "+kind)
					if p.Message == "" {
						t.Errorf("%+v says nothing", p)
					}
				}
				return got, nil
			})
		})
	}
}

// A registry that nobody may believe is not one that lacks the image.
func TestRegistryNotTrusted(t *testing.T) {
	s := newScene(t)
	s.options.CAFile = ""
	r := s.audit(s.kube, s.key)
	if len(r.Problems) != 1 || r.Problems[0].Reason != audit.ImageUnread || !strings.Contains(r.Problems[0].Message, "is not trusted") {
		t.Errorf("problems: got %+v, want %s, whose registry is not trusted", r.Problems, audit.ImageUnread)
	}
}

// What may not be read is said, and is no success.
func TestUnread(t *testing.T) {
	s := newScene(t)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "blixt-system", Name: "nobody"}}
	s.must(client.IgnoreAlreadyExists(s.kube.Create(t.Context(), account)))
	config, err := server.AsServiceAccount(t.Context(), "blixt-system", "nobody")
	s.must(err)
	nobody, err := client.New(config, client.Options{Scheme: kube.Scheme})
	s.must(err)
	f, err := audit.Read(t.Context(), nobody, "blixt-system")
	s.must(err)
	if r := audit.Audit(f); r.Failures() < 14 || !strings.Contains(r.Problems[0].Message, "cannot be read") {
		t.Errorf("got %+v, want that fourteen kinds could not be read", r.Problems)
	}
}

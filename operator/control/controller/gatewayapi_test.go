// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
)

// kindsOf returns the CRDs of a release and channel of Gateway API.
func kindsOf(t *testing.T, g kube.GatewayAPI) map[string]*apiextv1.CustomResourceDefinition {
	t.Helper()
	files, err := g.Files()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*apiextv1.CustomResourceDefinition{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		crd := &apiextv1.CustomResourceDefinition{}
		if err := yaml.Unmarshal(text, crd); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(crd.Name, ".gateway.networking.k8s.io") {
			all[crd.Name] = crd
		}
	}
	return all
}

// TestGatewayAPIs serves with the kinds of each release and channel that Blixt is for. Fields
// that its Go types lack are left as they are: the operator writes only status, and metadata of
// classes. doctor tells of them.
func TestGatewayAPIs(t *testing.T) {
	defer define(t, kindsOf(t, kube.Standard))
	for name, c := range map[kube.GatewayAPI]struct {
		spec, says string
	}{
		kube.Older: {says: "Gateway API is v1.6.3 standard"},
		kube.Experimental: {
			spec: `{"defaultScope":"All","addresses":[{"type":"IPAddress","value":"198.51.100.3","routability":"example.com/site"}]}`,
			says: "spec.addresses[0].routability",
		},
	} {
		t.Run("release "+string(name), func(t *testing.T) {
			o := prepare(t)
			define(t, kindsOf(t, name))
			o.run()
			o.apply(kube.WebGateway)
			key := client.ObjectKey{Namespace: "default", Name: "web"}
			gateway := &unstructured.Unstructured{}
			gateway.SetAPIVersion(gwv1.GroupVersion.String())
			gateway.SetKind("Gateway")
			gateway.SetNamespace(key.Namespace)
			gateway.SetName(key.Name)
			if c.spec != "" {
				o.must(o.kube.Patch(t.Context(), gateway, client.RawPatch("application/merge-patch+json", []byte(`{"spec":`+c.spec+`}`))))
			}
			o.must(o.kube.Get(t.Context(), key, gateway))
			want, generation := gateway.Object["spec"], gateway.GetGeneration()
			o.eventually("its status is of this generation", func() error {
				gw := named[gwv1.Gateway](key.Namespace, key.Name)
				if err := o.kube.Get(t.Context(), key, gw); err != nil {
					return err
				}
				for _, condition := range gw.Status.Conditions {
					if condition.Type == "Accepted" && condition.Status == "True" && condition.ObservedGeneration == generation {
						return nil
					}
				}
				return fmt.Errorf("%+v", gw.Status.Conditions)
			})
			o.condition(named[gwv1.TCPRoute]("default", "web"), "Accepted", "True Accepted", "")
			o.must(o.kube.Get(t.Context(), key, gateway))
			if diff := cmp.Diff(want, gateway.Object["spec"]); diff != "" || gateway.GetGeneration() != generation {
				t.Errorf("what people wrote (-want +got):\n%s\ngeneration %d, want %d", diff, gateway.GetGeneration(), generation)
			}
			facts, err := doctor.Read(t.Context(), o.kube, "v1.37.2", namespace)
			o.must(err)
			var said []string
			for _, f := range doctor.Check(facts) {
				if f.Check == "gateway-api" {
					said = append(said, fmt.Sprint(f))
				}
			}
			if !strings.Contains(strings.Join(said, "\n"), c.says) {
				t.Errorf("doctor says nothing of %q: %q", c.says, said)
			}
		})
	}
}

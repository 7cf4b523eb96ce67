// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

var server *kube.Server

func TestMain(m *testing.M) { os.Exit(kube.Run(m, kube.Options{}, &server)) }

// The API server rejects objects that cannot work, with a remedy, and accepts
// their valid twins.
func TestRefused(t *testing.T) {
	for _, c := range append(readCases(t, "testdata/refused.yaml"), readCases(t, "testdata/refused-policies.yaml")...) {
		t.Run(c.Name, func(t *testing.T) {
			if err := dryRun(t, c.Kind, c.Accepted); err != nil {
				t.Errorf("%v: want it accepted: %v", c.Accepted, err)
			}
			if diff := cmp.Diff(c.Want, causes(t, dryRun(t, c.Kind, c.Refused))); diff != "" {
				t.Errorf("%v: what is wrong with it (-want +got):\n%s", c.Refused, diff)
			}
		})
	}
}

// refusal is a case of testdata.
type refusal struct {
	Name, Kind        string
	Refused, Accepted map[string]any
	Want              []string
}

func readCases(t *testing.T, path string) []refusal {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var cases []refusal
	if err := yaml.UnmarshalStrict(data, &cases); err != nil {
		t.Fatal(err)
	}
	for i := range cases {
		if cases[i].Kind == "" {
			cases[i].Kind = "BlixtPolicy"
		}
	}
	return cases
}

func newObject(kind string) *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	object.SetName("a")
	if kind == "BlixtGatewayConfig" || kind == "BlixtPolicy" {
		object.SetNamespace("default")
	}
	return object
}

// dryRun asks the server whether it would take an object.
func dryRun(t *testing.T, kind string, spec map[string]any) error {
	t.Helper()
	object := newObject(kind)
	if kind == "BlixtPolicy" && spec["targetRefs"] == nil {
		spec["targetRefs"] = []any{map[string]any{"group": "gateway.networking.k8s.io", "kind": "TCPRoute", "name": "a"}}
	}
	object.Object["spec"] = spec
	return server.Client.Create(t.Context(), object, client.DryRunAll, client.FieldValidation("Strict"))
}

// causes are what an error of the server complains about, without the value.
func causes(t *testing.T, err error) (all []string) {
	t.Helper()
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		t.Fatalf("got %v, want the server to refuse it", err)
	}
	for _, cause := range status.Status().Details.Causes {
		if strings.HasPrefix(cause.Message, "Invalid value: null: some validation rules were not checked") {
			continue // it says to correct the others
		}
		message := strings.TrimPrefix(cause.Message, "Invalid value: ")
		if i := strings.LastIndex(message, `": `); i >= 0 {
			message = message[i+3:]
		}
		all = append(all, cause.Field+": "+message)
	}
	slices.Sort(all)
	return all
}

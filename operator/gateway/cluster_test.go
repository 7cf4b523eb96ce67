// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"slices"
	"testing"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/pkg/features"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

func TestPort_IsOneWord(t *testing.T) {
	want := gateway.Port{Protocol: lb.UDP, Port: 53}
	text, err := want.MarshalText()
	if err != nil || string(text) != "UDP/53" {
		t.Fatalf("text %q, error %v", text, err)
	}
	var got gateway.Port
	if err := got.UnmarshalText(text); err != nil || got != want {
		t.Errorf("read %v, error %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "UDP", "UDP/", "UDP/65536", "SCTP/53", "53/UDP"} {
		if err := got.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
}

// Gateway API must know each name: any other would select no conformance test.
func TestTranslate_SupportedFeaturesAreGatewayAPIs(t *testing.T) {
	c := common(t)
	var known []string
	for name := range features.AllFeatures {
		known = append(known, string(name.Name))
	}
	var got []string
	for _, f := range gateway.Translate(c.Objects, c.Options).Classes[0].Status.SupportedFeatures {
		got = append(got, string(f.Name))
		if !slices.Contains(known, string(f.Name)) {
			t.Errorf("Gateway API knows no feature %s", f.Name)
		}
	}
	for _, core := range []gwv1.FeatureName{"Gateway", "ReferenceGrant", "TCPRoute", "UDPRoute"} {
		if !slices.Contains(got, string(core)) {
			t.Errorf("feature %s is missing: %v", core, got)
		}
	}
	if !slices.IsSorted(got) {
		t.Errorf("features are not sorted: %v", got)
	}
}

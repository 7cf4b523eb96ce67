// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// ciliumConfig is where Cilium's agents read what they do.
var ciliumConfig = client.ObjectKey{Namespace: "kube-system", Name: "cilium-config"}

// readIPsec finds out whether Cilium encrypts by IPsec policies. Other network plugins
// encrypt what their tunnels send, behind the data plane.
func (f *Facts) readIPsec(ctx context.Context, c client.Reader) error {
	stored := &corev1.ConfigMap{}
	err := c.Get(ctx, ciliumConfig, stored)
	if err != nil && !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("get ConfigMap %s: %w", ciliumConfig, err)
	}
	f.CiliumIPsec = stored.Data["enable-ipsec"] == "true"
	return nil
}

// ipsec: what the data plane redirects past the nodes' network stack passes none of
// their IPsec policies.
func ipsec(f *Facts) (string, []Finding) {
	const good = "packets to other nodes are not redirected past IPsec policies that are known"
	if !f.CiliumIPsec || f.spec().RemoteBackends.Path == v1alpha1.RemotePathStack {
		return good, nil
	}
	return good, []Finding{warning("BlixtConfig", "Cilium encrypts by IPsec, as enable-ipsec of ConfigMap "+ciliumConfig.String()+" says, but packets to backends on other nodes are redirected past its policies: they may leave in clear text",
		"Set spec.dataplane.remoteBackends to {path: Stack}, and spec.addresses.podTraffic to KubeProxy for connections of pods; or have Cilium encrypt by WireGuard.")}
}

// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os/exec"

	"k8s.io/apimachinery/pkg/api/meta"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// Given is a cluster that others run. Tests have no more of it than every administrator
// has.
type Given struct {
	Kubeconfig string
	// Registry is the host and path that images are pushed to, with the
	// credentials of docker or podman login, and that nodes may pull from.
	Registry string
	// CA is a file with the certificate of the registry's authority; "": that is
	// one of the system's.
	CA string
}

// Use returns a cluster without machines. It refuses one that has Blixt, which tests
// would replace and remove.
func Use(ctx context.Context, g Given) (*Cluster, error) {
	if g.Registry == "" {
		return nil, errors.New("which registry? Name a host and path to push to, such as registry.example.com/blixt")
	}
	for _, program := range []string{"kubectl", "helm", "curl", "dig"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w: install it", err)
		}
	}
	c := &Cluster{given: &g}
	if err := c.connect(); err != nil {
		return nil, fmt.Errorf("use cluster of %s: %w", g.Kubeconfig, err)
	}
	var classes gwv1.GatewayClassList
	if err := c.Client.List(ctx, &classes); err != nil && !meta.IsNoMatchError(err) {
		return nil, fmt.Errorf("use cluster of %s: %w", g.Kubeconfig, err)
	}
	for _, class := range classes.Items {
		if class.Spec.ControllerName == gateway.ControllerName {
			return nil, fmt.Errorf("the cluster of %s has Blixt already (GatewayClass %s): name another, or helm uninstall blixt --namespace blixt-system", g.Kubeconfig, class.Name)
		}
	}
	return c, nil
}

// IsGiven reports whether others run the cluster.
func (c *Cluster) IsGiven() bool { return c.given != nil }

// Images returns the host and path of Blixt's images.
func (c *Cluster) Images() string {
	if c.given != nil {
		return c.given.Registry
	}
	return Registry + "/blixt"
}

// Kubeconfig returns the administrator's file, which works in the host's network.
func (c *Cluster) Kubeconfig() string {
	if c.given != nil {
		return c.given.Kubeconfig
	}
	return c.pki("admin.kubeconfig")
}

// CA returns the file with the certificate of the authority that has signed the
// registry's, "" if that is one of the system's. It has signed the API server's too,
// unless others run the cluster.
func (c *Cluster) CA() string {
	if c.given != nil {
		return c.given.CA
	}
	return c.pki("ca.crt")
}

// kubectl returns the path of kubectl.
func (c *Cluster) kubectl() string {
	if c.given != nil {
		return "kubectl"
	}
	return c.software.path(kubernetes + "/kubectl")
}

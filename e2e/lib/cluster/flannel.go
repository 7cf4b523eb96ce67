// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"regexp"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

//go:embed flannel.yaml
var flannelObjects []byte

const flannelConfig = `{"EnableIPv4": true, "Network": "%s", "EnableIPv6": true, "IPv6Network": "%s", "EnableNFTables": %t, "Backend": {"Type": "%s"}}
`

// What flannel tells network plugins.
const flannelEnv = "/run/flannel/subnet.env"

var flannelMTU = regexp.MustCompile(`(?m)^FLANNEL_MTU=(\d+)$`)

// startFlannel has flannel connect the pods of all nodes, by the subnets that the nodes
// tell the API server.
func (c *Cluster) startFlannel(ctx context.Context) error {
	if err := c.ApplyYAML(ctx, flannelObjects); err != nil {
		return err
	}
	for i, m := range c.Nodes {
		err := await(ctx, m.Name+" has registered", func() error {
			patch := fmt.Sprintf(`{"spec": %s}`, podCIDRs(i+1))
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: m.Name}}
			return c.Client.Patch(ctx, node, client.RawPatch(types.MergePatchType, []byte(patch)))
		})
		if err != nil {
			return err
		}
		config := fmt.Sprintf(flannelConfig, Pods4, Pods6, c.Options.Proxy == "nftables", c.Options.Flannel)
		if err := os.WriteFile(m.path("flannel.json"), []byte(config), 0o644); err != nil {
			return err
		}
		if err := m.Launch("flanneld", "env", "NODE_NAME="+m.Name, c.software.path(flannel+"/flanneld"), "--kube-subnet-mgr", "--ip-masq",
			"--kubeconfig-file="+c.pki("flannel.kubeconfig"), "--net-config-path="+m.path("flannel.json"),
			"--iface=eth0", "--public-ip="+m.IPv4, "--public-ipv6="+m.IPv6, "--v=2"); err != nil {
			return err
		}
	}
	for i, m := range c.Nodes {
		var mtu string
		err := await(ctx, "flannel on "+m.Name+" tells its MTU", func() error {
			text, err := os.ReadFile(m.File(flannelEnv))
			if err != nil {
				return err
			}
			match := flannelMTU.FindSubmatch(text)
			if match == nil {
				return fmt.Errorf("%s has no MTU: %s", flannelEnv, text)
			}
			mtu = string(match[1])
			return nil
		})
		if err != nil {
			return fmt.Errorf("%w: flannel said:\n%s", err, m.Log("flanneld"))
		}
		if err := c.writeNetwork(i+1, mtu); err != nil {
			return err
		}
	}
	return nil
}

// podCIDRs returns the subnets of a node's pods, as fields of its Node object.
func podCIDRs(i int) string {
	return fmt.Sprintf(`{"podCIDR": "%[1]s/24", "podCIDRs": ["%[1]s/24", "%[2]s/64"]}`, pods4(i), pods6(i))
}

// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// Every registry is ours: images are found by the names that they have anywhere.
const registryHosts = `server = "https://%[1]s"
ca = "%[2]s"
[host."https://%[1]s"]
capabilities = ["pull", "resolve"]
ca = "%[2]s"
`

const networkConfig = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [
{"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "mtu": %[3]s, "ipam": {
	"type": "host-local", "dataDir": "/var/lib/cni/networks",
	"ranges": [[{"subnet": "%[1]s/24"}], [{"subnet": "%[2]s/64"}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}},
{"type": "portmap", "capabilities": {"portMappings": true}}]}
`

const containerdConfig = `version = 3
[plugins.'io.containerd.cri.v1.images']
snapshotter = 'overlayfs'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '%[1]s/pause:1'
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '%[2]s'
[plugins.'io.containerd.cri.v1.runtime']
# Where root lacks CAP_SYS_RESOURCE, runc cannot lower it.
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['%[3]s']
conf_dir = '%[4]s'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: /%[1]s
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
address: "::"
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "%[2]s"}}
authorization: {mode: Webhook}
tlsCertFile: "%[3]s.crt"
tlsPrivateKeyFile: "%[3]s.key"
clusterDNS: ["%[4]s"]
clusterDomain: cluster.local
resolvConf: "%[5]s"
evictionHard: {memory.available: 100Mi, nodefs.available: 1%%, imagefs.available: 1%%}
imageGCHighThresholdPercent: 100
syncFrequency: 5s
nodeStatusUpdateFrequency: 5s
`

const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: %[1]s
bindAddress: "::"
metricsBindAddress: 127.0.0.1:10249
clusterCIDR: %[2]s,%[3]s
detectLocalMode: ClusterCIDR
hostnameOverride: %[4]s
clientConnection: {kubeconfig: "%[5]s"}
conntrack: {maxPerCore: 0}
`

// startNode starts the machine of a node, with containerd. The kubelet is started when
// there is an API server.
func (c *Cluster) startNode(i int) error {
	m := c.Nodes[i-1]
	if err := m.makeFolders(); err != nil {
		return err
	}
	for _, dir := range []string{"registries/_default", "networks"} {
		if err := os.MkdirAll(m.path(dir), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"registries/_default/hosts.toml": fmt.Sprintf(registryHosts, Registry, c.CA()),
		"containerd.toml":                fmt.Sprintf(containerdConfig, Registry, m.path("registries"), c.software.path(cni), m.path("networks")),
		"kubelet.yaml":                   fmt.Sprintf(kubeletConfig, c.space(m.Name), c.CA(), c.pki(m.Name), DNS, m.path("resolv.conf")),
		"kube-proxy.yaml":                fmt.Sprintf(proxyConfig, c.Options.Proxy, Pods4, Pods6, m.Name, c.pki("kube-proxy.kubeconfig")),
		"resolv.conf":                    "nameserver " + DNS + "\n",
	} {
		if err := os.WriteFile(m.path(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if c.Options.Flannel == "" {
		mtu := "1500"
		if c.Options.Overlay {
			mtu = overlayMTU
		}
		if err := c.writeNetwork(i, mtu); err != nil {
			return err
		}
	}
	// kube-proxy needs the bridge of pods filtered.
	if !lab.BridgeNetfilter() {
		return errors.New("the kernel has no br_netfilter, which kube-proxy needs")
	}
	m.Sysctl("net.bridge.bridge-nf-call-iptables=1", "net.bridge.bridge-nf-call-ip6tables=1")
	if err := m.Err(); err != nil {
		return err
	}
	if err := m.Launch("containerd", c.software.path(containerd+"/containerd"), "--config="+m.path("containerd.toml")); err != nil {
		return err
	}
	return c.PowerOn(m)
}

// writeNetwork configures the network of a node's pods, without which no pod starts.
func (c *Cluster) writeNetwork(i int, mtu string) error {
	return os.WriteFile(c.Nodes[i-1].path("networks/pods.conflist"), fmt.Appendf(nil, networkConfig, pods4(i), pods6(i), mtu), 0o644)
}

// PowerOn starts a node that is off, with all that it ran and stored before.
func (c *Cluster) PowerOn(m *Machine) error {
	if err := makeCgroup(c.space(m.Name)); err != nil {
		return err
	}
	// What the kubelet insists on, and what would be set for the whole host.
	return m.boot(c.bin("machine"), c.software.search(), nil, "-share="+c.dir, "-share="+c.software.cache,
		"-sysctl=vm.overcommit_memory=1", "-sysctl=kernel.panic=10", "-sysctl=kernel.panic_on_oops=1", "-sysctl=kernel.keys.root_maxkeys=1000000")
}

// PowerOff kills all processes of a node. Its network stays, without that of pods.
func (c *Cluster) PowerOff(m *Machine) error {
	if err := m.kill(); err != nil {
		return err
	}
	return removeCgroups(c.space(m.Name)) // the kubelet would take long to see that nothing runs in them
}

// joinNode starts the daemons that make a machine a node of Kubernetes.
func (c *Cluster) joinNode(m *Machine) error {
	err := m.Launch("kubelet", c.software.path(kubernetes+"/kubelet"), "--config="+m.path("kubelet.yaml"), "--kubeconfig="+c.pki(m.Name+".kubeconfig"),
		"--hostname-override="+m.Name, "--node-ip="+m.IPv4+","+m.IPv6, "--v=2")
	if err != nil {
		return err
	}
	return m.Launch("kube-proxy", c.software.path(kubernetes+"/kube-proxy"), "--config="+m.path("kube-proxy.yaml"), "--v=2")
}

// showProxy creates the ConfigMap in which kubeadm keeps kube-proxy's configuration.
// The nodes themselves have files.
func (c *Cluster) showProxy(ctx context.Context) error {
	return c.Client.Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "kube-proxy"},
		Data:       map[string]string{"config.conf": fmt.Sprintf(proxyConfig, c.Options.Proxy, Pods4, Pods6, "", "/var/lib/kube-proxy/kubeconfig.conf")},
	})
}

// showOverlay annotates each node with its tunnel, as flannel does, whose address is
// the first of the node's pods.
func (c *Cluster) showOverlay(ctx context.Context) error {
	const annotations = `{"metadata": {"annotations": {"flannel.alpha.coreos.com/backend-type": "vxlan", "flannel.alpha.coreos.com/backend-data": "{\"VNI\":1}"}}, "spec": %s}`
	for i, m := range c.Nodes {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: m.Name}}
		if err := c.Client.Patch(ctx, node, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, annotations, podCIDRs(i+1)))); err != nil {
			return fmt.Errorf("annotate %s: %w", m.Name, err)
		}
	}
	return nil
}

// awaitNodes returns when every node is ready.
func (c *Cluster) awaitNodes(ctx context.Context) error {
	err := await(ctx, "the nodes are ready", func() error {
		var nodes corev1.NodeList
		if err := c.Client.List(ctx, &nodes); err != nil {
			return err
		}
		ready := 0
		for _, n := range nodes.Items {
			for _, condition := range n.Status.Conditions {
				if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
					ready++
				}
			}
		}
		if ready != len(c.Nodes) {
			return fmt.Errorf("%d of %d", ready, len(c.Nodes))
		}
		return nil
	})
	if err == nil {
		return nil
	}
	errs := []error{err}
	for _, m := range c.Nodes {
		errs = append(errs, fmt.Errorf("on %s containerd said:\n%s\nand the kubelet:\n%s", m.Name, m.Log("containerd"), m.Log("kubelet")))
	}
	return errors.Join(errs...)
}

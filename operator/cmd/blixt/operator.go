// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client/config"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/controller"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

func operatorCommand() *cobra.Command {
	o := controller.ManagerOptions{}
	service := v1alpha1.Operator
	nodePorts, ephemeral := portRange{First: 30000, Last: 32767}, portRange{First: 32768, Last: 60999}
	var logs logFlags
	var site operatorPage
	c := &cobra.Command{
		Use:   "operator",
		Short: "Serve the Gateways of a Kubernetes cluster: one Deployment, installed by the chart",
		Long: `Watches Gateway API objects, has bpfman load the eBPF program on the nodes, runs an
agent on each of them, sends the agents what to serve, and writes the status of
Blixt's objects. Replicas elect a leader; the others refer agents to it.

In a cluster the operator uses its ServiceAccount, elsewhere the usual kubeconfig.
The parameters of the data plane and of addresses are in BlixtConfig objects,
which GatewayClasses reference.`,
		Example: `  blixt operator --agent-image registry.example.com/blixt@sha256:… --bytecode registry.example.com/bytecode@sha256:…
  kubectl get gateways,tcproutes,udproutes,nodedataplanes -A`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := logs.logger(os.Stderr)
			if err != nil {
				return err
			}
			slog.SetDefault(log)
			if o.Release.Namespace == "" {
				return errors.New("no namespace: set --namespace, or POD_NAMESPACE as the chart does")
			}
			if err := controller.CheckImages(o.Release); err != nil {
				return err
			}
			_, port, err := net.SplitHostPort(o.FleetAddress)
			if err != nil {
				return fmt.Errorf("--fleet-address %s: want host:port, such as :8443", o.FleetAddress)
			}
			o.Release.Operator = net.JoinHostPort(service+"."+o.Release.Namespace+".svc", port)
			o.ReservedPorts = []gateway.ReservedRange{
				{First: nodePorts.First, Last: nodePorts.Last, Use: fmt.Sprintf("the cluster's node ports %s (--node-ports of the operator)", lb.PortRange(nodePorts))},
				{First: ephemeral.First, Last: ephemeral.Last, Use: fmt.Sprintf("connections of the nodes, which come from %s (--ephemeral-ports of the operator)", lb.PortRange(ephemeral))},
			}
			if err := site.set(&o, log); err != nil {
				return err
			}
			kube, err := config.GetConfig()
			if err != nil {
				return fmt.Errorf("find cluster: %w", err)
			}
			o.Log = log
			return controller.Run(c.Context(), kube, o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Release.Namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace of the operator and its agents")
	f.StringVar(&o.Pod, "pod", os.Getenv("POD_NAME"), "name of the operator's own pod, for events about it")
	f.StringVar(&o.Release.AgentImage, "agent-image", "", "image of the agents, usually the operator's own (required)")
	f.StringVar(&o.Release.Bytecode, "bytecode", "", "bytecode image for BlixtConfigs that name none, as repository@sha256:digest (required)")
	f.StringVar(&o.Release.ServiceAccount, "service-account", v1alpha1.AgentAccount, "ServiceAccount of the agents; it needs no permissions")
	f.StringArrayVar(&o.Release.ImagePullSecrets, "image-pull-secret", nil, "pull secret for the agents' image, may be repeated")
	f.StringVar(&o.Release.CAConfigMap, "ca-config-map", v1alpha1.CAConfigMap, "ConfigMap with the CA certificate by which agents verify the operator")
	f.StringVar(&o.TLSSecret, "tls-secret", v1alpha1.TLSSecret, "Secret with the operator's certificates, which the operator creates and renews")
	f.StringVar(&o.TLSDir, "tls-dir", "", "directory with tls.crt, tls.key and ca.crt from another issuer, such as cert-manager, instead of --tls-secret")
	f.StringVar(&o.ConfigFile, "config", "", "file with a BlixtConfig to apply, such as the chart's")
	f.StringVar(&o.GatewayClass, "gateway-class", "", "name of a GatewayClass to apply, with the BlixtConfig of --config as its parameters")
	f.StringVar(&o.FleetAddress, "fleet-address", ":8443", "address on which to accept agents")
	f.StringVar(&service, "fleet-service", service, "Service through which agents connect")
	f.StringVar(&o.ObserveAddress, "observe-address", fmt.Sprintf("127.0.0.1:%d", v1alpha1.ObservePort), "address at which commands such as blixt flows ask what nodes see, by port forwarding; 0: none")
	site.add(f)
	f.StringVar(&o.MetricsAddress, "metrics-address", ":8080", "address of /metrics, 0: none")
	f.BoolVar(&o.ReviewMetricsTokens, "metrics-token-review", false, "besides the token of Secret blixt-metrics, accept for /metrics tokens of ServiceAccounts for audience "+v1alpha1.MetricsAudience+", of the operator and of agents, whose owners may get the URL /metrics")
	f.StringVar(&o.OTLPEndpoint, "otlp-endpoint", "", "collector of OpenTelemetry to which flow records go as logs, such as https://collector:4317; http:// is without TLS")
	f.StringVar(&o.HealthAddress, "health-address", ":8081", "address of /healthz and /readyz, 0: none")
	f.BoolVar(&o.LeaderElection, "leader-elect", true, "elect a leader among replicas")
	f.Var(&nodePorts, "node-ports", "node ports of the cluster (service-node-port-range of its API server)")
	f.Var(&ephemeral, "ephemeral-ports", "ports of the nodes' own connections (net.ipv4.ip_local_port_range)")
	logs.add(f)
	for _, name := range []string{"agent-image", "bytecode"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(fmt.Sprint("no such flag: ", err))
		}
	}
	return c
}

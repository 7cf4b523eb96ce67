// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// The names of what Blixt has once in a cluster, as the chart installs it and the
// operator makes it.
const (
	// Namespace is where Blixt is, unless it was installed elsewhere.
	Namespace = "blixt-system"
	// Operator is the name of the operator's Deployment, Service and Lease.
	Operator = "blixt-operator"
	// AgentAccount is the ServiceAccount of the agents.
	AgentAccount = "blixt-agent"
	// ObserverAccount is the ServiceAccount whose token commands ask the operator with:
	// who may create its token may ask.
	ObserverAccount = "blixt-observer"
	// ObserveAudience is the audience of such tokens.
	ObserveAudience = "observe.blixt.x-k8s.io"
	// ObservePort is the port at which the operator is asked, on its pod's loopback
	// device: by port forwarding alone.
	ObservePort = 8444
	// PageService is the Service by which browsers reach the page of the replica that leads,
	// and PagePort its port.
	PageService = "blixt-operator-page"
	PagePort    = 8460
	// TLSSecret holds the operator's certificates.
	TLSSecret = "blixt-tls"
	// SeedSecret holds the seed of all nodes, which keys the hash of clients.
	SeedSecret = "blixt-seed"
	// AnnounceSecret holds the keys by which nodes sign what they announce to each
	// other.
	AnnounceSecret = "blixt-announce-keys"
	// MetricsSecret holds the token by which metrics may be read.
	MetricsSecret = "blixt-metrics"
	// MetricsAudience is the audience of tokens of ServiceAccounts by which metrics may
	// be read. They are worth nothing else.
	MetricsAudience = "metrics.blixt.x-k8s.io"
	// CAConfigMap holds the certificate by which agents verify the operator's.
	CAConfigMap = "blixt-ca"
	// IncumbentsConfigMap holds which Gateway has which address and ports, for the
	// next operator.
	IncumbentsConfigMap = "blixt-incumbents"
)

// CRDs are the names of the CustomResourceDefinitions of all kinds here.
var CRDs = []string{
	"blixtconfigs.blixt.x-k8s.io", "blixtgatewayconfigs.blixt.x-k8s.io", "blixtpolicies.blixt.x-k8s.io", "nodedataplanes.blixt.x-k8s.io",
}

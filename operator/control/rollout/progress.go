// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Fleet is what is known of all nodes when the progress of Gateways is judged.
type Fleet struct {
	// Nodes are from Judge, Problems from Plan.
	Nodes    []NodeStatus `json:"nodes,omitempty"`
	Problems []Problem    `json:"problems,omitempty"`
	Reports  []lb.Report  `json:"reports,omitempty"`
	// Now, and how long a node may be missing before Gateways say so. Nodes whose
	// agents start, or take a change a little later, are no news.
	Now   time.Time     `json:"now,omitzero"`
	Delay time.Duration `json:"delay,omitempty"`
	// Epoch is that of the leader. A report of another epoch confirms nothing.
	Epoch uint64 `json:"epoch"`
	// Starting is true during the grace period of a new leader: an agent that has
	// not reported yet is not missing.
	Starting bool `json:"starting,omitempty"`
	// Unavailable says why the cluster can load no data plane; empty: it can.
	Unavailable string `json:"unavailable,omitempty"`
	// ThroughStack is true if nothing is sent to other nodes past the network stack.
	ThroughStack bool `json:"throughStack,omitempty"`
	// ProxyMode is kube-proxy's mode; empty: unknown.
	ProxyMode string `json:"proxyMode,omitempty"`
}

// PublishedGateway is a Gateway that agents are to serve.
type PublishedGateway struct {
	// Since is the first version that has the Gateway as it is now.
	Since lb.Version `json:"since"`
	// SinceTime is when that was published; zero: long ago.
	SinceTime time.Time `json:"sinceTime,omitzero"`
	// Service is what its Service is made from; nil: it has none.
	Service *gateway.ServiceSpec `json:"service,omitempty"`
	// ServiceProblem is what is wrong with the Service; empty: nothing.
	ServiceProblem string `json:"serviceProblem,omitempty"`
	// HealthCheckNodePort is that of its Service; 0: it has none.
	HealthCheckNodePort int32 `json:"healthCheckNodePort,omitempty"`
}

// Progress returns how far the nodes are with serving each Gateway.
func Progress(f Fleet, gateways map[types.NamespacedName]PublishedGateway) map[types.NamespacedName]gateway.Progress {
	all := make(map[types.NamespacedName]gateway.Progress, len(gateways))
	nodes := f.counted()
	for name, g := range gateways {
		p := f.progress(name.String(), g, nodes)
		p.Hold = f.holds(name)
		if g.Service != nil {
			p.Also = f.podTraffic(g)
			if g.ServiceProblem != "" && g.Service.Source != v1alpha1.SourceLoadBalancer { // its addresses say so themselves
				p.Also = strings.TrimSpace(p.Also + " What shows its addresses is missing: " + strings.TrimSuffix(g.ServiceProblem, ".") + ".")
			}
		}
		if p.Nodes > 0 {
			p.Also = strings.TrimSpace(p.Also + " " + f.blocked())
		}
		all[name] = p
	}
	return all
}

// HostListens returns the nodes that listen themselves at frontends, by frontend:
// those that count, as their programs that serve report it.
func HostListens(f Fleet) map[lb.Key][]string {
	counted := map[string]bool{}
	for _, n := range f.Nodes {
		counted[n.Node] = n.Counted
	}
	all := map[lb.Key][]string{}
	for _, r := range f.Reports {
		for _, key := range r.HostListens {
			if counted[r.Node] && !r.Draining && !slices.Contains(all[key], r.Node) {
				all[key] = append(all[key], r.Node)
			}
		}
	}
	return all
}

// acked returns the newest version of the epoch that each node has confirmed.
// An instance that drains takes no new connections, so its version is ignored.
func (f *Fleet) acked() map[string]lb.Version {
	newest := map[string]lb.Version{}
	for _, r := range f.Reports {
		if r.Version.Epoch == f.Epoch && !r.Draining && r.Version.Sequence >= newest[r.Node].Sequence {
			newest[r.Node] = r.Version
		}
	}
	return newest
}

// countedNode is a node that Gateways wait for.
type countedNode struct {
	name string
	// unheard: its agent has not reported to a new leader yet.
	unheard bool
	// why it serves nothing, and since when; empty: it serves what it has confirmed.
	why   string
	since time.Time
	acked lb.Version
	// leavesOut, unless nil, are the only Gateways to which why applies: it has no
	// room for them.
	leavesOut []string
}

// counted returns the nodes that Gateways wait for. It is done once for all
// Gateways.
func (f *Fleet) counted() []countedNode {
	var all []countedNode
	acked, full := f.acked(), f.full()
	for _, n := range f.Nodes {
		if !n.Counted {
			continue
		}
		c := countedNode{name: n.Node}
		ready := meta.FindStatusCondition(n.Status.Conditions, v1alpha1.NodeReady)
		version, reported := acked[n.Node]
		c.acked, c.unheard = version, !reported && f.Starting
		if ready != nil && (ready.Status == metav1.ConditionFalse || !reported) {
			c.why, c.since = ready.Reason+": "+ready.Message, ready.LastTransitionTime.Time
			if t := full[n.Node]; t != nil && ready.Reason == TableFull {
				c.leavesOut = append([]string{}, t.Gateways...)
			}
		}
		all = append(all, c)
	}
	return all
}

// full returns what nodes leave out because a table is full.
func (f *Fleet) full() map[string]*lb.TableFull {
	all := map[string]*lb.TableFull{}
	for _, r := range f.Reports {
		if t := r.TableFull; t != nil && t.RestHolds() && !r.Draining {
			all[r.Node] = t
		}
	}
	return all
}

func (f *Fleet) progress(name string, g PublishedGateway, nodes []countedNode) gateway.Progress {
	if f.Unavailable != "" {
		return gateway.Progress{Why: f.Unavailable}
	}
	p := gateway.Progress{Nodes: len(nodes)}
	for i := range nodes {
		n := &nodes[i]
		why, since := n.why, n.since
		if n.leavesOut != nil && !slices.Contains(n.leavesOut, name) {
			why = ""
		}
		switch {
		case n.unheard:
			p.Unheard = append(p.Unheard, n.name)
			continue
		case why != "":
		case n.acked.Sequence < g.Since.Sequence:
			why, since = "its agent has not confirmed the newest state yet", g.SinceTime
		default:
			continue
		}
		if f.Now.Sub(since) < f.Delay {
			p.Recent = append(p.Recent, n.name)
		} else {
			addMissing(&p, n.name, why)
		}
	}
	if p.Nodes == 0 {
		p.Why = f.whyNoNode()
	}
	return p
}

// holds reports whether the message of a Gateway should not be written at this time
// if it only names other nodes. Each Gateway has its turn once in a Delay, and not
// all have it at the same time.
func (f *Fleet) holds(name types.NamespacedName) bool {
	turns := int64(f.Delay / turn)
	if turns < 2 {
		return false
	}
	h := fnv.New32a()
	h.Write([]byte(name.String()))
	return (f.Now.Unix()/int64(turn/time.Second)+int64(h.Sum32()))%turns != 0
}

// turn is at least as long as the time between two calls of Progress.
const turn = 10 * time.Second

// addMissing adds a node that does not serve. Only the first reason is kept: one
// is enough to begin with.
func addMissing(p *gateway.Progress, node, reason string) {
	p.Missing = append(p.Missing, node)
	if p.Why == "" {
		p.Why = node + ": " + reason
	}
}

// whyNoNode says why Gateways have no node to wait for.
func (f *Fleet) whyNoNode() string {
	switch {
	case len(f.Problems) > 0:
		return f.Problems[0].Object + ": " + f.Problems[0].Message
	case len(f.Nodes) > 0:
		return "no node that the data plane selects is ready"
	}
	return "the data plane selects no node: correct spec.dataplane.nodes of the BlixtConfig"
}

// blocked says why bytecode serves that is not the one asked for, if that will
// not change by itself; otherwise it is empty.
func (f *Fleet) blocked() string {
	for _, p := range f.Problems {
		if p.Reason == UpgradeBlocked || p.Reason == BytecodeRefused {
			return fmt.Sprintf("But not with the bytecode that is asked for: %s: %s: %s", p.Object, p.Reason, p.Message)
		}
	}
	return ""
}

// podTraffic says in what traffic from inside the cluster differs from that of
// other Gateways, or the health checks, which kube-proxy answers along with it.
func (f *Fleet) podTraffic(g PublishedGateway) string {
	node := g.Service.Source == v1alpha1.SourceNode
	switch {
	case g.Service.PodTraffic == v1alpha1.PodTrafficKubeProxy:
		return "What pods and nodes send to it is balanced by kube-proxy, without weights (podTraffic of the BlixtConfig)."
	case node && f.ProxyMode == gateway.ProxyIPVS:
		return "What a node's own pods and processes send to the node's address is not served, whatever podTraffic of the BlixtConfig says: kube-proxy in mode ipvs would cut nodes off from each other. Run it in mode nftables."
	case node:
		return "What a node's own pods and processes send to the node's address is not served: set podTraffic of the BlixtConfig to KubeProxy, unless kube-proxy runs in mode ipvs."
	case g.HealthCheckNodePort != 0:
		return fmt.Sprintf("A load balancer that asks nodes for their health, at port %d, gets no answer and may use none: unset podTraffic of the BlixtConfig, and kube-proxy answers.", g.HealthCheckNodePort)
	}
	return ""
}

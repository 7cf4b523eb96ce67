// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubernetes-sigs/blixt/operator/node/announce"
)

// DefaultPeerMetrics is how many other nodes have metrics of their own by default:
// each has some 20, on each node of the cluster.
const DefaultPeerMetrics = 64

var (
	descPeers        = describe("peers", "Other nodes, with which this node may announce clients.")
	descPeersFailing = describe("peers_failing", "Other nodes that do not answer probes in some form.")
	descPeersLeftOut = describe("peers_left_out", "Addresses of other nodes for which the table has no room.")
	descPreserving   = describe("backends_preserving", "Backends on other nodes that are to see their clients.")
	descUnannounced  = describe("backends_unannounced", "Those of them that see this node's address instead.", "reason")

	descPeerAnswers   = describe("peer_answers", "1 while another node answers probes of a form.", "node", "form")
	descPeerProbes    = describe("peer_probes_total", "Probes of another node.", "node", "form", "result")
	descPeerRoundTrip = describe("peer_round_trip_seconds", "Round trip of the last probe that was answered.", "node", "form")
	descPeerFlows     = describe("peer_flows_total", "Flows of another node: undone see their clients, plain see that node.", "node", "kind")
	descPeerRefused   = describe("peer_messages_refused_total", "Messages of another node that are not genuine, or old.", "node")
	descPeerAsked     = describe("peer_questions_total", "Questions to another node whose packets these are.", "node")
)

// collectPeers collects how the node gets on with others. If there are too many for
// metrics of each, those that do not answer come first.
func (k *collector) collectPeers(all chan<- prometheus.Metric, gauge func(*prometheus.Desc, float64, ...string)) {
	if !k.a.o.Tables.Announces() {
		return
	}
	s, err := k.a.announcer.Status()
	if err != nil {
		all <- prometheus.NewInvalidMetric(descPeers, fmt.Errorf("read metrics of peers: %w", err))
		return
	}
	r := s.Report()
	gauge(descPeers, float64(r.Peers))
	gauge(descPeersFailing, float64(r.Failing))
	gauge(descPeersLeftOut, float64(s.LeftOut))
	gauge(descPreserving, float64(s.Backends))
	for _, u := range s.Unannounced {
		gauge(descUnannounced, float64(u.Backends), u.Reason)
	}
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		all <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for _, p := range s.Worst(k.a.o.PeerMetrics) {
		for _, c := range p.Probes {
			if c.State == announce.NotProbed {
				continue
			}
			gauge(descPeerAnswers, number(c.State == announce.Answered), p.Node, c.Form)
			counter(descPeerProbes, c.Answered, p.Node, c.Form, "answered")
			counter(descPeerProbes, c.Lost, p.Node, c.Form, "lost")
			if c.Last != nil {
				gauge(descPeerRoundTrip, c.RoundTrip.Seconds(), p.Node, c.Form)
			}
		}
		counter(descPeerFlows, p.Undone, p.Node, "undone")
		counter(descPeerFlows, p.Plain, p.Node, "plain")
		counter(descPeerRefused, p.Refused, p.Node)
		counter(descPeerAsked, p.Asked, p.Node)
	}
}

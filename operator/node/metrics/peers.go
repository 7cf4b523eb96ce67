// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/kubernetes-sigs/blixt/operator/node/announce"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

// DefaultPeers is how many other nodes have metrics of their own by default: each has
// some 20, on each node of the cluster.
const DefaultPeers = 64

var (
	descPeers        = describe("peers", "Other nodes, with which this node may announce clients.")
	descPeersFailing = describe("peers_failing", "Other nodes that do not answer probes in some form.")
	descPeersLeftOut = describe("peers_left_out", "Addresses of other nodes for which the table has no room.")
	descPreserving   = describe("backends_preserving", "Backends on other nodes that are to see their clients.")
	descUnannounced  = describe("backends_unannounced", "Backends on other nodes that see this node's address instead of their clients'.", "reason")

	descPeerAnswers   = describe("peer_answers", "1 while another node answers probes of a form.", "node", "form")
	descPeerProbes    = describe("peer_probes_total", "Probes of another node.", "node", "form", "result")
	descPeerRoundTrip = describe("peer_round_trip_seconds", "Round trip of the last probe that was answered.", "node", "form")
	descPeerFlows     = describe("peer_flows_total", "Flows of another node: undone see their clients, plain see that node.", "node", "kind")
	descPeerRefused   = describe("peer_messages_refused_total", "Messages of another node that are not genuine, or old.", "node")
	descPeerAsked     = describe("peer_questions_total", "Questions to another node whose packets these are.", "node")
)

// AddPeers adds how the node gets on with others. If there are more than most, so many
// have metrics of their own, and those that do not answer come first.
func AddPeers(page *scrape.Page, source Source, most int) {
	page.Add("peers", gatherer(source, func(d DataPlane) (prometheus.Collector, []*dto.MetricFamily, error) {
		c, err := peers(d, most)
		return c, nil, err
	}))
}

func peers(d DataPlane, most int) (c collected, err error) {
	if !d.Tables.Announces() {
		return c, nil
	}
	s, err := d.Announcer.Status()
	if err != nil {
		return nil, fmt.Errorf("read metrics of peers: %w", err)
	}
	r := s.Report()
	c.gauge(descPeers, float64(r.Peers))
	c.gauge(descPeersFailing, float64(r.Failing))
	c.gauge(descPeersLeftOut, float64(s.LeftOut))
	c.gauge(descPreserving, float64(s.Backends))
	for _, u := range s.Unannounced {
		c.gauge(descUnannounced, float64(u.Backends), u.Reason)
	}
	for _, p := range s.Worst(most) {
		for _, probes := range p.Probes {
			if probes.State == announce.NotProbed {
				continue
			}
			c.gauge(descPeerAnswers, Bool(probes.State == announce.Answered), p.Node, probes.Form)
			c.counter(descPeerProbes, probes.Answered, p.Node, probes.Form, "answered")
			c.counter(descPeerProbes, probes.Lost, p.Node, probes.Form, "lost")
			if probes.Last != nil {
				c.gauge(descPeerRoundTrip, probes.RoundTrip.Seconds(), p.Node, probes.Form)
			}
		}
		c.counter(descPeerFlows, p.Undone, p.Node, "undone")
		c.counter(descPeerFlows, p.Plain, p.Node, "plain")
		c.counter(descPeerRefused, p.Refused, p.Node)
		c.counter(descPeerAsked, p.Asked, p.Node)
	}
	return c, nil
}

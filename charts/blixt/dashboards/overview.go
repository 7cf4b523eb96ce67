// SPDX-License-Identifier: Apache-2.0

package main

func overview() dashboard {
	byGateway := func(name string) string {
		return "sum by (gateway_namespace, gateway) (rate(" + name + "{SELECT}[$__rate_interval]))"
	}
	const who = "{{gateway_namespace}}/{{gateway}}"
	return dashboard{
		name: "overview", title: "Blixt / Overview", description: "Whether all is well, who is busy, and how quickly changes reach the nodes.",
		rows: []row{
			{"Is it well?", []panel{
				{title: "Alerts", kind: "stat", description: "Alerts of Blixt that fire.", limits: []limit{{0, "green"}, {1, "red"}},
					targets: []target{{`count(ALERTS{alertname=~"Blixt.+",alertstate="firing",cluster=~"$cluster"}) or vector(0)`, ""}}},
				{title: "Nodes that serve", kind: "stat", description: "Nodes whose maps hold a state. What is served is in table Frontends below.",
					targets: []target{{`sum(blixt_ready{SELECT})`, ""}}},
				{title: "Nodes that do not", kind: "stat", description: "Nodes that cannot serve the newest state, have no state yet, or whose program sees no packets.",
					limits: []limit{{0, "green"}, {1, "red"}}, targets: []target{{`sum((blixt_ready{SELECT} == bool 0) or blixt_state_failing{SELECT})`, ""}}},
				{title: "Problems", kind: "stat", description: "Conditions of Gateways and routes that are False.", limits: []limit{{0, "green"}, {1, "orange"}},
					targets: []target{{`sum(blixt_problems{SELECT}) or vector(0)`, ""}}},
				{title: "Frontends", kind: "stat", description: "Addresses, protocols and ports that are served.", targets: []target{{`max(blixt_frontends{SELECT})`, ""}}},
				{title: "Backends", kind: "stat", description: "Endpoints of all frontends.", targets: []target{{`max(blixt_backends{SELECT})`, ""}}},
			}},
			{"Traffic by Gateway", []panel{
				{title: "New connections", unit: "cps", description: "TCP connections and UDP flows that got a backend, a second.",
					targets: []target{{"topk(10, " + byGateway("blixt_frontend_connections_total") + ")", who}}},
				{title: "Active flows", unit: "short", description: "Flows that have not ended.",
					targets: []target{{`topk(10, sum by (gateway_namespace, gateway) (blixt_frontend_active_flows{SELECT}))`, who}}},
				{title: "Rejected packets", unit: "pps", description: "Packets refused because their frontend has no backend.",
					targets: []target{{"topk(10, " + byGateway("blixt_frontend_rejected_packets_total") + " > 0)", who}}},
				{title: "From clients", unit: "Bps", description: "Bytes, counted from the IP header on.",
					targets: []target{{`topk(10, sum by (gateway_namespace, gateway) (rate(blixt_frontend_bytes_total{SELECT,direction="in"}[$__rate_interval])))`, who}}},
				{title: "To clients", unit: "Bps", description: "Bytes, counted from the IP header on.",
					targets: []target{{`topk(10, sum by (gateway_namespace, gateway) (rate(blixt_frontend_bytes_total{SELECT,direction="out"}[$__rate_interval])))`, who}}},
				{title: "Connections that failed", unit: "cps", description: "Flows that got no answer, or whose backend refused them, a second.",
					targets: []target{{`topk(10, sum by (gateway_namespace, gateway) (rate(blixt_backend_unanswered_total{SELECT}[$__rate_interval]) or rate(blixt_backend_refused_total{SELECT}[$__rate_interval])))`, who}}},
				{title: "Time to connect to backends", unit: "s", description: "From SYN to SYN-ACK, as the nodes see it.",
					targets: quantiles("blixt_backend_connect_duration_seconds", "", "", selection)},
				{title: "Clients' round trip", unit: "s", description: "From SYN-ACK to the client's ACK, as the nodes see it.",
					targets: quantiles("blixt_frontend_client_rtt_seconds", "", "", selection)},
				{title: "Dropped and rejected packets", unit: "pps", description: "By reason. `blixt drops` shows the last packets of each, with cause and cure.",
					targets: []target{{`sum by (reason) (rate(blixt_packets_total{SELECT,reason=~"(drop|reject)_.+"}[$__rate_interval])) > 0`, "{{reason}}"}}},
			}},
			{"Gateways", []panel{
				{title: "Gateways", kind: "table", unit: "short", description: "A second, over all nodes.", columns: []string{"gateway_namespace", "gateway"}, targets: []target{
					{byGateway("blixt_frontend_connections_total"), "Connections/s"},
					{`sum by (gateway_namespace, gateway) (blixt_frontend_active_flows{SELECT})`, "Active flows"},
					{`sum by (gateway_namespace, gateway) (rate(blixt_frontend_bytes_total{SELECT,direction="in"}[$__rate_interval]))`, "Bytes/s in"},
					{`sum by (gateway_namespace, gateway) (rate(blixt_frontend_bytes_total{SELECT,direction="out"}[$__rate_interval]))`, "Bytes/s out"},
					{byGateway("blixt_frontend_rejected_packets_total"), "Rejected/s"},
				}},
			}},
			{"Changes", []panel{
				{title: "From an endpoint's change to the nodes", unit: "s", description: "Network programming: from the change of an endpoint, in whole seconds, to the acknowledgement of a node that it is in its maps.",
					targets: quantiles("blixt_network_programming_duration_seconds", "", "", selection)},
				{title: "From an event to the nodes", unit: "s", description: "Propagation: from the moment that the operator sees an event to the acknowledgement of a node.",
					targets: quantiles("blixt_propagation_duration_seconds", "", "", selection)},
				{title: "Oldest unconfirmed version", unit: "s", description: "Age of the oldest version that a connected node has not confirmed.",
					targets: []target{{`max(blixt_fleet_oldest_unconfirmed_seconds{SELECT})`, "age"}}},
				{title: "Nodes by reason", unit: "short", stack: true, description: "Nodes by the reason of their condition Ready.",
					targets: []target{{`max by (reason) (blixt_fleet_nodes{SELECT}) > 0`, "{{reason}}"}}},
				{title: "Problems by kind and reason", unit: "short", stack: true, description: "Conditions that are False.",
					targets: []target{{`max by (kind, reason) (blixt_problems{SELECT}) > 0`, "{{kind}} {{reason}}"}}},
				{title: "Pools in use", unit: "percentunit", max: 1, description: "Share of the addresses of each pool that Gateways have.",
					targets: []target{{`max by (pool, ip_family) (blixt_pool_addresses_in_use{SELECT}) / (max by (pool, ip_family) (blixt_pool_addresses{SELECT}) > 0)`, "{{pool}} {{ip_family}}"}}},
				{title: "Passes of the operator", unit: "s", description: "99th percentile of the time of a pass, by phase.",
					targets: quantiles("blixt_pass_duration_seconds", "phase", "{{phase}}", selection)[1:]},
				{title: "Failures of the operator", unit: "ops", description: "Failed passes and writes, and writes that the API server has refused.", targets: []target{
					{`sum(rate(blixt_operator_failures_total{SELECT}[$__rate_interval]))`, "failures"},
					{`sum by (kind) (rate(blixt_operator_refused_writes_total{SELECT}[$__rate_interval]))`, "refused: {{kind}}"}}},
				{title: "Certificates", unit: "s", description: "Time until a certificate ends. The operator renews its own when a third of their time is left.",
					targets: []target{{`min by (certificate) (blixt_certificate_expiration_timestamp_seconds{SELECT}) - time()`, "{{certificate}}"}}},
			}},
		},
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

func gateway() dashboard {
	const (
		frontends = `SELECT,gateway_namespace=~"$gateway_namespace",gateway=~"$gateway",route_namespace=~"$route_namespace",route=~"$route"`
		who       = "{{listener}} {{route_namespace}}/{{route}}"
		by        = "sum by (listener, route_namespace, route) "
		backend   = "{{backend_namespace}}/{{backend}}:{{backend_port}}"
		labels    = "backend_namespace, backend, backend_port"
		byBackend = "sum by (" + labels + ") "
	)
	rate := func(name, more string) string {
		return "(rate(" + name + "{" + frontends + more + "}[$__rate_interval]))"
	}
	failed := byBackend + `(rate(blixt_backend_unanswered_total{` + frontends + `}[$__rate_interval]) or rate(blixt_backend_refused_total{` + frontends + `}[$__rate_interval]))`
	return dashboard{
		name: "gateway", title: "Blixt / Gateway", description: "One Gateway: its listeners, routes, and backends.",
		variables: []variable{
			{"gateway_namespace", "Namespace", `label_values(blixt_frontend_connections_total{SELECT}, gateway_namespace)`},
			{"gateway", "Gateway", `label_values(blixt_frontend_connections_total{SELECT,gateway_namespace=~"$gateway_namespace"}, gateway)`},
			{"route_namespace", "Namespace of routes", `label_values(blixt_frontend_connections_total{SELECT,gateway_namespace=~"$gateway_namespace",gateway=~"$gateway"}, route_namespace)`},
			{"route", "Route", `label_values(blixt_frontend_connections_total{SELECT,gateway_namespace=~"$gateway_namespace",gateway=~"$gateway",route_namespace=~"$route_namespace"}, route)`},
		},
		rows: []row{
			{"Listeners and routes", []panel{
				{title: "New connections", unit: "cps", description: "TCP connections and UDP flows that got a backend, a second.", targets: []target{{by + rate("blixt_frontend_connections_total", ""), who}}},
				{title: "Active flows", unit: "short", description: "Flows that have not ended.", targets: []target{{by + `(blixt_frontend_active_flows{` + frontends + `})`, who}}},
				{title: "Rejected packets", unit: "pps", description: "Packets refused because the frontend has no backend.", targets: []target{{by + rate("blixt_frontend_rejected_packets_total", ""), who}}},
				{title: "From clients", unit: "Bps", description: "Bytes, counted from the IP header on.", targets: []target{{by + rate("blixt_frontend_bytes_total", `,direction="in"`), who}}},
				{title: "To clients", unit: "Bps", description: "Bytes, counted from the IP header on.", targets: []target{{by + rate("blixt_frontend_bytes_total", `,direction="out"`), who}}},
				{title: "Packets", unit: "pps", description: "From clients (in) and to them (out).", targets: []target{{"sum by (direction) " + rate("blixt_frontend_packets_total", ""), "{{direction}}"}}},
				{title: "Clients' round trip", unit: "s", description: "From SYN-ACK to the client's ACK, as the nodes see it.", targets: quantiles("blixt_frontend_client_rtt_seconds", "listener", "{{listener}}", frontends)},
				{title: "Nodes", unit: "cps", description: "Which nodes clients come in by.", targets: []target{{"sum by (node) " + rate("blixt_frontend_connections_total", ""), "{{node}}"}}},
				{title: "Frontends", kind: "table", width: 8, unit: "short", description: "What is served, with active flows.", columns: []string{"address", "port", "protocol", "listener", "route"},
					targets: []target{{`sum by (address, port, protocol, listener, route_namespace, route) (blixt_frontend_active_flows{` + frontends + `})`, "Active flows"}}},
			}},
			{"Backends", []panel{
				{title: "New connections", unit: "cps", description: "Flows given to each backendRef, a second.", targets: []target{{byBackend + rate("blixt_backend_connections_total", ""), backend}}},
				{title: "Share of new connections", unit: "percentunit", max: 1, stack: true, description: "To compare with the weights of the route.",
					targets: []target{{byBackend + rate("blixt_backend_connections_total", "") + " / ignoring (" + labels + ") group_left () (sum " + rate("blixt_backend_connections_total", "") + " > 0)", backend}}},
				{title: "Active flows", unit: "short", description: "Flows that have not ended.", targets: []target{{byBackend + `(blixt_backend_active_flows{` + frontends + `})`, backend}}},
				{title: "Time to connect", unit: "s", description: "From SYN to SYN-ACK, as the nodes see it.", targets: quantiles("blixt_backend_connect_duration_seconds", labels, backend, frontends)},
				{title: "No answer", unit: "cps", description: "Flows that ended without an answer. UDP that nobody answers is here, too.", targets: []target{{byBackend + rate("blixt_backend_unanswered_total", ""), backend}}},
				{title: "Refused", unit: "cps", description: "Flows whose first packet was answered by RST (reset) or ICMP.", targets: []target{{"sum by (" + labels + ", by) " + rate("blixt_backend_refused_total", ""), backend + " {{by}}"}}},
				{title: "Share that failed", unit: "percentunit", max: 1, description: "Flows without an answer or refused, of all.",
					targets: []target{{failed + " / (" + byBackend + rate("blixt_backend_connections_total", "") + " > 0)", backend}}},
				{title: "Endpoints", unit: "short", description: "Endpoints of each backendRef by state.",
					targets: []target{{`max by (` + labels + `, state) (blixt_backend_endpoints{` + frontends + `})`, backend + " {{state}}"}}},
			}},
		},
	}
}

// SPDX-License-Identifier: Apache-2.0

package main

func nodes() dashboard {
	const (
		of   = `SELECT,node=~"$node"`
		node = "{{node}}"
	)
	packets := func(reasons string) []target {
		return []target{{`sum by (reason) (rate(blixt_packets_total{` + of + `,reason=~"` + reasons + `"}[$__rate_interval])) > 0`, "{{reason}}"}}
	}
	gauge := func(name string) []target { return []target{{"max by (node) (" + name + "{" + of + "})", node}} }
	return dashboard{
		name: "nodes", title: "Blixt / Nodes and data plane", description: "What the eBPF program of each node does, and how full its tables are.",
		variables: []variable{{"node", "Node", `label_values(blixt_ready{SELECT}, node)`}},
		rows: []row{
			{"Nodes", []panel{
				{title: "New connections", unit: "cps", description: "Flows that each node has begun, a second.",
					targets: []target{{`sum by (node) (rate(blixt_packets_total{` + of + `,reason="flow_new"}[$__rate_interval]))`, node}}},
				{title: "Packets", unit: "pps", description: "Packets translated, towards backends and clients.",
					targets: []target{{`sum by (node) (rate(blixt_packets_total{` + of + `,reason=~"forwarded|replied"}[$__rate_interval]))`, node}}},
				{title: "Flows", unit: "short", description: "Flows at the last count.", targets: gauge("blixt_flows")},
				{title: "Last packet", unit: "s", description: "Age of the last packet that the program has seen.", targets: gauge("blixt_heartbeat_age_seconds")},
				{title: "Cannot serve the newest state", unit: "short", max: 1, description: "1: the node serves a previous state.", targets: gauge("blixt_state_failing")},
				{title: "Connected to the operator", unit: "short", max: 1, description: "0: the node serves its last state, and receives no change. Hosts without Kubernetes have no operator.",
					targets: []target{{"min by (node) (blixt_operator_connected{" + of + "})", node}}},
			}},
			{"Packets", []panel{
				{title: "Dropped", unit: "pps", description: "By reason. `blixt drops` shows the last packets of each, with cause and cure.", targets: packets("drop_.+")},
				{title: "Rejected", unit: "pps", description: "By reason: answered with RST or ICMP.", targets: packets("reject_.+")},
				{title: "Passed on unchanged", unit: "pps", description: "By reason. not_ours is all traffic that is none of Blixt's.", targets: packets("not_ours|wrong_device|host_listens|malformed|drained")},
				{title: "Flows by what became of them", unit: "cps", description: "Events of flows, a second.", targets: packets("flow_.+")},
				{title: "Fragments and size", unit: "pps", description: "Held and split packets, and those larger than the path MTU.", targets: packets("fragment.*|.+_too_big|drop_fragment")},
				{title: "Dropped by node", unit: "pps", description: "Packets dropped by each node, whatever the reason.",
					targets: []target{{`sum by (node) (rate(blixt_packets_total{` + of + `,reason=~"drop_.+"}[$__rate_interval]))`, node}}},
			}},
			{"Tables", []panel{
				{title: "Tables in use", unit: "percentunit", max: 1, width: 16, description: "Fullest node, by table. Sizes are chosen when a bytecode image is built.",
					targets: []target{{`max by (table) (blixt_table_used{` + of + `} / (blixt_table_size{` + of + `} > 0))`, "{{table}}"}}},
				{title: "Flows over their share", unit: "cps", description: "While the table is nearly full, a frontend keeps to its share: further flows may be evicted.", targets: packets("flow_(table_full|over_share)")},
			}},
			{"Clients' addresses", []panel{
				{title: "Other nodes that do not answer", unit: "short", description: "Nodes to which clients cannot be announced.", targets: gauge("blixt_peers_failing")},
				{title: "Backends that see a node instead", unit: "short", description: "Backends that are to see their clients, and see a node's address, by reason.",
					targets: []target{{`sum by (reason) (blixt_backends_unannounced{` + of + `}) > 0`, "{{reason}}"}}},
				{title: "Round trip between nodes", unit: "s", description: "Slowest probe that was answered.",
					targets: []target{{`max by (node) (blixt_peer_round_trip_seconds{` + of + `})`, node}}},
			}},
			{"Blixt itself", []panel{
				{title: "Memory", unit: "bytes", description: "Memory that the process has from the system. The maps of the eBPF program are not in it.",
					targets: []target{{`sum by (node) (go_memstats_sys_bytes{` + of + `} and on (instance, job) blixt_ready{` + of + `})`, node}}},
				{title: "Flow records", unit: "ops", description: "Records made, those lost, by where, and what became of those for a collector.", targets: []target{
					{`sum by (result) (rate(blixt_flow_records_total{` + of + `}[$__rate_interval]))`, "{{result}}"},
					{`sum by (where) (rate(blixt_flow_records_lost_total{` + of + `}[$__rate_interval]))`, "lost: {{where}}"},
					{`sum by (result) (rate(blixt_flow_export_records_total{SELECT}[$__rate_interval]))`, "collector: {{result}}"}}},
				{title: "Scrape errors", unit: "ops", description: "Parts of a scrape that failed.",
					targets: []target{{`sum by (node, part) (rate(blixt_scrape_errors_total{` + of + `}[$__rate_interval])) > 0`, node + " {{part}}"}}},
				{title: "Versions", kind: "table", width: 16, unit: "short", description: "What runs, and on how many.", columns: []string{"version", "revision", "goversion", "layout"},
					targets: []target{{`count by (version, revision, goversion, layout) (blixt_build_info{SELECT})`, "Instances"}}},
			}},
		},
	}
}

// SPDX-License-Identifier: Apache-2.0

package nginx

import (
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// isProcess reports whether a directive outside of all blocks is about nginx itself.
func isProcess(name string) bool {
	return slices.Contains([]string{"daemon", "debug_points", "env", "error_log", "events", "google_perftools_profiles", "load_module", "lock_file", "master_process",
		"pcre_jit", "pid", "ssl_engine", "ssl_object_cache_inheritable", "thread_pool", "timer_resolution", "user", "working_directory"}, name) || strings.HasPrefix(name, "worker_")
}

// known is what becomes of directives that have one answer whatever their arguments are.
type known struct {
	names  []string // a name, or the beginning of names with a * at its end
	effect migrate.Effect
	text   string
	// ends is true if a server with it cannot be served at all.
	ends bool
}

var knownDirectives = []known{
	{[]string{"tcp_nodelay", "proxy_buffer_size", "preread_buffer_size", "preread_timeout", "proxy_half_close", "proxy_socket_keepalive", "proxy_socket_rcvbuf", "proxy_socket_sndbuf", "proxy_upstream_buffer", "proxy_downstream_buffer"},
		migrate.Unneeded, "Blixt forwards packets: client and server have one TCP connection with each other, with their own buffers and keepalives", false},
	{[]string{"proxy_connect_timeout"}, migrate.Unneeded, "Blixt does not connect to the server: the client does, and waits as long as it likes", false},
	{[]string{"proxy_next_upstream", "proxy_next_upstream_timeout", "proxy_next_upstream_tries"},
		migrate.Changed, "Blixt does not try another server for the same connection: the client has to connect again. A server that fails is left out for others: health of the BlixtPolicy", false},
	{[]string{"proxy_session_drop"}, migrate.Unneeded, "Blixt resets the connections of a server when it is removed, and ejects none", false},
	{[]string{"proxy_requests", "proxy_responses"}, migrate.Changed, "Blixt does not count datagrams: a UDP flow ends when it has been idle: set idleTimeout.udp of the BlixtPolicy", false},
	{[]string{"proxy_download_rate", "proxy_upload_rate"}, migrate.Lost, "Blixt does not limit the rate of bytes: use tc on the servers", false},
	{[]string{"resolver", "resolver_timeout"}, migrate.Unneeded, "Blixt looks no names up: write addresses", false},
	{[]string{"zone", "status_zone", "variables_hash_*", "server_names_hash_*", "map_hash_*", "limit_conn_zone", "limit_conn_log_level", "zone_sync*", "upstream_conf", "api"},
		migrate.Unneeded, "about nginx's own memory", false},
	{[]string{"access_log"}, migrate.Changed, "Blixt writes no such file: blixt flows, and blixt run --flow-log, tell who talked to whom", false},
	{[]string{"log_format", "open_log_file_cache", "error_log"}, migrate.Unneeded, "about nginx's own log", false},
	{[]string{"ssl_preread"}, migrate.Unneeded, "Blixt passes TLS through without a look at it", false},
	{[]string{"set_real_ip_from"}, migrate.Unneeded, "about the PROXY protocol, which Blixt does not read", false},
	{[]string{"proxy_protocol_timeout"}, migrate.Unneeded, "about the PROXY protocol, which Blixt does not read", false},
	{[]string{"geo", "geoip_*", "geoip2", "map", "split_clients", "keyval", "keyval_zone", "set", "js_import", "js_path", "js_set", "js_var", "js_shared_dict_zone", "js_fetch_*", "js_include", "num_map", "match", "num_map_hash_*", "ngx_*", "otel_*"},
		migrate.Unneeded, "it makes variables, of which Blixt has none. What uses them is told where it does", false},
	{[]string{"js_*", "lua_*", "*_by_lua*"}, migrate.Lost, "Blixt runs no scripts", true},
	{[]string{"return"}, migrate.Lost, "Blixt answers nobody itself: run a server that does", true},
	{[]string{"pass"}, migrate.Lost, "it passes connections to another listener of nginx: have Blixt balance that listener's port", true},
	{[]string{"mqtt", "mqtt_*", "mqtt_preread", "mqtt_preread_*"}, migrate.Lost, "Blixt does not look into what it forwards", true},
}

// lookup returns what becomes of a directive; nil: it is not known.
func lookup(name string) *known {
	for i := range knownDirectives {
		for _, n := range knownDirectives[i].names {
			middle := strings.Trim(n, "*")
			switch {
			case n == name,
				strings.HasPrefix(n, "*") && strings.Contains(name, middle),
				!strings.HasPrefix(n, "*") && strings.HasSuffix(n, "*") && strings.HasPrefix(name, middle):
				return &knownDirectives[i]
			}
		}
	}
	return nil
}

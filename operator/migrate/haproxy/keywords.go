// SPDX-License-Identifier: Apache-2.0

package haproxy

import (
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// role is what a proxy does. A listen section has both.
type role int

const (
	frontend role = 1 << iota
	backend
)

// keyword is what becomes of a statement of a proxy: it is carried over, or all that there is
// is to say about it.
type keyword struct {
	roles  role
	take   func(*proxy, statement)
	effect migrate.Effect
	say    string
}

// keywords are those of section 4 of the manual, of two words where these decide.
var keywords = map[string]keyword{
	"bind":            {roles: frontend, take: (*proxy).bindLine},
	"server":          {roles: backend, take: (*proxy).server},
	"server-template": {roles: backend, take: (*proxy).serverTemplate},
	"default-server":  {roles: backend, take: (*proxy).defaultServer},
	"dispatch":        {roles: backend, take: (*proxy).dispatch},
	"acl":             {roles: frontend | backend, take: (*proxy).acl},
	"tcp-request":     {roles: frontend | backend, take: (*proxy).tcpRequest},
	"use_backend":     {roles: frontend, take: (*proxy).useBackend},
	"default_backend": {roles: frontend, take: (*proxy).setDefaultBackend},
	"balance":         {roles: backend, take: (*proxy).setBalance},
	"stick-table":     {roles: frontend | backend, take: (*proxy).stickTable},
	"stick":           {roles: backend, take: (*proxy).stick},
	"timeout":         {roles: frontend | backend, take: (*proxy).timeout},
	"clitimeout":      {roles: frontend | backend, take: (*proxy).oldTimeout},
	"srvtimeout":      {roles: frontend | backend, take: (*proxy).oldTimeout},
	"contimeout":      {roles: frontend | backend, take: (*proxy).oldTimeout},
	"maxconn":         {roles: frontend, take: (*proxy).setMaxconn},
	"rate-limit":      {roles: frontend, take: (*proxy).rateLimit},
	"source":          {roles: backend, take: (*proxy).sourceLine},
	"mode":            {roles: frontend | backend, take: func(*proxy, statement) {}}, // effective looks at it
	"disabled":        {roles: frontend | backend, take: func(p *proxy, _ statement) { p.disabled = true }},
	"enabled":         {roles: frontend | backend, take: func(p *proxy, _ statement) { p.disabled = false }},
	"http-check":      {roles: backend, take: (*proxy).checkLine},
	"tcp-check":       {roles: backend, take: (*proxy).checkLine},

	"option allbackups": {roles: backend, take: func(p *proxy, s statement) { p.allBackups = !s.negated() }},
	"option httpchk":    {roles: backend, take: func(*proxy, statement) {}}, // choose remembers it
	"option tcp-check":  {roles: backend, take: func(*proxy, statement) {}},

	"use-server":               {roles: backend, effect: migrate.Lost, say: "one server for some connections: Blixt chooses by weight or by the client's address: make a frontend with another address or port for it"},
	"tcp-response":             {roles: backend, effect: migrate.Lost, say: "Blixt does not look into connections: leave this port to HAProxy if it matters"},
	"filter":                   {roles: frontend | backend, effect: migrate.Lost, say: "Blixt does not look into connections: leave this port to HAProxy if it matters"},
	"persist":                  {roles: backend, effect: migrate.Lost, say: "Blixt does not look into connections: affinity of the policy goes by the client's address"},
	"option transparent":       {roles: backend, effect: migrate.Lost, say: "connections to any address are not served: write a frontend for each"},
	"transparent":              {roles: backend, effect: migrate.Lost, say: "connections to any address are not served: write a frontend for each"},
	"option external-check":    {roles: backend, effect: migrate.Lost, say: "no program is run for a check: set another one in health.active of the policy"},
	"external-check":           {roles: backend, effect: migrate.Unneeded, say: "no program is run for a check"},
	"email-alert":              {roles: frontend | backend, effect: migrate.Lost, say: "no mails are sent: alert on Blixt's metrics; the chart and docs/observability.md have rules for Prometheus"},
	"log-steps":                {roles: frontend | backend, effect: migrate.Unneeded, say: "blixt flows shows each connection"},
	"retries":                  {roles: backend, effect: migrate.Changed, say: "a client's own repetitions of its SYN reach the same server, and a connection that fails is not tried elsewhere: health of the policy takes such a server out"},
	"option redispatch":        {roles: backend, effect: migrate.Changed, say: "a client's own repetitions of its SYN reach the same server, and a connection that fails is not tried elsewhere: health of the policy takes such a server out"},
	"hash-type":                {roles: backend, effect: migrate.Changed, say: "Blixt has one hash: when servers come and go, most clients keep theirs"},
	"hash-balance-factor":      {roles: backend, effect: migrate.Lost, say: "no server's load is looked at: a busy one gets its share"},
	"hash-preserve-affinity":   {roles: backend, effect: migrate.Changed, say: "a client of a full or ejected server gets another one"},
	"fullconn":                 {roles: backend, effect: migrate.Unneeded, say: "servers have no dynamic limits"},
	"ignore-persist":           {roles: backend, effect: migrate.Lost, say: "affinity of the policy holds for all clients"},
	"force-persist":            {roles: backend, effect: migrate.Lost, say: "no client gets a server that is out"},
	"force-be-switch":          {roles: frontend, effect: migrate.Lost, say: "all clients get the same servers"},
	"option log-health-checks": {roles: backend, effect: migrate.Unneeded, say: "blixt run logs them"},
}

// sayings are keywords of which the same is to be said.
var sayings = []struct {
	roles  role
	effect migrate.Effect
	say    string
	names  string
}{
	{frontend | backend, migrate.Unneeded, "blixt flows shows each connection, also of the past, and blixt drops what was refused", `log log-format log-format-sd log-tag
		no-log error-log-format unique-id-format unique-id-header option/tcplog option/dontlognull option/dontlog-normal option/log-separate-errors option/logasap`},
	{frontend | backend, migrate.Unneeded, "blixt status and its metrics count all connections", `option/contstats option/socket-stats stats description id guid capture declare`},
	{frontend | backend, migrate.Unneeded, "clients and servers keep their TCP connections alive themselves", `option/clitcpka option/srvtcpka option/tcpka clitcpka-cnt
		clitcpka-idle clitcpka-intvl srvtcpka-cnt srvtcpka-idle srvtcpka-intvl`},
	{frontend | backend, migrate.Unneeded, "packets are forwarded as they come", `option/splice-auto option/splice-request option/splice-response option/tcp-smart-accept
		option/tcp-smart-connect option/nolinger option/independent-streams option/abortonclose`},
	{frontend | backend, migrate.Unneeded, "no process handles the packets", "bind-process backlog grace"},
	{frontend | backend, migrate.Unneeded, "servers keep their state over a restart", "load-server-state-from-file server-state-file-name option/persist option/prefer-last-server"},
	{backend, migrate.Changed, "the check is a TCP connect: what the server says is not looked at", `option/ssl-hello-chk option/mysql-check option/pgsql-check
		option/redis-check option/smtpchk option/ldap-check option/spop-check`},
	{frontend | backend, migrate.Unneeded, "it is for HTTP, which Blixt does not look at, nor does HAProxy in mode tcp", `compression cookie errorfile errorfiles errorloc errorloc302 errorloc303
		http-after-response http-error http-request http-response http-reuse http-send-name-header max-keep-alive-queue max-session-srv-conns monitor monitor-uri quic-initial
		redirect retry-on use-fcgi-app block reqadd reqdel reqrep rspadd rspdel rsprep appsession httpclose
		option/accept-invalid-http-request option/accept-invalid-http-response option/accept-unsafe-violations-in-http-request option/accept-unsafe-violations-in-http-response
		option/checkcache option/disable-h2-upgrade option/forwardfor option/forwarded option/h1-case-adjust-bogus-client option/h1-case-adjust-bogus-server
		option/http-buffer-request option/http-ignore-probes option/http-keep-alive option/http-no-delay option/http-pretend-keepalive option/http-restrict-req-hdr-names
		option/http-server-close option/http-tunnel option/http-use-proxy-header option/http_proxy option/httpclose option/httplog option/httpslog
		option/idle-close-on-response option/originalto option/forceclose option/http-drop-request-trailers option/http-drop-response-trailers`},
}

// find returns what becomes of a statement, by its first two words, or its first.
func find(words []string) (keyword, bool) {
	if len(words) > 1 {
		if k, ok := allKeywords[words[0]+" "+words[1]]; ok {
			return k, true
		}
	}
	k, ok := allKeywords[words[0]]
	return k, ok
}

// allKeywords are keywords and sayings. It is filled by init, as keywords name methods that
// use it.
var allKeywords = map[string]keyword{}

func init() {
	for name, k := range keywords {
		allKeywords[name] = k
	}
	for _, s := range sayings {
		for name := range strings.FieldsSeq(s.names) {
			allKeywords[strings.Replace(name, "/", " ", 1)] = keyword{roles: s.roles, effect: s.effect, say: s.say}
		}
	}
}

// saying is what becomes of something, and the text of the note about it.
type saying struct {
	effect migrate.Effect
	say    string
}

// timeouts are what becomes of those that are not carried over.
var timeouts = map[string]saying{
	"connect":         {migrate.Unneeded, "clients connect to the server themselves, by their own time-outs"},
	"queue":           {migrate.Unneeded, "nothing waits in a queue"},
	"client-fin":      {migrate.Unneeded, "a connection that one end has closed is forgotten soon"},
	"server-fin":      {migrate.Unneeded, "a connection that one end has closed is forgotten soon"},
	"client-hs":       {migrate.Unneeded, "clients shake hands with the server"},
	"http-request":    {migrate.Unneeded, "it is for HTTP"},
	"http-keep-alive": {migrate.Unneeded, "it is for HTTP"},
	"tarpit":          {migrate.Unneeded, "it is for HTTP"},
}

// sectionSayings are what becomes of sections that are no proxies.
var sectionSayings = map[string]saying{
	"peers":       {migrate.Unneeded, "with affinity all nodes choose the same server for a client, without asking each other"},
	"resolvers":   {migrate.Unneeded, "names are not looked up: a note at each server that has one says so"},
	"userlist":    {migrate.Unneeded, "it is for HTTP"},
	"mailers":     {migrate.Lost, "no mails are sent: alert on Blixt's metrics; the chart and docs/observability.md have rules for Prometheus"},
	"program":     {migrate.Lost, "Blixt starts no other program: write a unit of systemd for it"},
	"cache":       {migrate.Unneeded, "it is for HTTP"},
	"http-errors": {migrate.Unneeded, "it is for HTTP"},
	"fcgi-app":    {migrate.Unneeded, "it is for HTTP"},
	"ring":        {migrate.Unneeded, "blixt flows shows each connection, also of the past"},
	"log-profile": {migrate.Unneeded, "blixt flows shows each connection, also of the past"},
	"traces":      {migrate.Unneeded, "blixt trace shows what becomes of a packet"},
	"log-forward": {migrate.Lost, "logs are not forwarded: write a Gateway with a listener of protocol UDP or TCP and the log server as its backend"},
	"crt-store":   {migrate.Unneeded, "a note at each bind with TLS says what to do"},
	"acme":        {migrate.Unneeded, "a note at each bind with TLS says what to do"},
}

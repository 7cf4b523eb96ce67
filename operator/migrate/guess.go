// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"bytes"
	"regexp"
)

// The kinds of files that Guess tells apart: the names of the commands that read them.
const (
	Nginx        = "nginx"
	HAProxy      = "haproxy"
	IPVS         = "ipvs"
	Keepalived   = "keepalived"
	IngressNginx = "ingress-nginx"
	Services     = "services"
)

// marks are lines that files of one kind have, and those of the others have not.
var marks = []struct {
	kind string
	line *regexp.Regexp
}{
	{Keepalived, regexp.MustCompile(`(?m)^\s*(virtual_server|real_server|vrrp_instance|global_defs|virtual_server_group)\b`)},
	{IPVS, regexp.MustCompile(`(?m)^\s*(?:(?:\S*/)?sudo\s(?:.*\s)?)?(?:(?:\S*/)?ipvsadm\s+)?(-[Aa] -[tuf]|-A --sctp-service|--add-service|--add-server|-a --sctp-service) `)},
	{IngressNginx, regexp.MustCompile(`(?m)^([-\s]*"?kind"?:\s*"?(ConfigMap|Deployment|DaemonSet)(List)?"?,?\s*$|(tcp|udp):\s*(#.*)?$|\s*name:\s*"?(tcp|udp)-services)`)},
	{Services, regexp.MustCompile(`(?m)^[-\s]*"?kind"?:\s*"?(Service|ServiceList)"?,?\s*$`)},
	{HAProxy, regexp.MustCompile(`(?m)^(global|defaults(\s+\S+)?|(frontend|backend|listen)\s+[^\s;{]+(\s+\S+)?)\s*(#.*)?\r?$`)},
	{Nginx, regexp.MustCompile(`(?m)^\s*((stream|http|events|server|upstream\s+\S+)\s*\{|(include|proxy_pass|listen|server|load_module|worker_processes)\s[^;{}]*;)`)},
}

// guessed is how much of a file is looked at.
const guessed = 1 << 20

// Guess returns which kind of file a text is: the name of the command that reads it; "": that
// cannot be told.
func Guess(text []byte) string {
	text = text[:min(len(text), guessed)]
	for _, m := range marks {
		if m.line.Match(text) {
			return m.kind
		}
	}
	return ""
}

// Looks reports whether a file can be of the kind: it has a line of that kind, or of none.
func Looks(text []byte, kind string) bool {
	text = bytes.TrimSpace(text[:min(len(text), guessed)])
	other := false
	for _, m := range marks {
		if m.line.Match(text) {
			if m.kind == kind {
				return true
			}
			other = true
		}
	}
	return !other
}

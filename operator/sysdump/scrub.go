// SPDX-License-Identifier: Apache-2.0

// Package sysdump makes an archive of what a bug report needs. Secrets are left out, and
// so are the addresses of clients unless they are asked for.
package sysdump

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// leftOut is in the place of what is not told.
const leftOut = "(left out)"

// A Scrubber takes secrets out of texts, and addresses that are not known: those of
// clients. An address is always replaced by the same name, which nobody can tell the
// address from.
type Scrubber struct {
	// KeepClients has all addresses stay.
	KeepClients bool

	known map[netip.Addr]bool
	key   []byte
}

// NewScrubber returns a Scrubber that knows no address.
func NewScrubber() *Scrubber {
	s := &Scrubber{known: map[netip.Addr]bool{}, key: make([]byte, 32)}
	_, _ = rand.Read(s.key) // it never fails
	return s
}

// Know has an address stay as it is: one of a host, a pod, a Gateway.
func (s *Scrubber) Know(ip netip.Addr) { s.known[ip.Unmap().WithZone("")] = true }

// pem is a key or a certificate, or what is left of one that was cut off.
var pem = regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]+-----.*?(-----END [A-Z0-9 ]+-----|$)`)

// hints are parts of lines that may have one of secrets: most lines have none.
var hints = []string{"eyj", "bearer", "authorization", "://", "akia", "asia", "gh", "glpat", "xox", "passw", "token", "secret", "key", "credential"}

// secrets are what looks like one in a line, and what stays of it. The order matters.
var secrets = []struct {
	pattern *regexp.Regexp
	stays   string
}{
	{regexp.MustCompile(`\beyJ[\w-]{8,}\.[\w-]+(\.[\w-]*)?`), leftOut}, // JSON Web Token
	{regexp.MustCompile(`(?i)(authorization["']?\s*[:=]\s*["']?\w+\s+)[\w.~+/=-]+`), "${1}" + leftOut},
	{regexp.MustCompile(`(?i)\b(bearer(?:\s+|%20))[\w.~+/=-]{6,}`), "${1}" + leftOut},
	{regexp.MustCompile(`(?i)\b([a-z][a-z0-9+.-]*://)[^\s/@:"']*:[^\s@"']*@`), "$1" + leftOut + "@"}, // user information of a URL
	{regexp.MustCompile(`\b(AKIA|ASIA)[A-Z0-9]{16}\b`), leftOut},                                     // AWS
	{regexp.MustCompile(`\b(gh[pousr]_|github_pat_|glpat-|xox[abprs]-)[\w-]{10,}`), leftOut},         // tokens of services
	{regexp.MustCompile(`(?i)((?:[\w-]*(?:passw(?:or)?d|passwd|token|secret|api[_-]?key|private[_-]?key|credentials?)[\w-]*)\\?["']?[ \t]*[:=][ \t]*)(\\?"(?:[^"\\]|\\[^"])*\\?"|\\?'[^']*'|[^\s,;&"'()\[\]{}]+)`), "${1}" + leftOut},
	{regexp.MustCompile(`(?i)((?:^|\s)--?[\w-]*(?:passw(?:or)?d|token|secret|api-?key|private-?key|credentials?)[\w-]*\s+)([^\s-]\S*)`), "${1}" + leftOut},
}

// addresses are what may be one.
var addresses = regexp.MustCompile(`[0-9a-fA-F:.]*[0-9a-fA-F][:.][0-9a-fA-F:.]+|::[0-9a-fA-F:.]+`)

// Text returns a text without secrets and clients.
func (s *Scrubber) Text(text string) string {
	var b strings.Builder
	for line := range strings.Lines(pem.ReplaceAllLiteralString(text, leftOut)) {
		b.WriteString(s.line(line))
	}
	return b.String()
}

func (s *Scrubber) line(line string) string {
	lower := strings.ToLower(line)
	if slices.ContainsFunc(hints, func(hint string) bool { return strings.Contains(lower, hint) }) {
		for _, secret := range secrets {
			line = secret.pattern.ReplaceAllString(line, secret.stays)
		}
	}
	if s.KeepClients {
		return line
	}
	return addresses.ReplaceAllStringFunc(line, s.address)
}

// address returns what stays of what may be an address, with a port or at the end of a
// sentence.
func (s *Scrubber) address(word string) string {
	for _, end := range []string{word, strings.TrimRight(word, ".:")} {
		if ip, err := netip.ParseAddr(end); err == nil {
			return s.name(ip) + word[len(end):]
		}
	}
	if i := strings.LastIndexByte(word, ':'); i > 0 {
		if ip, err := netip.ParseAddr(word[:i]); err == nil {
			return s.name(ip) + word[i:]
		}
	}
	return word
}

func (s *Scrubber) name(ip netip.Addr) string {
	plain := ip.Unmap().WithZone("")
	if s.known[plain] || plain.IsLoopback() || plain.IsUnspecified() || plain.IsMulticast() || plain.IsLinkLocalUnicast() {
		return ip.String()
	}
	mac := hmac.New(sha256.New, s.key)
	mac.Write(plain.AsSlice())
	return "client-" + hex.EncodeToString(mac.Sum(nil)[:4])
}

// Lines returns the lines of a log without those that are records of flows, unless
// clients stay, and how many those were.
func (s *Scrubber) Lines(log string) (kept string, records int) {
	if s.KeepClients {
		return s.Text(log), 0
	}
	var b strings.Builder
	for line := range strings.Lines(log) {
		if i := strings.IndexByte(line, '{'); i >= 0 && strings.Contains(line, `"client"`) {
			var record struct {
				Event  string
				Client json.RawMessage
			}
			if json.Unmarshal([]byte(line[i:]), &record) == nil && record.Client != nil {
				records++
				continue
			}
		}
		b.WriteString(line)
	}
	return s.Text(b.String()), records
}

// sensitive are names of fields whose text is a secret, and harmless those that look
// like them.
var (
	sensitive = regexp.MustCompile(`(?i)passw(or)?d|token|secret|api[_-]?key|private[_-]?key|credential|authorization|cookie`)
	harmless  = regexp.MustCompile(`(?i)(name|ref|path|mode|policy|seconds)$`)
	flag      = regexp.MustCompile(`(?i)^--?[\w-]*(passw(or)?d|token|secret|api-?key|private-?key|credential)[\w-]*$`)
)

// told are annotations whose values stay.
var told = regexp.MustCompile(`^([\w.-]*\.)?(gateway\.networking\.k8s\.io|blixt\.x-k8s\.io|bpfman\.io)/|^endpoints\.kubernetes\.io/last-change-trigger-time$|^deployment\.kubernetes\.io/revision$`)

// Object takes out of an object what may be secret: what others have noted on it, values
// of environment variables and headers, and fields that are called so. It changes the
// object.
func (s *Scrubber) Object(object map[string]any) {
	if metadata, is := object["metadata"].(map[string]any); is {
		delete(metadata, "managedFields")
		if annotations, is := metadata["annotations"].(map[string]any); is {
			for name := range annotations {
				if !told.MatchString(name) {
					annotations[name] = leftOut
				}
			}
		}
	}
	for _, field := range []string{"data", "stringData", "binaryData"} { // of ConfigMaps and of Secrets
		if _, is := object[field]; is {
			object[field] = leftOut
		}
	}
	s.redact("", object)
}

func (s *Scrubber) redact(parent string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			if text, is := value.(string); is && text != "" && sensitive.MatchString(name) && !harmless.MatchString(name) {
				v[name] = leftOut
				continue
			}
			if name == "template" { // a pod's, with metadata of its own
				if pod, is := value.(map[string]any); is {
					s.Object(pod)
					continue
				}
			}
			s.redact(name, value)
		}
	case []any:
		for i, item := range v {
			object, is := item.(map[string]any)
			if is && (parent == "env" || parent == "httpHeaders") {
				if _, has := object["value"]; has {
					object["value"] = leftOut
				}
			}
			if text, is := item.(string); is && i > 0 {
				if before, is := v[i-1].(string); is && flag.MatchString(before) && !strings.HasPrefix(text, "-") {
					v[i] = leftOut
				}
			}
			s.redact(parent, item)
		}
	}
}

// KnowAll has all addresses stay that are values of fields of an object, alone or as a
// prefix. Conditions, events and notes may tell of clients: they are no such values.
func (s *Scrubber) KnowAll(v any) {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			if name != "annotations" {
				s.KnowAll(value)
			}
		}
	case []any:
		for _, value := range v {
			s.KnowAll(value)
		}
	case string:
		if ip, err := netip.ParseAddr(v); err == nil {
			s.Know(ip)
		} else if p, err := netip.ParsePrefix(v); err == nil {
			s.Know(p.Addr())
		} else if at, err := netip.ParseAddrPort(v); err == nil {
			s.Know(at.Addr())
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package haproxy

import (
	"cmp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// checks are what a backend says of the checks of its servers.
type checks struct {
	option statement // "option …" that says how, the last one of them; none: a TCP connect
	http   v1alpha1.HTTPCheck
	port   int
	// method by which HAProxy asks, and the line that says so.
	method     string
	methodLine statement
	lines      []statement // http-check and tcp-check
}

// checkOptions say how servers are checked.
var checkOptions = []string{
	"httpchk", "tcp-check", "external-check", "ssl-hello-chk", "mysql-check", "pgsql-check", "redis-check", "smtpchk", "ldap-check", "spop-check",
}

// by returns the option, such as httpchk, or "".
func (c *checks) by() string {
	if c.option.words == nil {
		return ""
	}
	return c.option.words[1]
}

// choose remembers how servers are checked.
func (c *checks) choose(s statement) {
	switch {
	case len(s.words) < 2 || s.words[0] != "option" || !slices.Contains(checkOptions, s.words[1]):
	case !s.negated():
		c.option = s
	case c.by() == s.words[1]:
		c.option = statement{}
	}
}

func (p *proxy) checkLine(s statement) { p.checks.lines = append(p.checks.lines, s) }

// readChecks takes the lines about checks, when all others are read: what they mean depends on
// the option, which may come behind them.
func (p *proxy) readChecks() {
	c := &p.checks
	if !slices.ContainsFunc(p.servers, func(s server) bool { return s.check }) {
		for _, s := range c.lines {
			p.note(s, migrate.Unneeded, "%s: no server is checked: none has the word check", quote(s.text))
		}
		return
	}
	if c.by() == "httpchk" {
		p.httpchk(c.option)
	}
	for _, s := range c.lines {
		switch {
		case s.words[0] == "http-check" && c.by() == "httpchk":
			p.httpCheck(s)
		case s.words[0] == "tcp-check" && c.by() == "tcp-check":
			p.tcpCheck(s)
		default:
			p.note(s, migrate.Unneeded, "%s: HAProxy ignores it, as it is not for %s", quote(s.text), cmp.Or(c.by(), "a TCP connect"))
		}
	}
	if c.by() == "httpchk" && c.method != "GET" {
		p.note(c.methodLine, migrate.Changed, "%s: checks ask by GET, not by %s: have the server answer that", quote(c.methodLine.text), c.method)
	}
}

// httpchk takes "option httpchk [METHOD] [URI] [VERSION]". Lines behind the version are headers.
func (p *proxy) httpchk(s statement) {
	c := &p.checks
	c.http.Path, c.method, c.methodLine = "/", "OPTIONS", s
	words := s.words[2:]
	switch len(words) {
	case 0:
		return
	case 1:
		c.http.Path = words[0]
		return
	}
	c.method, c.http.Path = words[0], words[1]
	for line := range strings.FieldsFuncSeq(strings.Join(words[2:], " "), func(r rune) bool { return r == '\r' || r == '\n' }) {
		if strings.HasPrefix(line, "HTTP/") { // headers may stand behind a space, too
			_, line, _ = strings.Cut(line, " ")
		}
		if name, value, is := strings.Cut(line, ":"); is {
			p.header(s, strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
}

// header takes one that HAProxy's checks send.
func (p *proxy) header(s statement, name, value string) {
	switch {
	case strings.EqualFold(name, "host") && strings.Trim(value, hostLetters) == "" && strings.Trim(value, "-.:") == value:
		p.checks.http.Host = value
	case strings.EqualFold(name, "host"):
		p.note(s, migrate.Lost, "%s: %s is no host name: checks name the server's address as Host: have the server answer that", quote(s.text), quote(value))
	case strings.EqualFold(name, "user-agent"):
		p.note(s, migrate.Changed, "%s: the User-Agent of checks is blixt-health-check", quote(s.text))
	case strings.EqualFold(name, "connection"): // each check has a connection of its own
	default:
		p.note(s, migrate.Lost, "%s: checks send no header %s: have the server answer without it", quote(s.text), quote(name))
	}
}

// hostLetters are those of the names that a check may have as its Host.
const hostLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.:"

// httpCheck takes "http-check send" and "http-check expect".
func (p *proxy) httpCheck(s statement) {
	words := s.words[1:]
	switch {
	case p.connectLine(s):
	case len(words) >= 3 && words[0] == "expect" && words[1] == "status":
		p.checks.http.Statuses = strings.Split(words[2], ",")
	case len(words) > 0 && words[0] == "send":
		for i := 1; i+1 < len(words); i += 2 {
			switch {
			case words[i] == "meth":
				p.checks.method, p.checks.methodLine = words[i+1], s
			case words[i] == "uri":
				p.checks.http.Path = words[i+1]
			case words[i] == "hdr" && i+2 < len(words):
				i++
				p.header(s, words[i], words[i+1])
			case words[i] == "ver":
			default:
				p.note(s, migrate.Lost, "%s: checks send no %s", quote(s.text), words[i])
			}
		}
	case len(words) > 0 && (words[0] == "comment" || words[0] == "send-state"):
		p.note(s, migrate.Unneeded, "%s: checks say nothing of the sort", quote(s.text))
	default:
		p.note(s, migrate.Lost, "%s: a check is one GET with the statuses that are expected: set health.active.http of the policy", quote(s.text))
	}
}

// connectLine takes "connect" or "connect port PORT" of a script, which is what a policy has.
func (p *proxy) connectLine(s statement) bool {
	switch {
	case len(s.words) > 1 && s.words[1] == "comment", len(s.words) == 2 && s.words[1] == "connect":
		return true
	case len(s.words) == 4 && s.words[1] == "connect" && s.words[2] == "port":
		return setNumber(&p.checks.port, s.words[3], 1, 65535) == nil
	}
	return false
}

// tcpCheck takes steps of a script.
func (p *proxy) tcpCheck(s statement) {
	if !p.connectLine(s) {
		p.note(s, migrate.Changed, "%s: the check is a TCP connect: what the server says is not looked at", quote(s.text))
	}
}

// health returns the checks of a backend. There is one for all of its servers.
func (p *proxy) health(f *migrate.Frontend) *v1alpha1.PolicyHealth {
	var h v1alpha1.PolicyHealth
	var first *server
	unchecked := false
	for i := range p.servers {
		s := &p.servers[i]
		switch {
		case s.unserved != "":
			continue
		case !s.check:
			unchecked = true
			continue
		case first == nil:
			first = s
		case s.inter != first.inter || s.rise != first.rise || s.fall != first.fall || s.checkPort != first.checkPort || s.checkTLS != first.checkTLS:
			f.Note(s.Place, migrate.Changed, "%s is checked like the first server that is checked: a policy has one check", quote(s.text))
		}
		if s.observe {
			h.Passive = &v1alpha1.PassiveHealth{Consecutive: pointer(s.errorLimit)}
		}
	}
	if first == nil {
		return nil
	}
	if unchecked {
		f.Note(first.Place, migrate.Changed, "%s is checked, and other servers of %s are not: a policy checks all", quote(first.text), quote(p.section.text))
	}
	timeout := first.inter
	if connect := p.idle["connect"]; connect > 0 {
		timeout = min(timeout, connect)
	}
	if check := p.idle["check"]; check > 0 {
		timeout = min(first.inter, check)
	}
	h.Active = &v1alpha1.ActiveHealth{
		Type: v1alpha1.CheckTCP, Interval: &metav1.Duration{Duration: first.inter}, Timeout: &metav1.Duration{Duration: timeout},
		Rise: pointer(first.rise), Fall: pointer(first.fall),
	}
	if port := cmp.Or(p.checks.port, first.checkPort); port > 0 {
		h.Active.Port = pointer(port)
	}
	switch {
	case first.checkTLS:
		f.Note(first.Place, migrate.Changed, "%s is checked by a TCP connect: checks speak no TLS", quote(first.text))
	case p.checks.by() == "httpchk":
		h.Active.Type, h.Active.HTTP = v1alpha1.CheckHTTP, &p.checks.http
	}
	return &h
}

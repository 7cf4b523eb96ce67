// SPDX-License-Identifier: Apache-2.0

package haproxy

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
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
	tls    bool // of the check alone
	// method by which HAProxy asks, and the line that says so.
	method     string
	methodLine statement
	lines      []statement // http-check and tcp-check
	unread     []statement // those about what a server says, which Blixt does not look at
	// decides is the first of them by which HAProxy may keep a server out that is well, such as a
	// replica; nil: there is none.
	decides *statement
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
	for _, s := range p.servers {
		c.tls = c.tls || s.check && s.checkTLS
	}
	if c.by() == "external-check" || c.by() == "httpchk" && c.tls && c.decides == nil && p.asksForRole() {
		c.decides = &c.option
	}
	if len(c.unread) > 0 && c.decides == nil {
		p.note(c.unread[0], migrate.Changed, "%s: the check is %s: what the server says is not looked at", c.script(), c.what())
	}
	if c.by() == "httpchk" && c.method != "GET" && !c.tls {
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

// script returns the lines about what a server says, for a note.
func (c *checks) script() string {
	if more := len(c.unread) - 1; more > 0 {
		return fmt.Sprintf("%s and %d other lines", quote(c.unread[0].text), more)
	}
	return quote(c.unread[0].text)
}

// what returns what a check is.
func (c *checks) what() string {
	switch {
	case c.by() == "httpchk" && !c.tls:
		return "a GET with the statuses that are expected"
	case c.tls:
		return "a TCP connect, without TLS"
	}
	return "a TCP connect"
}

// roles are in paths that only some servers answer well, such as those of Patroni, which has
// port 8008.
var roles = regexp.MustCompile(`(?i)master|primary|leader|replica|slave|standby|read|writ|sync`)

// asksForRole reports whether a check by HTTP asks servers which of them is the master.
func (p *proxy) asksForRole() bool {
	return roles.MatchString(p.checks.http.Path) || p.checks.port == 8008 ||
		slices.ContainsFunc(p.servers, func(s server) bool { return s.check && s.checkPort == 8008 })
}

// httpCheck takes "http-check send" and "http-check expect".
func (p *proxy) httpCheck(s statement) {
	words := s.words[1:]
	switch {
	case p.connectLine(s):
	case len(words) > 0 && words[0] == "expect":
		if !p.expectStatus(s) {
			p.expect(s)
		}
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

// pattern returns what a line "expect" looks for: "not" of the exclamation mark, a kind such as
// string, and its text.
func (s *statement) pattern() (not bool, kind, text string) {
	words := s.words[2:]
	if len(words) < 2 {
		return false, "", ""
	}
	return slices.Contains(words[:len(words)-2], "!"), words[len(words)-2], words[len(words)-1]
}

// expectStatus takes the statuses that are healthy. It returns false if these are not what is
// expected.
func (p *proxy) expectStatus(s statement) bool {
	not, kind, text := s.pattern()
	switch {
	case kind == "status" && !not:
		p.checks.http.Statuses = strings.Split(text, ",")
		return true
	case kind == "status":
		p.checks.http.Statuses = statuses(func(status string) bool {
			return !slices.ContainsFunc(strings.Split(text, ","), func(some string) bool {
				first, last, isRange := strings.Cut(some, "-")
				return status == first || isRange && first <= status && status <= last
			})
		})
		return true
	case kind == "rstatus" && len(text) < 256:
		want, err := regexp.Compile(text)
		if err != nil {
			return false
		}
		p.checks.http.Statuses = statuses(func(status string) bool { return want.MatchString(status) != not })
		return true
	}
	return false
}

// statuses returns those that are healthy, as ranges.
func statuses(healthy func(status string) bool) (all []string) {
	const first, last = 100, 599
	begin := 0
	for n := first; n <= last+1; n++ {
		is := n <= last && healthy(strconv.Itoa(n))
		switch {
		case is && begin == 0:
			begin = n
		case !is && begin == n-1:
			all, begin = append(all, strconv.Itoa(begin)), 0
		case !is && begin > 0:
			all, begin = append(all, fmt.Sprintf("%d-%d", begin, n-1)), 0
		}
	}
	return all
}

// wellKnown begin what every server says that is well, whatever it is for: Redis, POP3, SMTP and
// FTP, IMAP, SSH, ZooKeeper.
var wellKnown = []string{"+PONG", "+OK", "220", "250", "* OK", "SSH-", "imok"}

// expect takes a line about what a server says.
func (p *proxy) expect(s statement) {
	p.checks.unread = append(p.checks.unread, s)
	not, kind, text := s.pattern()
	says := func(begin string) bool { return strings.HasPrefix(strings.TrimPrefix(text, "^"), begin) }
	if p.checks.decides == nil && (not || kind != "string" && kind != "rstring" || !slices.ContainsFunc(wellKnown, says)) {
		p.checks.decides = &s
	}
}

// noteChosen says what becomes of checks that keep servers out by what these say: a replica
// would get what is for the master, if it accepts connections. It reports whether the frontend may
// be served.
func (p *proxy) noteChosen(f *migrate.Frontend, front *proxy, servers []server) bool {
	d := p.checks.decides
	if d == nil {
		return true
	}
	n := 0
	for _, s := range servers {
		if !s.disabled && s.weight > 0 {
			n++
		}
	}
	if n <= 1 {
		f.Note(d.Place, migrate.Lost, "%s: the check is %s: the server gets connections whatever it says", quote(d.text), p.checks.what())
		return true
	}
	f.Note(d.Place, migrate.Lost, "%s: the check is %s, and servers that this keeps out, such as replicas, would get connections: %s is not served: list the master alone, or remove the line if each of the servers may have them",
		quote(d.text), p.checks.what(), quote(front.section.text))
	return false
}

// connectLine takes "comment", and "connect" with a port and with TLS.
func (p *proxy) connectLine(s statement) bool {
	if len(s.words) < 2 || s.words[1] != "connect" {
		return len(s.words) > 1 && s.words[1] == "comment"
	}
	for i := 2; i < len(s.words); i++ {
		switch {
		case s.words[i] == "ssl":
			p.checks.tls = true
		case s.words[i] == "port" && i+1 < len(s.words) && setNumber(&p.checks.port, s.words[i+1], 1, 65535) == nil:
			i++
		default:
			return false
		}
	}
	return true
}

// tcpCheck takes steps of a script.
func (p *proxy) tcpCheck(s statement) {
	switch {
	case p.connectLine(s):
	case len(s.words) > 1 && s.words[1] == "expect":
		p.expect(s)
	default:
		p.checks.unread = append(p.checks.unread, s)
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
		case p.checks.port == 0 && s.checkPort != first.checkPort:
			f.Note(s.Place, migrate.Lost, "%s: a policy has one check: this server gets no connections unless it answers that of the first server, at %s, too", quote(s.text), first.checkPlace())
		case s.inter != first.inter || s.rise != first.rise || s.fall != first.fall || s.checkTLS != first.checkTLS:
			f.Note(s.Place, migrate.Changed, "%s is checked like the first server that is checked: a policy has one check", quote(s.text))
		}
		if s.observe {
			h.Passive = &v1alpha1.PassiveHealth{Consecutive: pointer(s.errorLimit)}
		}
	}
	if first == nil {
		return nil
	}
	switch {
	case unchecked && (p.checks.by() == "httpchk" && !p.checks.tls || cmp.Or(p.checks.port, first.checkPort) > 0):
		f.Note(first.Place, migrate.Lost, "%s is checked, and other servers of %s are not: a policy checks all, and these get no connections unless they answer that check, too", quote(first.text), quote(p.section.text))
	case unchecked:
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
	case p.checks.tls:
		f.Note(first.Place, migrate.Changed, "%s is checked by a TCP connect: checks speak no TLS", quote(first.text))
	case p.checks.by() == "httpchk":
		h.Active.Type, h.Active.HTTP = v1alpha1.CheckHTTP, &p.checks.http
	}
	return &h
}

// checkPlace returns the port of a server's check.
func (v *server) checkPlace() string {
	if v.checkPort > 0 {
		return fmt.Sprintf("port %d", v.checkPort)
	}
	return "its own port"
}

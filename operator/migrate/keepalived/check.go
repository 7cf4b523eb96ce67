// SPDX-License-Identifier: Apache-2.0

package keepalived

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// check is a checker of a real server.
type check struct {
	at     *node
	kind   v1alpha1.CheckType // None: passive health alone
	port   int
	timing timing
	host   string
	path   string
	status []string
	udp    *v1alpha1.UDPCheck
}

// instead are checkers that Blixt has no like of, and what is to be said about them.
var instead = map[string]string{
	"SSL_GET":    "checks speak no TLS, and so do not ask for a page",
	"SMTP_CHECK": "what the server says is not looked at",
	"MISC_CHECK": "no program is run",
	"FILE_CHECK": "no file is followed",
	"BFD_CHECK":  "no BFD is spoken",
	"PING_CHECK": "no pings are sent",
}

// check takes a checker.
func (v *virtual) check(n *node) (c check, ok bool) {
	c = check{at: n, kind: v1alpha1.CheckTCP, timing: timing{retry: -1}}
	name := n.words[0]
	switch name {
	case "TCP_CHECK", "UDP_CHECK", "DNS_CHECK":
	case "HTTP_GET":
		c.kind, c.path = v1alpha1.CheckHTTP, "/"
		c.status = []string{"200-299"}
	default:
		say := instead[name]
		if say == "" {
			v.note(n, migrate.Lost, "%s is no checker that is known: see what it does", n.head(1))
			return c, false
		}
		more := ""
		if name == "MISC_CHECK" || name == "FILE_CHECK" {
			more = ". Servers that it keeps out although they accept connections, such as replicas, get some: list the others alone"
		}
		v.note(n, migrate.Lost, "%s: %s: a TCP connect takes its place, or, for UDP, passive health%s", n.head(1), say, more)
	}
	var query dnsQuestion
	payload, expect, reply := "", "", false
	urls := 0
	for _, x := range n.body {
		if x.only != "" {
			v.reader.conditional(x)
			continue
		}
		switch key, value := x.words[0], x.word(1); {
		case key == "connect_port":
			v.number(x, &c.port, value, 1, 65535)
		case key == "connect_ip":
			v.note(x, migrate.Lost, "%s: checks ask the address that gets the connections", x.head(2))
		case key == "virtualhost":
			c.host = value
		case key == "url" && name == "HTTP_GET":
			if urls++; urls > 1 {
				v.note(x, migrate.Changed, "%s: a check asks for one page: the first one", x.head(1))
				continue
			}
			v.url(x, &c)
		case name == "UDP_CHECK" && key == "payload":
			payload = strings.Join(x.words[1:], " ")
		case name == "UDP_CHECK" && key == "require_reply":
			reply, expect = true, strings.Join(x.words[1:], " ")
		case name == "DNS_CHECK" && key == "type":
			query.kind = value
		case name == "DNS_CHECK" && key == "name":
			query.name = value
		case instead[name] != "" || strings.HasSuffix(key, "_reply_length") || key == "http_protocol":
			// what becomes of the checker is said
		default:
			v.common(x, &c.timing)
		}
	}
	switch name {
	case "UDP_CHECK":
		v.udp(n, &c, payload, expect, reply)
	case "DNS_CHECK":
		v.dns(n, &c, query)
	}
	return c, true
}

// url takes the page of an HTTP check.
func (v *virtual) url(n *node, c *check) {
	for _, x := range n.body {
		switch x.words[0] {
		case "path":
			c.path = x.word(1)
		case "status_code":
			c.status = x.words[1:]
		case "virtualhost":
			c.host = x.word(1)
		default:
			v.note(x, migrate.Lost, "%s: a check looks at the status, not at the page", x.head(1))
		}
	}
}

// udp has a datagram answered, if the checker wants an answer. Without, it goes by ICMP
// errors, as passive health does.
func (v *virtual) udp(n *node, c *check, payload, expect string, reply bool) {
	if !reply {
		c.kind = v1alpha1.CheckNone
		v.note(n, migrate.Changed, "%s wants no reply: passive health takes out servers that are unreachable", n.head(1))
		return
	}
	c.kind, c.udp = v1alpha1.CheckUDP, &v1alpha1.UDPCheck{Payload: []byte("check")}
	if payload != "" {
		data, err := hexBytes(payload)
		if err != nil || len(data) == 0 || len(data) > 512 {
			v.note(n, migrate.Lost, "%s: payload %s is no hexadecimal number of 1 to 512 bytes", n.head(1), migrate.Quote(payload))
			data = []byte("check")
		}
		c.udp.Payload = data
	}
	if expect != "" {
		data, err := hexBytes(expect)
		if err != nil || len(data) > 512 {
			v.note(n, migrate.Lost, "%s: any reply is taken, as %s is no hexadecimal number of up to 512 bytes", n.head(1), migrate.Quote(expect))
			return
		}
		c.udp.Expect = data
	}
}

// hexBytes takes keepalived's free form: a word with an odd number of digits has a zero before
// its last one.
func hexBytes(text string) (all []byte, err error) {
	for word := range strings.FieldsSeq(text) {
		if len(word)%2 == 1 {
			word = word[:len(word)-1] + "0" + word[len(word)-1:]
		}
		data, err := hex.DecodeString(word)
		if err != nil {
			return nil, err
		}
		all = append(all, data...)
	}
	return all, nil
}

// dnsQuestion is what a DNS_CHECK asks.
type dnsQuestion struct{ kind, name string }

// dnsTypes are the types that keepalived asks for; RFC 1035 and 3596.
var dnsTypes = map[string]uint16{"": 6, "A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "MX": 15, "TXT": 16, "AAAA": 28}

// message returns the question as it is sent, with an identifier that its answer repeats.
func (q dnsQuestion) message() ([]byte, error) {
	kind, ok := dnsTypes[strings.ToUpper(q.kind)]
	if !ok {
		return nil, fmt.Errorf("type %s is not known", migrate.Quote(q.kind))
	}
	m := []byte{0xb1, 0x17, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0} // recursion is desired, one question
	if name := strings.Trim(q.name, "."); name != "" {
		for label := range strings.SplitSeq(name, ".") {
			if label == "" || len(label) > 63 {
				return nil, fmt.Errorf("%s is no name", migrate.Quote(q.name))
			}
			m = append(append(m, byte(len(label))), label...)
		}
	}
	if len(m) > 12+254 {
		return nil, fmt.Errorf("%s is no name", migrate.Quote(q.name))
	}
	m = binary.BigEndian.AppendUint16(append(m, 0), kind)
	return append(m, 0, 1), nil // class IN
}

func (v *virtual) dns(n *node, c *check, q dnsQuestion) {
	if v.protocol != corev1.ProtocolUDP {
		v.note(n, migrate.Changed, "%s: a TCP connect takes its place, as the service is TCP", n.head(1))
		return
	}
	m, err := q.message()
	if err != nil {
		v.note(n, migrate.Lost, "%s: %v: passive health takes its place", n.head(1), err)
		c.kind = v1alpha1.CheckNone
		return
	}
	c.kind, c.udp = v1alpha1.CheckUDP, &v1alpha1.UDPCheck{Payload: m, Expect: m[:2]}
}

// health returns the checks of a virtual server. There is one for all of its servers.
func (v *virtual) health(f *migrate.Frontend) *v1alpha1.PolicyHealth {
	var first *check
	unchecked, differ := 0, false
	for i := range v.servers {
		s := &v.servers[i]
		if len(s.checks) == 0 {
			unchecked++
		}
		for j := range s.checks {
			c := &s.checks[j]
			switch {
			case first == nil:
				first = c
			case j > 0:
				f.Note(c.at.Place, migrate.Changed, "%s: a policy has one check: the first one of the first server", c.at.head(1))
			case !c.asksLike(first):
				differ = true
				f.Note(c.at.Place, migrate.Lost, "%s: %s is checked in another way than the first server, and a policy has one check: %s for all of them", c.at.head(1), s.Text, v.simple())
			case !c.like(first):
				f.Note(c.at.Place, migrate.Changed, "%s: %s is checked like the first server: a policy has one check", c.at.head(1), s.Text)
			}
		}
	}
	if first == nil {
		return nil
	}
	if differ { // a server that cannot answer the check of another one would get no connections
		first = &check{at: first.at, kind: v1alpha1.CheckTCP, timing: first.timing}
	}
	if unchecked > 0 {
		if first.kind == v1alpha1.CheckTCP && first.port == 0 {
			f.Note(v.node.Place, migrate.Changed, "%s: some servers are not checked: a policy checks all", v.text)
		} else {
			f.Note(v.node.Place, migrate.Lost, "%s: some servers are not checked, and a policy checks all: they get no connections unless they answer %s of the first one, too", v.text, first.at.head(1))
		}
	}
	kind := first.kind
	if v.protocol == corev1.ProtocolUDP && kind != v1alpha1.CheckUDP || v.protocol == corev1.ProtocolTCP && kind == v1alpha1.CheckUDP {
		kind = v1alpha1.CheckNone
	}
	if kind == v1alpha1.CheckNone {
		return &v1alpha1.PolicyHealth{Passive: &v1alpha1.PassiveHealth{}}
	}
	retry := first.timing.retry
	if retry < 0 {
		retry = 1
	}
	loop := max(first.timing.loop, time.Second)
	a := &v1alpha1.ActiveHealth{
		Type: kind, Interval: &metav1.Duration{Duration: loop}, Timeout: &metav1.Duration{Duration: min(first.timing.timeout, loop)},
		Rise: pointer(1), Fall: pointer(retry + 1), UDP: first.udp,
	}
	if first.port > 0 {
		a.Port = pointer(first.port)
	}
	if kind == v1alpha1.CheckHTTP {
		a.HTTP = &v1alpha1.HTTPCheck{Path: first.path, Host: first.host, Statuses: first.status}
	}
	return &v1alpha1.PolicyHealth{Active: a}
}

// simple is the check that any server answers.
func (v *virtual) simple() string {
	if v.protocol == corev1.ProtocolUDP {
		return "passive health"
	}
	return "a TCP connect"
}

// asksLike reports whether two checks ask the same, but for when.
func (c *check) asksLike(o *check) bool {
	a, b := *c, *o
	a.timing, b.timing = timing{}, timing{}
	return a.like(&b)
}

// like reports whether two checks ask the same.
func (c *check) like(o *check) bool {
	a, b := *c, *o
	a.at, b.at = nil, nil
	return reflect.DeepEqual(a, b)
}

func pointer(n int) *int32 {
	v := int32(n)
	return &v
}

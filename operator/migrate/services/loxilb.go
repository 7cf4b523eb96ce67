// SPDX-License-Identifier: Apache-2.0

package services

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/migrate"
)

// loxilb: pkg/agent/manager/loadbalancer of loxilb-io/kube-loxilb.
var loxilb = vendor{
	name: "loxilb", is: regexp.MustCompile(`^loxilb\.io/`), others: unknown,
	rules: map[string]rule{
		"loxilb.io/lbmode":                 {loxilbMode, "default: unneeded; onearm, hostonearm and fullnat: changed, see docs/client-address.md; dsr and fullproxy: changed or lost, with the reason"},
		"loxilb.io/epselect":               {loxilbSelect, "persist: affinity of a BlixtPolicy; rr and hash: unneeded; lc, priority, n2, n3 and others: lost"},
		"loxilb.io/timeout":                {loxilbTimeout, "idleTimeout of a BlixtPolicy"},
		"loxilb.io/liveness":               {loxilbLiveness, "yes: health.active of a BlixtPolicy, as the annotations for probes say"},
		"loxilb.io/probetype":              {loxilbProbe, "tcp, http and udp with probereq: health.active; ping, https and sctp: lost"},
		"loxilb.io/probeport":              loxilbProbeRule,
		"loxilb.io/probereq":               loxilbProbeRule,
		"loxilb.io/proberesp":              loxilbProbeRule,
		"loxilb.io/probetimeout":           loxilbProbeRule,
		"loxilb.io/proberetries":           loxilbProbeRule,
		"loxilb.io/staticIP":               {loxilbStatic, "spec.addresses of the Gateway, and carried over"},
		"loxilb.io/secondaryIPs":           said(migrate.Lost, "add these addresses to spec.addresses of the Gateway, if they are not for SCTP"),
		"loxilb.io/secips":                 said(migrate.Lost, "add these addresses to spec.addresses of the Gateway, if they are not for SCTP"),
		"loxilb.io/num-secondary-networks": said(migrate.Lost, "a Gateway gets one address of each family, unless spec.addresses names more"),
		"loxilb.io/ipam":                   {loxilbFamily, "ipv4 and ipv6: carried over; ipv6to4 and nat64: lost, as families are not translated"},
		"loxilb.io/poolSelect":             carried,
		"loxilb.io/poolSelectSecondary":    carried,
		"loxilb.io/zoneselect":             carried,
		"loxilb.io/zoneinstance":           carried,
		"loxilb.io/zonelabel":              carried,
		"loxilb.io/usepodnetwork":          said(migrate.Unneeded, "Blixt always sends to the pods' own addresses"),
		"loxilb.io/nodelabel":              said(migrate.Lost, "all ready endpoints of the Service are backends, on whatever node"),
		"loxilb.io/prefLocalPod":           unless("no", said(migrate.Changed, "set trafficDistribution: PreferSameNode in the Service, or externalTrafficPolicy: Local in a BlixtGatewayConfig")),
		"loxilb.io/useExternalEndpoint":    said(migrate.Unneeded, "Blixt serves what EndpointSlices of the Service name, in the cluster or outside"),
		"loxilb.io/multus-nets":            said(migrate.Lost, "EndpointSlices of the Service have the pods' first addresses: make a Service without a selector, and EndpointSlices with those of the other network"),
		"loxilb.io/useproxyprotov2":        unless("no", said(migrate.Lost, "no PROXY header is sent: backends see the client's address itself, so switch the header off there")),
		"loxilb.io/egress":                 unless("no", noEgress),
	},
}

// loxilbProbeRule is for annotations that finishHealth reads.
var loxilbProbeRule = rule{func(s *service, key, value string) {
	if s.obj.Annotations["loxilb.io/liveness"] != "yes" && s.obj.Annotations["loxilb.io/probetype"] == "" {
		s.note(s.at(key), migrate.Unneeded, "%s %q: there is no loxilb.io/liveness \"yes\" and no loxilb.io/probetype, so nothing is probed", key, value)
	}
}, "health.active of a BlixtPolicy"}

func loxilbStatic(s *service, key, value string) {
	if !s.stays {
		s.annotations[key] = value
		s.want(s.at(key), key, value)
	}
}

func loxilbMode(s *service, key, value string) {
	switch value {
	case "default":
		s.note(s.at(key), migrate.Unneeded, "%s %q: backends see their clients' addresses", key, value)
	case "onearm", "hostonearm", "fullnat":
		s.note(s.at(key), migrate.Changed, "%s %q: backends see their clients' addresses, not the load balancer's: what admits that alone must admit the clients. clientAddress: Node in a BlixtGatewayConfig has them see a node's", key, value)
	case "dsr":
		s.note(s.at(key), migrate.Changed, "%s %q: answers go back by the node that the connection came in by. Take the address off the servers' loopback interfaces", key, value)
	case "fullproxy":
		s.note(s.at(key), migrate.Lost, "%s %q: Blixt ends no connection, and neither TLS nor HTTP: keep what does as a backend", key, value)
	default:
		s.note(s.at(key), migrate.Lost, "%s %q is not known here", key, value)
	}
}

func loxilbSelect(s *service, key, value string) {
	s.balances = "epselect " + value
	switch value {
	case "persist":
		s.policy.Affinity = s.affinity(0)
	case "rr", "roundrobin", "hash":
		s.note(s.at(key), migrate.Unneeded, "%s %q: Blixt spreads new connections by a hash, in equal shares", key, value)
	case "lc", "leastconnections":
		s.note(s.at(key), migrate.Lost, "%s %q: Blixt does not count a backend's connections: all get equal shares of the new ones", key, value)
	default:
		s.note(s.at(key), migrate.Lost, "%s %q: Blixt spreads new connections in equal shares. For other shares, list several Services with weights in the route", key, value)
	}
}

func loxilbTimeout(s *service, key, value string) {
	seconds, err := strconv.ParseUint(strings.TrimSpace(value), 10, 31)
	if err != nil || seconds == 0 {
		s.note(s.at(key), migrate.Lost, "%s %q is no number of seconds: flows last as long as Blixt's defaults say", key, value)
		return
	}
	idle := time.Duration(seconds) * time.Second
	within := func(least, most time.Duration) *metav1.Duration {
		return &metav1.Duration{Duration: min(max(idle, least), most)}
	}
	s.policy.IdleTimeout = &v1alpha1.PolicyIdleTimeout{TCP: within(10*time.Second, 168*time.Hour), UDP: within(time.Second, 24*time.Hour)}
	if idle < 10*time.Second || idle > 24*time.Hour {
		s.note(s.at(key), migrate.Changed, "%s %q: an idle time-out is from 10s to 168h for TCP, and from 1s to 24h for UDP", key, value)
	}
}

func loxilbFamily(s *service, key, value string) {
	switch value {
	case "ipv6to4", "nat64":
		s.note(s.at(key), migrate.Lost, "%s %q: clients of an IPv6 address reach IPv6 backends only, as families are not translated. Give the pods both families, and the Service ipFamilyPolicy: RequireDualStack", key, value)
	default:
		s.annotations[key] = value
	}
}

func loxilbLiveness(s *service, key, value string) {
	switch value {
	case "yes":
		s.health = &v1alpha1.ActiveHealth{Type: v1alpha1.CheckTCP}
	case "no", "":
	default:
		s.note(s.at(key), migrate.Lost, "%s %q is not yes or no: nothing is probed", key, value)
	}
}

// loxilbProbe is a second way to say that backends are probed.
func loxilbProbe(s *service, key, value string) {
	switch value {
	case "none", "":
		s.health = nil
	case "tcp", "http", "udp":
		s.health = &v1alpha1.ActiveHealth{Type: v1alpha1.CheckType(strings.ToUpper(value))}
	default:
		s.health = nil
		s.note(s.at(key), migrate.Lost, "%s %q: Blixt probes by TCP, UDP or HTTP. Write health.active of a BlixtPolicy, or rely on the pods' readiness", key, value)
	}
}

// finishHealth reads the details of probes.
func (s *service) finishHealth() {
	const port, request, answer, timeout, retries = "loxilb.io/probeport", "loxilb.io/probereq", "loxilb.io/proberesp", "loxilb.io/probetimeout", "loxilb.io/proberetries"
	number := func(key string, most uint64) int32 {
		value, is := s.obj.Annotations[key]
		n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
		if !is {
			return 0
		}
		if err != nil || n < 1 || n > most {
			s.note(s.at(key), migrate.Lost, "%s %q is no number from 1 to %d", key, value, most)
			return 0
		}
		return int32(n)
	}
	h := s.health
	if n := number(port, 65535); n != 0 {
		h.Port = &n
	}
	if n := number(timeout, 60); n != 0 {
		wait := metav1.Duration{Duration: time.Duration(n) * time.Second}
		h.Timeout, h.Interval = &wait, &wait // the interval is no shorter
		if n < 5 {
			h.Interval = nil
		}
	}
	if n := number(retries, 100); n != 0 {
		h.Fall = &n
	}
	ask, expect := s.obj.Annotations[request], s.obj.Annotations[answer]
	switch h.Type {
	case v1alpha1.CheckHTTP:
		h.HTTP = &v1alpha1.HTTPCheck{Path: "/" + strings.TrimPrefix(ask, "/")}
		if len(h.HTTP.Path) > 1024 || !printable.MatchString(h.HTTP.Path) {
			s.note(s.at(request), migrate.Lost, "%s %q is no path: / is asked for", request, ask)
			h.HTTP.Path = "/"
		}
		if expect != "" {
			s.note(s.at(answer), migrate.Lost, "%s %q: Blixt looks at the status of the answer (200 to 399), not at its text", answer, expect)
		}
	case v1alpha1.CheckUDP:
		if ask == "" || len(ask) > 512 || len(expect) > 512 {
			s.note(s.at(request), migrate.Lost, "%s %q: a probe by UDP needs 1 to 512 bytes to send, and an answer of at most 512: nothing is probed", request, ask)
			s.health = nil
			return
		}
		h.UDP = &v1alpha1.UDPCheck{Payload: []byte(ask), Expect: []byte(expect)}
		if expect == "" {
			h.UDP.Expect = nil
		}
	case v1alpha1.CheckTCP:
		for _, key := range []string{request, answer} {
			if value := s.obj.Annotations[key]; value != "" {
				s.note(s.at(key), migrate.Lost, "%s %q: a probe by TCP connects, and sends nothing", key, value)
			}
		}
	}
	s.probesProtocols()
}

// printable is what a path of a probe is made of.
var printable = regexp.MustCompile(`^/[!-~]*$`)

// probesProtocols notes ports that the probe is not for.
func (s *service) probesProtocols() {
	if s.health.Port != nil {
		return
	}
	for _, p := range s.served() {
		if isUDP := p.String() == fmt.Sprintf("UDP/%d", p.number); isUDP != (s.health.Type == v1alpha1.CheckUDP) {
			s.note(s.At("spec", "ports", fmt.Sprint(p.index)), migrate.Changed, "port %d is %s, which a probe by %s says nothing about: it is not probed", p.number, p.protocol, s.health.Type)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/control/otlp"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

// RegisterMetrics registers all metrics of the operator, with the values of one that does
// nothing: for a reference of them.
func RegisterMetrics(r prometheus.Registerer) {
	r.MustRegister(writes, failures, refusals)
	newMeasures(r)
	newCertificateMetrics(r)
	r.MustRegister(&inventory{latest: &atomic.Pointer[translated]{}})
	fleet.NewServer(fleet.ServerOptions{Registerer: r})
	otlp.RegisterMetrics(r)
}

// measures are the metrics of the operator's loops.
type measures struct {
	*scrape.Passes
	verifications *prometheus.CounterVec
}

func newMeasures(r prometheus.Registerer) *measures {
	m := &measures{
		Passes: scrape.NewPasses(),
		verifications: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "blixt_image_verifications_total",
			Help: "Verifications of the signatures of bytecode images: verified, rejected (no key has signed the image), or failed (the registry could not be asked).",
		}, []string{"result"}),
	}
	for _, result := range []string{imageVerified, imageRejected, imageFailed} {
		m.verifications.WithLabelValues(result)
	}
	r.MustRegister(append(m.Collectors(), m.verifications, scrape.BuildInfo(bpf.Layout))...)
	return m
}

// Values of the label result of verifications.
const (
	imageVerified = "verified"
	imageRejected = "rejected"
	imageFailed   = "failed"
)

// verified counts a verification.
func (m *measures) verified(err error) {
	result := imageVerified
	if _, failed := errors.AsType[*bytecode.RegistryError](err); failed {
		result = imageFailed
	} else if err != nil {
		result = imageRejected
	}
	m.verifications.WithLabelValues(result).Inc()
}

// inventory collects what is, when it is scraped: in the leader alone, or sums over all
// replicas would count everything several times. It reads the cache.
type inventory struct {
	*api
	latest *atomic.Pointer[translated]
}

var (
	descPolicies = prometheus.NewDesc("blixt_policies", "BlixtPolicies by the reason of what is worst of their conditions Accepted and Programmed, on any Gateway.", []string{"reason"}, nil)
	descNodes    = prometheus.NewDesc("blixt_fleet_nodes", "Nodes by the reason of the condition Ready of their NodeDataplane.", []string{"reason"}, nil)
	descPool     = prometheus.NewDesc("blixt_pool_addresses", "Addresses in the pool of a BlixtConfig.", []string{"pool", "ip_family"}, nil)
	descPoolUse  = prometheus.NewDesc("blixt_pool_addresses_in_use", "Addresses in the pool of a BlixtConfig that Gateways hold.", []string{"pool", "ip_family"}, nil)
)

// Describe implements prometheus.Collector.
func (*inventory) Describe(all chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{scrape.DescProblems, descPolicies, descNodes, descPool, descPoolUse} {
		all <- d
	}
}

// Collect implements prometheus.Collector.
func (i *inventory) Collect(all chan<- prometheus.Metric) {
	t := i.latest.Load()
	if t == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		all <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, u := range t.Pools {
		family := "IPv4"
		if u.V6 {
			family = "IPv6"
		}
		gauge(descPool, u.Size, u.Config, family)
		gauge(descPoolUse, float64(u.InUse), u.Config, family)
	}
	ctx, cancel := context.WithTimeout(context.Background(), inventoryLimit)
	defer cancel()
	nodes, err := i.nodes(ctx, t)
	if err != nil {
		all <- prometheus.NewInvalidMetric(descNodes, err)
	}
	for reason, n := range nodes {
		gauge(descNodes, float64(n), reason)
	}
	policies, err := i.policies(ctx, t)
	if err != nil {
		all <- prometheus.NewInvalidMetric(descPolicies, err)
	}
	for reason, n := range policies {
		gauge(descPolicies, float64(n), reason)
	}
	problems, err := i.problems(ctx, t)
	if err != nil {
		all <- prometheus.NewInvalidMetric(scrape.DescProblems, err)
	}
	for p, n := range problems {
		gauge(scrape.DescProblems, float64(n), p.kind, p.reason)
	}
}

// inventoryLimit is how long reading the cache may take: it is in memory.
const inventoryLimit = 5 * time.Second

// nodes counts nodes by the reason of their condition Ready.
func (i *inventory) nodes(ctx context.Context, t *translated) (map[string]int, error) {
	var all v1alpha1.NodeDataplaneList
	if err := i.list(ctx, t.kinds, &all); err != nil {
		return nil, err
	}
	reasons := map[string]int{}
	for n := range all.Items {
		if c := meta.FindStatusCondition(all.Items[n].Status.Conditions, v1alpha1.NodeReady); c != nil {
			reasons[c.Reason]++
		}
	}
	return reasons, nil
}

// policies counts BlixtPolicies by gateway.PolicyReason.
func (i *inventory) policies(ctx context.Context, t *translated) (map[string]int, error) {
	var all v1alpha1.BlixtPolicyList
	if err := i.list(ctx, t.kinds, &all); err != nil {
		return nil, err
	}
	reasons := map[string]int{}
	for n := range all.Items {
		if reason := gateway.PolicyReason(&all.Items[n].Status); reason != "" {
			reasons[reason]++
		}
	}
	return reasons, nil
}

// kindReason is what problems are counted by.
type kindReason struct{ kind, reason string }

// problems counts the conditions that say that something is wrong.
func (i *inventory) problems(ctx context.Context, t *translated) (map[kindReason]int, error) {
	var (
		classes  gwv1.GatewayClassList
		gateways gwv1.GatewayList
		sets     gwv1.ListenerSetList
		tcp      gwv1.TCPRouteList
		udp      gwv1.UDPRouteList
		policies v1alpha1.BlixtPolicyList
	)
	for _, l := range []client.ObjectList{&classes, &gateways, &sets, &tcp, &udp, &policies} {
		if err := i.list(ctx, t.kinds, l); err != nil {
			return nil, err
		}
	}
	ours := map[objectKey]bool{}
	for _, c := range t.Classes {
		ours[objectKey{"GatewayClass", types.NamespacedName{Name: c.Name}}] = true
	}
	for _, g := range t.Gateways {
		ours[objectKey{"Gateway", g.NamespacedName}] = true
	}
	for _, s := range t.ListenerSets {
		ours[objectKey{"ListenerSet", s.NamespacedName}] = true
	}
	counts := map[kindReason]int{}
	count := func(kind string, conditions []metav1.Condition) {
		for _, c := range conditions {
			// Conditions of other controllers have a prefix of theirs.
			if isProblem(c) && (!strings.Contains(c.Type, "/") || strings.HasPrefix(c.Type, v1alpha1.GroupVersion.Group+"/")) {
				counts[kindReason{kind, c.Reason}]++
			}
		}
	}
	for n := range classes.Items {
		if o := &classes.Items[n]; ours[keyOf(o)] {
			count("GatewayClass", o.Status.Conditions)
		}
	}
	for n := range gateways.Items {
		o := &gateways.Items[n]
		if !ours[keyOf(o)] {
			continue
		}
		count("Gateway", o.Status.Conditions)
		for _, l := range o.Status.Listeners {
			count("Listener", l.Conditions)
		}
	}
	for n := range sets.Items {
		o := &sets.Items[n]
		if !ours[keyOf(o)] {
			continue
		}
		count("ListenerSet", o.Status.Conditions)
		for _, l := range o.Status.Listeners {
			count("Listener", l.Conditions)
		}
	}
	for n := range tcp.Items {
		count("TCPRoute", conditionsOf(&tcp.Items[n]))
	}
	for n := range udp.Items {
		count("UDPRoute", conditionsOf(&udp.Items[n]))
	}
	for n := range policies.Items {
		for _, a := range policies.Items[n].Status.Ancestors {
			if a.ControllerName == gateway.ControllerName {
				count("BlixtPolicy", a.Conditions)
			}
		}
	}
	return counts, nil
}

// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/ask"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/control/otlp"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/kube"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

// ManagerOptions of an operator's process.
type ManagerOptions struct {
	Release rollout.Release
	// Pod is the operator's own. Events of the installation are about it. Empty: none
	// are emitted.
	Pod string
	// FleetAddress is the address to listen on for agents, which connect to
	// Release.Operator.
	FleetAddress string
	// TLSSecret is the Secret with the certificates that the operator makes.
	TLSSecret string
	// TLSDir has the certificates of another issuer; "": the operator makes its own.
	TLSDir string
	// ObserveAddress is where commands ask what nodes see; "" or "0": nowhere.
	ObserveAddress string
	// Page serves a page for browsers until its context ends, in every replica; nil: there
	// is none. PageNames are those by which browsers reach it, which the certificate has.
	Page      func(context.Context, Inside) error
	PageNames []string
	// MetricsAddress and HealthAddress; "0": none.
	MetricsAddress, HealthAddress string
	// ReviewMetricsTokens has the API server review tokens of those who read metrics.
	ReviewMetricsTokens bool
	// LeaderElection is among replicas.
	LeaderElection bool
	// ConfigFile has the BlixtConfig that the leader applies; "": none.
	ConfigFile string
	// GatewayClass that the leader applies, with that BlixtConfig; "": none.
	GatewayClass string
	// ReservedPorts are those of Options.
	ReservedPorts []gateway.ReservedRange
	// OTLPEndpoint is where the leader sends flow records; "": nowhere.
	OTLPEndpoint string
	// Registerer gets the metrics; nil: the registry served at MetricsAddress.
	Registerer prometheus.Registerer
	Log        *slog.Logger
}

var byDigest = regexp.MustCompile(`^[^@\s]+@sha256:[0-9a-f]{64}$`)

// CheckImages returns an error if an image is missing, or if the bytecode image is
// not named by digest.
func CheckImages(r rollout.Release) error {
	if r.AgentImage == "" {
		return errors.New("no image of the agents: set --agent-image")
	}
	if !byDigest.MatchString(r.Bytecode) {
		return fmt.Errorf("--bytecode %s: name the image by digest, as repository@sha256:<64 hexadecimal digits>: nodes would go on with what a tag once was", r.Bytecode)
	}
	return nil
}

// Run runs the operator until the context ends. Returns an error if the operator
// cannot start, if it has lost its leadership, or if the cluster was restored from
// a backup.
func Run(ctx context.Context, config *rest.Config, o ManagerOptions) error {
	o.Release.Audience = fleet.Audience
	var blixtConfig *unstructured.Unstructured
	if o.ConfigFile != "" {
		var err error
		if blixtConfig, err = readConfig(o.ConfigFile); err != nil {
			return err
		}
	}
	if o.Registerer == nil {
		o.Registerer = metrics.Registry
	}
	klog.SetSlogLogger(o.Log)
	ctrl.SetLogger(logr.FromSlogHandler(o.Log.Handler()))
	config = rest.CopyConfig(config)
	config.QPS = -1                           // the API server limits requests itself; after a change of leader all agents connect at once
	config.WarningHandler = rest.NoWarnings{} // about the finalizer's name, which Gateway API has chosen
	certificates, err := newCertificates(config, &o)
	if err != nil {
		return err
	}
	token := newMetricsToken(certificates.kube, o.Release.Namespace, o.Log)
	var review scrape.Review // of agents
	if o.ReviewMetricsTokens {
		token.reviews = NewMetricsReviews(certificates.kube)
		review = token.reviews.Check
	}
	m, err := manager.New(config, manager.Options{
		Scheme: kube.Scheme, Cache: Cache(o.Release.Namespace),
		Metrics:                       metricsserver.Options{BindAddress: o.MetricsAddress, FilterProvider: token.filter},
		HealthProbeBindAddress:        o.HealthAddress,
		LeaderElection:                o.LeaderElection,
		LeaderElectionID:              v1alpha1.Operator,
		LeaderElectionNamespace:       o.Release.Namespace,
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return fmt.Errorf("connect to cluster: %w", err)
	}
	server := fleet.NewServer(fleet.ServerOptions{
		TLS: certificates.server(), Authenticate: authenticate(certificates.kube, &o), Registerer: o.Registerer, Log: o.Log,
		ReviewMetrics: review,
	})
	seeds := newSeedKeeper(certificates.kube, o.Release.Namespace, server.SetSeed, o.Log)
	lead := func() {
		// Agents get the seed before anything to serve. Without one, each continues
		// with that of its maps.
		seeds.keep(ctx)
		// An epoch must differ from all previous ones, including those from before the
		// cluster was restored from a backup.
		epoch := uint64(time.Now().UnixMilli())
		server.Lead(epoch)
		o.Log.Info("this replica leads", "epoch", epoch)
	}
	liveness := &Liveness{}
	err = Add(m, Options{
		Liveness: liveness,
		Release:  o.Release, Fleet: server, Leads: lead, Verify: Verify, ReservedPorts: o.ReservedPorts, Grace: grace, Log: o.Log, Registerer: o.Registerer,
	})
	if err != nil {
		return err
	}
	if err := m.Add(&restoreWatch{direct: m.GetAPIReader()}); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.FleetAddress)
	if err != nil {
		return fmt.Errorf("listen for agents: %w", err)
	}
	var observing net.Listener
	if o.ObserveAddress != "" && o.ObserveAddress != "0" {
		if observing, err = net.Listen("tcp", o.ObserveAddress); err != nil {
			return fmt.Errorf("listen for questions: %w", err)
		}
	}
	installed := newInstallation(blixtConfig, m, &o)
	if err := addChecks(m, installed, liveness, certificates.kube, &o); err != nil {
		return err
	}
	var flows *otlp.Exporter
	if o.OTLPEndpoint == "" {
		otlp.RegisterMetrics(o.Registerer)
	} else if flows, err = otlp.New(otlp.Options{Endpoint: o.OTLPEndpoint, Registerer: o.Registerer, Log: o.Log}); err != nil {
		return err
	}
	o.Log.Info("operator started", "namespace", o.Release.Namespace, "agents", listener.Addr(), "bytecode", o.Release.Bytecode)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Serve(ctx, listener) })
	if observing != nil {
		group.Go(func() error {
			return ask.Serve(ctx, observing, certificates.server(), certificates.kube, server, o.Log)
		})
	}
	if o.Page != nil {
		lead := &leader{kube: certificates.kube, namespace: o.Release.Namespace, elected: m.Elected()}
		group.Go(func() error {
			return o.Page(ctx, Inside{
				Objects: m.GetClient(), Direct: m.GetAPIReader(), Kube: certificates.kube, Fleet: server, TLS: certificates.server(), Elsewhere: lead.elsewhere,
			})
		})
		group.Go(func() error { keepPageEndpoints(ctx, m.Elected(), certificates.kube, &o); return nil })
	}
	group.Go(func() error { return certificates.run(ctx, m.Elected()) })
	group.Go(func() error { seeds.run(ctx, m.Elected()); return nil })
	group.Go(func() error {
		keepAnnounceKeys(ctx, m.Elected(), certificates.kube, o.Release.Namespace, server, o.Log)
		return nil
	})
	group.Go(func() error { token.run(ctx, m.Elected()); return nil })
	if flows != nil {
		group.Go(func() error { flows.Run(ctx, m.Elected(), server); return nil })
	}
	group.Go(func() error { return m.Start(ctx) })
	group.Go(func() error { installed.run(ctx, m.Elected()); return nil })
	if o.GatewayClass != "" {
		class := &installedClass{class: newClass(o.GatewayClass, blixtConfig), client: m.GetClient(), direct: m.GetAPIReader(), log: o.Log}
		group.Go(func() error { class.run(ctx, m.Elected()); return nil })
	}
	return group.Wait()
}

// grace is how long agents have to connect to a new leader.
const grace = 45 * time.Second

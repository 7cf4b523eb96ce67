// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/access"
	"github.com/kubernetes-sigs/blixt/operator/control/seed"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

// metricsToken is what readers of metrics must have, of the operator's and of the
// agents', which mount the Secret. Agents have no access to the API server: they
// could not have it review a token.
type metricsToken struct {
	keeper *seed.Keeper
	logger *slog.Logger
	// reviews are of other tokens; nil: there are none.
	reviews *scrape.Reviews
	log     *onceLog
	current atomic.Pointer[string]
}

func newMetricsToken(kube kubernetes.Interface, namespace string, log *slog.Logger) *metricsToken {
	return &metricsToken{keeper: seed.NewTokenKeeper(kube, namespace), logger: log, log: newOnceLog(log, time.Now)}
}

// reviewsPerSecond are those that the API server is asked for by all replicas' readers and
// all agents together, each of which remembers verdicts.
const reviewsPerSecond = 20

// NewMetricsReviews returns reviews by the API server: of who has a token, and whether
// they may get /metrics, as for metrics of Kubernetes itself.
func NewMetricsReviews(kube kubernetes.Interface) *scrape.Reviews {
	return scrape.NewReviews(func(ctx context.Context, token string) (scrape.Verdict, error) {
		who, err := access.User(ctx, kube, token, v1alpha1.MetricsAudience)
		if errors.Is(err, access.ErrUnknown) {
			return scrape.Verdict{Code: http.StatusUnauthorized, Why: err.Error()}, nil
		}
		if err != nil {
			return scrape.Verdict{}, errors.New("the API server does not answer")
		}
		may, err := access.May(ctx, kube, who, authorizationv1.SubjectAccessReviewSpec{
			NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: "/metrics", Verb: "get"},
		})
		if err != nil {
			return scrape.Verdict{}, errors.New("the API server does not answer")
		}
		if !may {
			return scrape.Verdict{Code: http.StatusForbidden, Why: who.Username + " may not get the URL /metrics: bind ClusterRole blixt-metrics-reader"}, nil
		}
		return scrape.Verdict{Code: http.StatusOK}, nil
	}, v1alpha1.MetricsAudience, reviewsPerSecond)
}

func (m *metricsToken) get() (string, error) {
	if token := m.current.Load(); token != nil {
		return *token, nil
	}
	return "", errors.New("the Secret was not read yet")
}

// filter is for the manager's server of metrics.
func (m *metricsToken) filter(*rest.Config, *http.Client) (metricsserver.Filter, error) {
	return func(logr.Logger, http.Handler) (http.Handler, error) {
		page := scrape.NewPage(m.logger)
		page.Add("operator", registry{metrics.Registry})
		return scrape.Require(m.get, m.reviews, scrape.Handler(page)), nil
	}, nil
}

// registry is the part of the page that all packages register their metrics for.
type registry struct{ prometheus.Gatherer }

// Describe implements scrape.Part.
func (r registry) Describe(all chan<- *prometheus.Desc) {
	if described, is := r.Gatherer.(prometheus.Collector); is {
		described.Describe(all)
	}
}

// run keeps the token current until the context ends. Only the leader makes it.
func (m *metricsToken) run(ctx context.Context, elected <-chan struct{}) {
	for leads := false; ; {
		m.keep(ctx, leads)
		select {
		case <-ctx.Done():
			return
		case <-elected:
			leads, elected = true, nil
		case <-time.After(seedEvery):
		}
	}
}

func (m *metricsToken) keep(ctx context.Context, leads bool) {
	attempt, cancel := context.WithTimeout(ctx, seedTimeout)
	defer cancel()
	token, err := m.keeper.Text(attempt, leads)
	if err == nil {
		m.current.Store(&token)
	}
	if leads && ctx.Err() == nil {
		m.log.result(m.keeper.Subject(), err)
	}
}

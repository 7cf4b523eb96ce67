// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

// A collector of the operator that fails is counted, and costs nothing else.
func TestMetricsOfTheOperatorThatFail(t *testing.T) {
	r := prometheus.NewRegistry()
	good := prometheus.NewGauge(prometheus.GaugeOpts{Name: "blixt_good", Help: "Good."})
	bad := prometheus.NewInvalidMetric(prometheus.NewDesc("blixt_bad", "Bad.", nil, nil), errors.New("no"))
	r.MustRegister(good, prometheus.CollectorFunc(func(all chan<- prometheus.Metric) { all <- bad }))
	page := scrape.NewPage(slog.New(slog.DiscardHandler))
	page.Add("operator", registry{r})
	w := httptest.NewRecorder()
	scrape.Handler(page).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if text := w.Body.String(); w.Code != http.StatusOK || !strings.Contains(text, "blixt_good 0\n") || !strings.Contains(text, `blixt_scrape_errors_total{part="operator"} 1`) {
		t.Errorf("%d\n%s", w.Code, text)
	}
}

// The leader makes the token, other replicas read it. Without it, nobody gets
// metrics, and what somebody wrote instead of it stays.
func TestMetricsToken(t *testing.T) {
	kube := fake.NewClientset()
	leader, follower := newMetricsToken(kube, "blixt-system", slog.New(slog.DiscardHandler)), newMetricsToken(kube, "blixt-system", slog.New(slog.DiscardHandler))
	get := func(m *metricsToken, token string) int {
		filter, err := m.filter(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		h, err := filter(logr.Discard(), nil)
		if err != nil {
			t.Fatal(err)
		}
		r, w := httptest.NewRequest(http.MethodGet, "/metrics", nil), httptest.NewRecorder()
		r.Header.Set("Authorization", "Bearer "+token)
		h.ServeHTTP(w, r)
		return w.Code
	}
	follower.keep(t.Context(), false)
	if code := get(follower, ""); code != http.StatusServiceUnavailable {
		t.Errorf("before there is a token: %d", code)
	}
	leader.keep(t.Context(), true)
	follower.keep(t.Context(), false)
	secrets := kube.CoreV1().Secrets("blixt-system")
	secret, err := secrets.Get(t.Context(), v1alpha1.MetricsSecret, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	token := string(secret.Data["token"])
	for _, m := range []*metricsToken{leader, follower} {
		if right, wrong := get(m, token), get(m, "x"+token); right != http.StatusOK || wrong != http.StatusUnauthorized || len(token) < 20 {
			t.Errorf("token of %d characters: %d, another: %d", len(token), right, wrong)
		}
	}
	secret.Data["token"] = []byte("short")
	if _, err := secrets.Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	leader.keep(t.Context(), true)
	if short, good := get(leader, "short"), get(leader, token); short != http.StatusUnauthorized || good != http.StatusOK {
		t.Errorf("a short token: %d, what was good last: %d", short, good)
	}
	secret.Data["token"] = []byte("one that the administrator has chosen\n")
	if _, err := secrets.Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	leader.keep(t.Context(), true)
	if code := get(leader, "one that the administrator has chosen"); code != http.StatusOK {
		t.Errorf("the administrator's: %d", code)
	}
}

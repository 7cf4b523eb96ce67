// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	ktesting "k8s.io/client-go/testing"

	"github.com/kubernetes-sigs/blixt/operator/control/certs"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

const host = "blixt-operator.blixt-system.svc"

// certificatesOf returns those of an operator whose cluster has this Secret.
func certificatesOf(t *testing.T, stored certs.Certificates) (*certificates, *fake.Clientset) {
	t.Helper()
	c, err := newCertificates(&rest.Config{}, &ManagerOptions{
		Release:   rollout.Release{Namespace: "blixt-system", Operator: host + ":8443", CAConfigMap: "blixt-ca"},
		TLSSecret: "blixt-tls", Registerer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	kube := fake.NewClientset(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "blixt-system", Name: "blixt-tls"},
		Data: map[string][]byte{
			keyCA: stored.CA, keyCAKey: stored.CAKey, keyNextCA: stored.NextCA, keyNextCAKey: stored.NextCAKey, keyOldCA: stored.OldCA,
			corev1.TLSCertKey: stored.Certificate, corev1.TLSPrivateKeyKey: stored.Key,
		},
	})
	c.kube = kube
	return c, kube
}

func madeAt(t *testing.T, now time.Time) certs.Certificates {
	t.Helper()
	c, _, err := certs.Certificates{}.Renew(now, host)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A leader replaces a certificate that was made while a clock was years ahead, and
// its metrics say until when the certificate is valid.
func TestLeaderReplacesACertificateOfTheFuture(t *testing.T) {
	now := time.Now()
	c, kube := certificatesOf(t, madeAt(t, now.AddDate(14, 0, 0)))
	if err := c.load(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if from := testutil.ToFloat64(c.metrics.notBefore); from < float64(now.AddDate(13, 0, 0).Unix()) {
		t.Errorf("a follower's certificate is valid from %v", from)
	}
	if err := c.load(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if from, until := testutil.ToFloat64(c.metrics.notBefore), testutil.ToFloat64(c.metrics.notAfter); from > float64(now.Unix()) || until < float64(now.Unix()) || until > float64(now.AddDate(1, 0, 0).Unix()) {
		t.Errorf("valid from %v until %v", from, until)
	}
	kube.ClearActions()
	if err := c.load(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	for _, a := range kube.Actions() {
		if a.GetVerb() != "get" {
			t.Errorf("then it does %s %s", a.GetVerb(), a.GetResource().Resource)
		}
	}
}

// A certificate that is good is shown even while what is to follow it cannot be
// written.
func TestCertificateServesWhileNothingCanBeWritten(t *testing.T) {
	c, kube := certificatesOf(t, madeAt(t, time.Now().AddDate(0, 0, -25))) // due
	kube.PrependReactor("patch", "*", func(ktesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.NewForbidden(corev1.Resource("configmaps"), "blixt-ca", nil)
	})
	if err := c.load(t.Context(), true); err == nil {
		t.Error("no error")
	}
	if c.current.Load() == nil {
		t.Error("no certificate is shown")
	}
}

// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/certs"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

// How often certificates are read: until there is one, and from then on.
const (
	firstEvery = time.Second
	renewEvery = time.Minute
)

// certificates authenticate the operator to agents. Every replica has the same:
// they are in a Secret, or another issuer provides them in files.
type certificates struct {
	kube      kubernetes.Interface
	namespace string
	secret    string // "": files of dir
	configMap string
	dir       string
	names     []string
	log       *slog.Logger
	current   atomic.Pointer[tls.Certificate]

	metrics certificateMetrics
}

// certificateMetrics say how long certificates are valid.
type certificateMetrics struct {
	notBefore, notAfter prometheus.Gauge // of the server's
	expire              *prometheus.GaugeVec
}

func newCertificateMetrics(r prometheus.Registerer) certificateMetrics {
	m := certificateMetrics{
		notBefore: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "blixt_operator_certificate_not_before_timestamp_seconds",
			Help: "When the certificate that agents are shown becomes valid, in seconds since 1970.",
		}),
		notAfter: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "blixt_operator_certificate_expiration_timestamp_seconds",
			Help: "When the certificate that agents are shown expires, in seconds since 1970.",
		}),
		expire: scrape.NewCertificates(),
	}
	r.MustRegister(m.notBefore, m.notAfter, m.expire)
	return m
}

// The keys of the Secret.
const (
	keyCA        = "ca.crt"
	keyCAKey     = "ca.key"
	keyNextCA    = "next-ca.crt"
	keyNextCAKey = "next-ca.key"
	keyOldCA     = "old-ca.crt"
)

func newCertificates(config *rest.Config, o *ManagerOptions) (*certificates, error) {
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(o.Release.Operator)
	if err != nil {
		return nil, fmt.Errorf("address for agents: %w", err)
	}
	c := &certificates{
		kube: kube, namespace: o.Release.Namespace, secret: o.TLSSecret, configMap: o.Release.CAConfigMap, dir: o.TLSDir, log: o.Log,
		names: append([]string{host}, o.PageNames...), metrics: newCertificateMetrics(o.Registerer),
	}
	return c, nil
}

// use has the server show a certificate to agents that connect from now on.
func (c *certificates) use(pair *tls.Certificate) {
	c.current.Store(pair)
	c.metrics.notBefore.Set(float64(pair.Leaf.NotBefore.Unix()))
	c.metrics.notAfter.Set(float64(pair.Leaf.NotAfter.Unix()))
	c.metrics.expire.WithLabelValues("server").Set(float64(pair.Leaf.NotAfter.Unix()))
}

// server returns the TLS configuration of the server of the agents.
func (c *certificates) server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if pair := c.current.Load(); pair != nil {
				return pair, nil
			}
			return nil, errors.New("there is no certificate yet")
		},
	}
}

// run keeps the certificate current until the context ends. Only the leader makes
// and renews it. If two replicas did, agents could trust the CA of one, and connect
// to the other.
func (c *certificates) run(ctx context.Context, elected <-chan struct{}) error {
	leads := false
	for {
		err := c.load(ctx, leads)
		pause := renewEvery
		if c.current.Load() == nil {
			pause = firstEvery
		}
		if err != nil && ctx.Err() == nil && !(apierrors.IsNotFound(err) && !leads) {
			c.log.Error("certificates", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-elected:
			leads, elected = true, nil
		case <-time.After(pause):
		}
	}
}

// load reads the certificate. The leader also renews it, and writes the CAs where
// agents read them.
func (c *certificates) load(ctx context.Context, leads bool) error {
	if c.dir != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(c.dir, corev1.TLSCertKey), filepath.Join(c.dir, corev1.TLSPrivateKeyKey))
		if err != nil {
			return fmt.Errorf("load certificate: %w", err)
		}
		c.use(&pair)
		if !leads {
			return nil
		}
		bundle, err := os.ReadFile(filepath.Join(c.dir, keyCA))
		if err != nil {
			return fmt.Errorf("load certificate: %w", err)
		}
		return c.publishCAs(ctx, bundle)
	}
	stored, err := c.kube.CoreV1().Secrets(c.namespace).Get(ctx, c.secret, metav1.GetOptions{})
	if err != nil && !(leads && apierrors.IsNotFound(err)) {
		return fmt.Errorf("get Secret %s/%s: %w", c.namespace, c.secret, err)
	}
	now := certs.Certificates{
		CA: stored.Data[keyCA], CAKey: stored.Data[keyCAKey], NextCA: stored.Data[keyNextCA], NextCAKey: stored.Data[keyNextCAKey],
		OldCA: stored.Data[keyOldCA], Certificate: stored.Data[corev1.TLSCertKey], Key: stored.Data[corev1.TLSPrivateKeyKey],
	}
	var failed error
	if leads {
		// What could not be renewed, or not written, serves as it is stored.
		now, failed = c.renew(ctx, now)
	}
	pair, err := now.Pair()
	if err != nil {
		return errors.Join(failed, fmt.Errorf("certificate of Secret %s/%s: %w", c.namespace, c.secret, err))
	}
	c.use(&pair)
	return failed
}

// renew writes what has to be renewed, and returns what is stored then. The CAs are written first: agents must trust
// a CA before it signs a certificate.
func (c *certificates) renew(ctx context.Context, stored certs.Certificates) (certs.Certificates, error) {
	now, changed, err := stored.Renew(time.Now(), c.names...)
	if err != nil {
		return stored, fmt.Errorf("renew Secret %s/%s: %w; delete it, and the operator makes it again", c.namespace, c.secret, err)
	}
	if err := c.publishCAs(ctx, now.Bundle()); err != nil || !changed {
		return stored, err
	}
	// Applied, not created: a role can then name the only Secret that may be written.
	secret := applycorev1.Secret(c.secret, c.namespace).WithType(corev1.SecretTypeTLS).
		WithLabels(map[string]string{v1alpha1.ManagedByLabel: v1alpha1.Manager}).
		WithData(map[string][]byte{
			keyCA: now.CA, keyCAKey: now.CAKey, keyNextCA: now.NextCA, keyNextCAKey: now.NextCAKey,
			keyOldCA: now.OldCA, corev1.TLSCertKey: now.Certificate, corev1.TLSPrivateKeyKey: now.Key,
		})
	if _, err := c.kube.CoreV1().Secrets(c.namespace).Apply(ctx, secret, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
		return stored, fmt.Errorf("write Secret %s/%s: %w", c.namespace, c.secret, err)
	}
	c.log.Info("renewed certificates", "secret", c.secret)
	return now, nil
}

// publishCAs writes the CAs where agents read them.
func (c *certificates) publishCAs(ctx context.Context, bundle []byte) error {
	if last, ok := scrape.LastExpiry(bundle); ok {
		c.metrics.expire.WithLabelValues(scrape.CA).Set(float64(last.Unix()))
	}
	maps := c.kube.CoreV1().ConfigMaps(c.namespace)
	if stored, err := maps.Get(ctx, c.configMap, metav1.GetOptions{}); err == nil && stored.Data[keyCA] == string(bundle) {
		return nil
	}
	wanted := applycorev1.ConfigMap(c.configMap, c.namespace).WithLabels(map[string]string{v1alpha1.ManagedByLabel: v1alpha1.Manager}).
		WithData(map[string]string{keyCA: string(bundle)})
	if _, err := maps.Apply(ctx, wanted, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
		return fmt.Errorf("write ConfigMap %s/%s: %w", c.namespace, c.configMap, err)
	}
	return nil
}

// authenticate returns a function that has the API server review a token.
func authenticate(kube kubernetes.Interface, o *ManagerOptions) func(context.Context, string) (fleet.Identity, error) {
	account := types.NamespacedName{Namespace: o.Release.Namespace, Name: o.Release.ServiceAccount}
	return fleet.TokenReviewer(kube.AuthenticationV1().TokenReviews(), o.Release.Audience, account)
}

// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// CA is the value of the label certificate for CAs.
const CA = "ca"

// NewCertificates returns a metric for when certificates expire.
func NewCertificates() *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "blixt_certificate_expiration_timestamp_seconds",
		Help: "When a certificate expires, in seconds since 1970. server: that of the operator's server for agents. ca: of the CAs the one that expires last; the operator's are those that agents are to trust, an agent's those that it has.",
	}, []string{"certificate"})
}

// LastExpiry returns when the last certificate of a bundle in PEM expires.
func LastExpiry(bundle []byte) (last time.Time, ok bool) {
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			return last, ok
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && c.NotAfter.After(last) {
			last, ok = c.NotAfter, true
		}
	}
}

// CAFile returns a collector of when the CAs of a file expire, as it is at each scrape.
func CAFile(path string) prometheus.Collector { return &caFile{NewCertificates(), path} }

type caFile struct {
	*prometheus.GaugeVec
	path string
}

// Collect implements prometheus.Collector.
func (f *caFile) Collect(all chan<- prometheus.Metric) {
	bundle, err := os.ReadFile(f.path)
	last, ok := LastExpiry(bundle)
	if err == nil && !ok {
		err = fmt.Errorf("there is no certificate in %s", f.path)
	}
	if err != nil {
		all <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
		return
	}
	g := f.WithLabelValues(CA)
	g.Set(float64(last.Unix()))
	g.Collect(all)
}

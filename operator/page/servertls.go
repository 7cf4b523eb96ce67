// SPDX-License-Identifier: Apache-2.0

package page

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// CertificateFiles returns a configuration with the certificate and the key of two files in
// PEM, and takes what they are replaced by. It returns an error if there is no certificate
// now. Later the last one that was good stays, and the log says why.
func CertificateFiles(cert, key string, log *slog.Logger) (*tls.Config, error) {
	f := &certFiles{paths: [2]string{cert, key}, log: log}
	if err := f.read(); err != nil {
		return nil, err
	}
	return &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.get(), nil }}, nil
}

// certFiles are a certificate and its key.
type certFiles struct {
	paths [2]string
	log   *slog.Logger

	mu   sync.Mutex
	pair *tls.Certificate
	seen [2]stamp // what pair was read from, or what could not be read
}

// stamp tells a file from what it is replaced by.
type stamp struct {
	time time.Time
	size int64
}

// get returns the certificate as the files have it now.
func (f *certFiles) get() *tls.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stamps() != f.seen {
		if err := f.read(); err != nil { // the key may follow soon
			f.log.Error("the page keeps its certificate, as the new one cannot be used", "error", err)
		} else {
			f.log.Info("the page has a new certificate", "file", f.paths[0])
		}
	}
	return f.pair
}

func (f *certFiles) stamps() (all [2]stamp) {
	for i, path := range f.paths {
		if info, err := os.Stat(path); err == nil {
			all[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return all
}

func (f *certFiles) read() error {
	f.seen = f.stamps() // before: a file that changes meanwhile is read again
	pair, err := tls.LoadX509KeyPair(f.paths[0], f.paths[1])
	if err != nil {
		return fmt.Errorf("read the certificate of the page: %w", err)
	}
	f.pair = &pair
	return nil
}

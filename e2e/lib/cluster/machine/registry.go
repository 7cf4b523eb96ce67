// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log"
	"net/http"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// serveRegistry serves a registry by HTTPS. It keeps manifests in memory, and layers in
// a folder.
func serveRegistry(listen, cert, key, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	handler := registry.New(registry.WithReferrersSupport(true), registry.WithBlobHandler(registry.NewDiskBlobHandler(dir)),
		registry.Logger(log.New(os.Stdout, "", log.Ltime)))
	server := &http.Server{Addr: listen, Handler: handler, ReadHeaderTimeout: time.Minute}
	return server.ListenAndServeTLS(cert, key)
}

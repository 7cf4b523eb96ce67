// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// configPause is how long to wait before the API server is asked again to take
// a BlixtConfig: its kind may be missing yet.
const configPause = 5 * time.Second

// readConfig reads the BlixtConfig that an installation comes with. It must be
// one, so that a typo ends the installation and not what is served.
func readConfig(path string) (*v1alpha1.BlixtConfig, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	config := &v1alpha1.BlixtConfig{}
	if err := yaml.UnmarshalStrict(text, config); err != nil {
		return nil, fmt.Errorf("read config %s: %w", path, err)
	}
	if config.Kind != "BlixtConfig" || config.APIVersion != v1alpha1.GroupVersion.String() || config.Name == "" {
		return nil, fmt.Errorf("read config %s: want a %s BlixtConfig with a name", path, v1alpha1.GroupVersion)
	}
	return config, nil
}

// applyConfig applies it, as whoever installs cannot: a package manager installs
// no object of a kind that it has only just defined.
func applyConfig(ctx context.Context, c client.Client, config *v1alpha1.BlixtConfig, log *slog.Logger) {
	u, err := applied(config)
	if err != nil {
		log.Error("convert BlixtConfig", "name", config.Name, "error", err)
		return
	}
	last := ""
	for {
		err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(fieldManager), client.ForceOwnership)
		if err == nil {
			log.Info("applied", "object", "BlixtConfig "+config.Name)
			return
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			return
		}
		if text := err.Error(); text != last {
			last = text
			log.Error("apply BlixtConfig", "name", config.Name, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(configPause):
		}
	}
}

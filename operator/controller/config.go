// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// configPause is how long to wait before the API server is asked again to take
// a BlixtConfig: its kind may be missing yet.
const configPause = 5 * time.Second

// readConfig reads the BlixtConfig that an installation comes with, as it is
// written: what is set to nothing is not what is left out. It must be one, so
// that a typo ends the installation and not what is served.
func readConfig(path string) (*unstructured.Unstructured, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	var config v1alpha1.BlixtConfig
	if err := yaml.UnmarshalStrict(text, &config); err != nil {
		return nil, fmt.Errorf("read config %s: %w", path, err)
	}
	if config.Kind != "BlixtConfig" || config.APIVersion != v1alpha1.GroupVersion.String() || config.Name == "" {
		return nil, fmt.Errorf("read config %s: want a %s BlixtConfig with a name", path, v1alpha1.GroupVersion)
	}
	written := &unstructured.Unstructured{}
	return written, yaml.Unmarshal(text, &written.Object)
}

// applyConfig applies it, as whoever installs cannot: a package manager installs
// no object of a kind that it has only just defined.
func applyConfig(ctx context.Context, c client.Client, config *unstructured.Unstructured, log *slog.Logger) {
	last := ""
	for {
		err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(config.DeepCopy()), client.FieldOwner(fieldManager), client.ForceOwnership)
		if err == nil {
			log.Info("applied", "object", "BlixtConfig "+config.GetName())
			return
		}
		if text := err.Error(); text != last && ctx.Err() == nil {
			last = text
			log.Error("apply BlixtConfig", "name", config.GetName(), "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(configPause):
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// configPause is how long to wait before a BlixtConfig that the API server has
// rejected is applied again: its kind may not be installed yet.
const configPause = 5 * time.Second

// readConfig reads the BlixtConfig of an installation. The fields are kept as they
// are written, because an empty list differs from a list that is left out. Returns
// an error for anything but a BlixtConfig with known fields, so that a typo stops
// the installation and not what is served.
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
	err = yaml.Unmarshal(text, &written.Object)
	dropNulls(written.Object)
	return written, err
}

// dropNulls removes the fields that are null. With Helm, null removes a default
// value.
func dropNulls(fields map[string]any) {
	for key, value := range fields {
		switch value := value.(type) {
		case nil:
			delete(fields, key)
		case map[string]any:
			dropNulls(value)
		}
	}
}

// installation applies the BlixtConfig of the installation, if there is one. Helm
// cannot: it installs no object of a kind that it has only just defined.
type installation struct {
	config *unstructured.Unstructured
	client client.Client
	log    *slog.Logger
	// rejected emits an event with the reason why the API server does not accept it.
	rejected func(ctx context.Context, reason string)

	result atomic.Pointer[error] // the API server's last answer
}

func newInstallation(config *unstructured.Unstructured, m manager.Manager, o *ManagerOptions) *installation {
	return &installation{config: config, client: m.GetClient(), log: o.Log, rejected: func(ctx context.Context, reason string) {
		pod := &corev1.Pod{}
		if err := m.GetAPIReader().Get(ctx, types.NamespacedName{Namespace: o.Release.Namespace, Name: o.Pod}, pod); err == nil {
			m.GetEventRecorder("blixt").Eventf(pod, nil, corev1.EventTypeWarning, "ConfigRefused", "Apply", "%s", phrase.Clip(reason, maxEvent))
		}
	}}
}

// run has the API server check the BlixtConfig, in every replica. The leader then
// applies it.
func (i *installation) run(ctx context.Context, elected <-chan struct{}) {
	if i.config != nil && i.try(ctx, client.DryRunAll) {
		select {
		case <-elected:
			i.try(ctx)
		case <-ctx.Done():
		}
	}
}

// try applies the BlixtConfig until the API server accepts it. Returns false if the
// context ends first.
func (i *installation) try(ctx context.Context, o ...client.ApplyOption) bool {
	last := ""
	for {
		err := i.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(i.config.DeepCopy()), append(o, client.FieldOwner(fieldManager), client.ForceOwnership)...)
		i.result.Store(&err)
		if err == nil {
			i.log.Info("the API server accepts it", "object", "BlixtConfig "+i.config.GetName(), "applied", len(o) == 0)
			return true
		}
		if text := err.Error(); text != last && ctx.Err() == nil {
			last = text
			i.log.Error("the API server does not accept it", "object", "BlixtConfig "+i.config.GetName(), "error", err)
			i.rejected(ctx, text)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(configPause):
		}
	}
}

// ready returns an error until the API server has accepted the BlixtConfig. While a
// new replica is not ready, its Deployment keeps the previous replicas.
func (i *installation) ready() error {
	if i.config == nil {
		return nil
	}
	if err := i.result.Load(); err != nil {
		return *err
	}
	return errors.New("the API server has not been asked yet")
}

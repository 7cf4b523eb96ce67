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
)

// configPause is how long to wait before the API server is asked again to take
// a BlixtConfig: its kind may be missing yet.
const configPause = 5 * time.Second

// readConfig reads the BlixtConfig that an installation comes with, as it is
// written: an empty list is not what is left out. It must be one, so
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
	err = yaml.Unmarshal(text, &written.Object)
	dropNulls(written.Object)
	return written, err
}

// dropNulls leaves out what is null, which is how Helm takes away a value of
// before.
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

// installation is the BlixtConfig that an installation comes with, or none.
// Whoever installs cannot apply it: a package manager installs no object of a kind
// that it has only just defined. The leader does.
type installation struct {
	config *unstructured.Unstructured
	client client.Client
	log    *slog.Logger
	// refused tells people why the API server does not take it.
	refused func(ctx context.Context, why string)

	result atomic.Pointer[error] // what the API server has said last
}

func newInstallation(config *unstructured.Unstructured, m manager.Manager, o *ManagerOptions) *installation {
	return &installation{config: config, client: m.GetClient(), log: o.Log, refused: func(ctx context.Context, why string) {
		pod := &corev1.Pod{}
		if err := m.GetAPIReader().Get(ctx, types.NamespacedName{Namespace: o.Release.Namespace, Name: o.Pod}, pod); err == nil {
			m.GetEventRecorder("blixt").Eventf(pod, nil, corev1.EventTypeWarning, "ConfigRefused", "Apply", "%s", cut(why))
		}
	}}
}

// run has the API server check it, in every replica, and apply it, if this one
// leads.
func (i *installation) run(ctx context.Context, elected <-chan struct{}) {
	if i.config != nil && i.try(ctx, client.DryRunAll) {
		select {
		case <-elected:
			i.try(ctx)
		case <-ctx.Done():
		}
	}
}

// try applies it until the API server takes it, and returns true, or the context
// ends.
func (i *installation) try(ctx context.Context, o ...client.ApplyOption) bool {
	last := ""
	for {
		err := i.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(i.config.DeepCopy()), append(o, client.FieldOwner(fieldManager), client.ForceOwnership)...)
		i.result.Store(&err)
		if err == nil {
			i.log.Info("the API server takes it", "object", "BlixtConfig "+i.config.GetName(), "applied", len(o) == 0)
			return true
		}
		if text := err.Error(); text != last && ctx.Err() == nil {
			last = text
			i.log.Error("the API server does not take it", "object", "BlixtConfig "+i.config.GetName(), "error", err)
			i.refused(ctx, text)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(configPause):
		}
	}
}

// ready returns why the API server does not have, or would not take, what the
// installation comes with, or nil. A replica that is not ready ends the rollout:
// those of before go on.
func (i *installation) ready() error {
	if i.config == nil {
		return nil
	}
	if err := i.result.Load(); err != nil {
		return *err
	}
	return errors.New("the API server has not been asked yet")
}

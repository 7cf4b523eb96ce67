// SPDX-License-Identifier: Apache-2.0

// Package seed keeps random texts in Secrets, each of which is made once: the seed of
// all nodes, and the token by which metrics may be read. Nodes with the same seed
// choose the same backend for a client, and nobody who does not know it can choose a
// port for a backend.
package seed

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// The only keys of the Secrets. A seed has the format of blixt run's seed file.
const (
	Key      = "seed"
	TokenKey = "token"
)

// minToken is the least number of characters of a token.
const minToken = 16

// Keeper keeps a Secret.
type Keeper struct {
	kube                 kubernetes.Interface
	namespace, name, key string
	owner                string // no other process has the same
	kept                 string // what stays as it is while the Secret is malformed
	check                func(text string) error

	mu   sync.Mutex
	text []byte // what was good last; nil: nothing yet
}

// NewKeeper returns a keeper of the seed in a namespace.
func NewKeeper(kube kubernetes.Interface, namespace string) *Keeper {
	return &Keeper{
		kube: kube, namespace: namespace, name: v1alpha1.SeedSecret, key: Key, owner: v1alpha1.Manager + "-" + rand.Text(),
		kept:  "nodes keep the seed that they have",
		check: func(text string) error { _, err := lb.ParseSeed(text); return err },
	}
}

// NewTokenKeeper returns a keeper of the token for metrics in a namespace.
func NewTokenKeeper(kube kubernetes.Interface, namespace string) *Keeper {
	return &Keeper{
		kube: kube, namespace: namespace, name: v1alpha1.MetricsSecret, key: TokenKey, owner: v1alpha1.Manager + "-" + rand.Text(),
		kept: "nobody can read the metrics of agents",
		check: func(text string) error {
			if len(strings.TrimSpace(text)) < minToken {
				return fmt.Errorf("want at least %d characters", minToken)
			}
			return nil
		},
	}
}

// Subject is the Secret's name, for messages.
func (k *Keeper) Subject() string { return "Secret " + k.namespace + "/" + k.name }

// Keep returns the seed of the Secret, as Text does.
func (k *Keeper) Keep(ctx context.Context) (uint64, error) {
	text, err := k.Text(ctx, true)
	if err != nil {
		return 0, err
	}
	return lb.ParseSeed(text)
}

// Text returns the text of the Secret. If there is no Secret, and it is to be made,
// Text makes it with the last good text or, if there is none, with a random one.
// Errors never name the contents.
func (k *Keeper) Text(ctx context.Context, create bool) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	secret, err := k.get(ctx)
	if create && apierrors.IsNotFound(err) {
		if secret, err = k.make(ctx); apierrors.IsConflict(err) {
			secret, err = k.get(ctx) // another replica was first
		}
	}
	if err != nil {
		return "", fmt.Errorf("keep %s in %s: %w", k.key, k.Subject(), err)
	}
	text := string(secret.Data[k.key])
	if err := k.check(text); err != nil {
		return "", fmt.Errorf("data.%s of %s is malformed, %s: %w. Correct it, or delete the Secret: the operator makes it again", k.key, k.Subject(), k.kept, err)
	}
	k.text = secret.Data[k.key]
	return text, nil
}

func (k *Keeper) get(ctx context.Context) (*corev1.Secret, error) {
	return k.kube.CoreV1().Secrets(k.namespace).Get(ctx, k.name, metav1.GetOptions{})
}

// make makes the Secret. It is applied, not created: a role can then name the only
// Secret that may be written. Without force, by an owner of its own, an apply is
// a conflict when another replica has made a Secret with another seed.
func (k *Keeper) make(ctx context.Context) (*corev1.Secret, error) {
	text := k.text
	if text == nil {
		random := make([]byte, 16)
		rand.Read(random) // never fails
		text = []byte(base64.StdEncoding.EncodeToString(random))
	}
	secret := applycorev1.Secret(k.name, k.namespace).WithType(corev1.SecretTypeOpaque).
		WithLabels(map[string]string{v1alpha1.ManagedByLabel: v1alpha1.Manager}).
		WithData(map[string][]byte{k.key: text})
	return k.kube.CoreV1().Secrets(k.namespace).Apply(ctx, secret, metav1.ApplyOptions{FieldManager: k.owner})
}

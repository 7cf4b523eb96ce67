// SPDX-License-Identifier: Apache-2.0

// Package seed keeps the seed of all nodes in a Secret, which is made once. Nodes
// with the same seed choose the same backend for a client, and nobody who does not
// know it can choose a port for a backend.
package seed

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Key is the Secret's only one. Its value has the format of blixt run's seed file.
const Key = "seed"

// Keeper keeps the Secret.
type Keeper struct {
	kube      kubernetes.Interface
	namespace string
	owner     string // no other process has the same
	mu        sync.Mutex
	text      []byte // what was good last; nil: nothing yet
}

// NewKeeper returns a keeper of the Secret in a namespace.
func NewKeeper(kube kubernetes.Interface, namespace string) *Keeper {
	return &Keeper{kube: kube, namespace: namespace, owner: v1alpha1.Manager + "-" + rand.Text()}
}

// Subject is the Secret's name, for messages.
func (k *Keeper) Subject() string { return "Secret " + k.namespace + "/" + v1alpha1.SeedSecret }

// Keep returns the seed of the Secret. If there is no Secret, Keep makes it with
// the last good seed or, if there is none, with a random one. Errors never name
// the contents.
func (k *Keeper) Keep(ctx context.Context) (uint64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	secret, err := k.get(ctx)
	if apierrors.IsNotFound(err) {
		if secret, err = k.make(ctx); apierrors.IsConflict(err) {
			secret, err = k.get(ctx) // another replica was first
		}
	}
	if err != nil {
		return 0, fmt.Errorf("keep seed in %s: %w", k.Subject(), err)
	}
	value, err := lb.ParseSeed(string(secret.Data[Key]))
	if err != nil {
		return 0, fmt.Errorf("data.%s of %s is malformed, nodes keep the seed that they have: %w. Correct it, or delete the Secret: the operator makes it again", Key, k.Subject(), err)
	}
	k.text = secret.Data[Key]
	return value, nil
}

func (k *Keeper) get(ctx context.Context) (*corev1.Secret, error) {
	return k.kube.CoreV1().Secrets(k.namespace).Get(ctx, v1alpha1.SeedSecret, metav1.GetOptions{})
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
	secret := applycorev1.Secret(v1alpha1.SeedSecret, k.namespace).WithType(corev1.SecretTypeOpaque).
		WithLabels(map[string]string{v1alpha1.ManagedByLabel: v1alpha1.Manager}).
		WithData(map[string][]byte{Key: text})
	return k.kube.CoreV1().Secrets(k.namespace).Apply(ctx, secret, metav1.ApplyOptions{FieldManager: k.owner})
}

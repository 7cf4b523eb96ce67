// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// SecretKey is the only key of the Secret.
const SecretKey = "keys"

// readEvery is how often the Secret is read.
const readEvery = 10 * time.Second

// Agents are the agents that have the keys: fleet.Server.
type Agents interface {
	// KeyNodes returns what is known of their maps, and false while a new leader has
	// not heard of all that it waits for.
	KeyNodes() ([]Node, bool)
	// SetRing gives them the keys.
	SetRing(Ring)
}

// Keeper keeps the Secret, and gives agents what it has. Only the leader has one that
// runs.
type Keeper struct {
	kube      kubernetes.Interface
	namespace string
	agents    Agents
	clock     func() time.Time

	rotation Rotation
	ring     *Ring // what agents have; nil: they go on with what they have
	version  string
	asked    string
	force    bool // somebody has altered or deleted the Secret: there has to be another key
	read     time.Time
}

// NewKeeper returns a keeper of the Secret in a namespace.
func NewKeeper(kube kubernetes.Interface, namespace string, agents Agents, clock func() time.Time) *Keeper {
	return &Keeper{kube: kube, namespace: namespace, agents: agents, clock: clock}
}

// Subject is the Secret's name, for messages.
func (k *Keeper) Subject() string { return "Secret " + k.namespace + "/" + v1alpha1.AnnounceSecret }

// Keep does what is due. On error agents go on with the keys that they have. Errors
// never name the contents.
func (k *Keeper) Keep(ctx context.Context) error {
	nodes, heard := k.agents.KeyNodes()
	if !heard {
		return nil
	}
	now := k.clock()
	ring, outdated := k.ring, false
	if ring == nil || k.read.IsZero() || now.Sub(k.read) >= readEvery || now.Before(k.read) {
		k.read = time.Time{}
		stored, err := k.get(ctx)
		if err != nil {
			return err
		}
		k.read = now
		if ring == nil {
			ring = new(Adopt(stored, nodes))
		} else if stored == nil || !stored.Equal(ring) {
			k.force = true
		}
		outdated = stored == nil || !stored.Equal(ring)
	}
	next, changed := k.rotation.Step(now, *ring, nodes, k.asked, k.force)
	if changed || outdated {
		if err := k.write(ctx, &next); err != nil {
			k.read = time.Time{}
			return err
		}
		k.force = k.force && len(next.Keys) <= len(ring.Keys) // there is no room for another key yet
	}
	k.ring = &next
	k.agents.SetRing(next)
	return nil
}

// get reads the Secret; nil: there is none.
func (k *Keeper) get(ctx context.Context) (*Ring, error) {
	k.version, k.asked = "", ""
	secret, err := k.kube.CoreV1().Secrets(k.namespace).Get(ctx, v1alpha1.AnnounceSecret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", k.Subject(), err)
	}
	ring, err := parse(secret.Data[SecretKey])
	if err != nil {
		return nil, fmt.Errorf("data.%s of %s is malformed, nodes go on with the keys that they have: %w. Delete the Secret: the operator makes it again", SecretKey, k.Subject(), err)
	}
	k.version, k.asked = secret.ResourceVersion, secret.Annotations[v1alpha1.RotateAnnotation]
	return ring, nil
}

// write stores a ring, unless somebody has written the Secret since it was read. It is
// applied, not created: a role can then name the only Secret that may be written.
func (k *Keeper) write(ctx context.Context, r *Ring) error {
	secret := applycorev1.Secret(v1alpha1.AnnounceSecret, k.namespace).WithType(corev1.SecretTypeOpaque).
		WithLabels(map[string]string{v1alpha1.ManagedByLabel: v1alpha1.Manager}).
		WithData(map[string][]byte{SecretKey: r.format()})
	if k.version != "" {
		secret = secret.WithResourceVersion(k.version)
	}
	written, err := k.kube.CoreV1().Secrets(k.namespace).Apply(ctx, secret, metav1.ApplyOptions{FieldManager: v1alpha1.Manager, Force: true})
	if err != nil {
		return fmt.Errorf("write %s: %w", k.Subject(), err)
	}
	k.version = written.ResourceVersion
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package keyring

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

const namespace = "blixt-system"

// cluster is an API server, and a world whose agents a keeper feeds.
type cluster struct {
	*world
	*fake.Clientset
	heard bool
	given int // how often agents got a ring
}

func newCluster(t *testing.T) *cluster {
	return &cluster{world: newWorld(t, 3), Clientset: fake.NewClientset(), heard: true}
}

func (c *cluster) KeyNodes() ([]Node, bool) { return c.nodes(), c.heard }

func (c *cluster) SetRing(r Ring) {
	c.given++
	c.ring = r
	for _, a := range c.agents {
		a.write(&r)
		c.check()
	}
}

func (c *cluster) keeper() *Keeper {
	return NewKeeper(c, namespace, c, func() time.Time { return c.now })
}

// keep runs a keeper for a time, and returns its last error.
func (c *cluster) keep(k *Keeper, d time.Duration) (err error) {
	for end := c.now.Add(d); c.now.Before(end); c.now = c.now.Add(2 * time.Second) {
		err = k.Keep(c.t.Context())
	}
	return err
}

// key returns the key that all agents sign by, once there is no other.
func (c *cluster) key(k *Keeper) lb.AnnounceKey {
	c.t.Helper()
	if err := c.keep(k, Window+40*time.Second); err != nil {
		c.t.Fatal(err)
	}
	signs, ok := c.ring.Key(c.ring.Sign)
	stored, err := parse(c.secret().Data[SecretKey])
	if err != nil || !ok || c.ring.Phase() != Settled || !stored.Equal(&c.ring) {
		c.t.Fatalf("phase %s, %v", c.ring.Phase(), err)
	}
	for i, a := range c.agents {
		if a.keys[a.sign] != signs.Key {
			c.t.Fatalf("node %d signs by another key", i)
		}
	}
	return signs.Key
}

func (c *cluster) secret() *corev1.Secret {
	c.t.Helper()
	s, err := c.CoreV1().Secrets(namespace).Get(context.Background(), v1alpha1.AnnounceSecret, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

func (c *cluster) change(change func(*corev1.Secret)) {
	c.t.Helper()
	s := c.secret()
	change(s)
	if _, err := c.CoreV1().Secrets(namespace).Update(c.t.Context(), s, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) remove() {
	c.t.Helper()
	if err := c.CoreV1().Secrets(namespace).Delete(c.t.Context(), v1alpha1.AnnounceSecret, metav1.DeleteOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func TestKeyIsKept(t *testing.T) {
	c := newCluster(t)
	k := c.key(c.keeper())
	if s := c.secret(); !v1alpha1.Managed(s) || len(s.Data) != 1 {
		t.Errorf("Secret %+v", s.ObjectMeta)
	}
	if c.key(c.keeper()) != k {
		t.Error("the next leader has another key")
	}
	c.change(func(s *corev1.Secret) { s.Annotations = map[string]string{v1alpha1.RotateAnnotation: "now"} })
	next := c.keeper()
	rotated := c.key(next)
	if rotated == k {
		t.Error("the annotation changes no key")
	}
	if c.key(next) != rotated || c.key(c.keeper()) != rotated {
		t.Error("the annotation changes the key twice")
	}
}

// A leader that has not heard of agents gives them nothing.
func TestLeaderWaitsForAgents(t *testing.T) {
	c := newCluster(t)
	c.heard = false
	if err := c.keep(c.keeper(), time.Minute); err != nil || c.given > 0 || len(c.Actions()) > 0 {
		t.Errorf("error %v, %d rings, %d requests", err, c.given, len(c.Actions()))
	}
}

// Whoever deletes or alters the Secret gets another key, and breaks nothing: world
// checks each step.
func TestSecretIsDeletedOrAltered(t *testing.T) {
	c := newCluster(t)
	k := c.keeper()
	first := c.key(k)
	c.remove()
	second := c.key(k)
	before := c.secret().Data
	c.remove()
	third := c.key(c.keeper()) // which knows none of the keys
	c.change(func(s *corev1.Secret) { s.Data = before })
	fourth := c.key(c.keeper())
	alters := c.keeper()
	c.key(alters)
	c.change(func(s *corev1.Secret) { s.Data = before })
	fifth := c.key(alters)
	seen := map[lb.AnnounceKey]bool{first: true, second: true, third: true, fourth: true, fifth: true}
	if len(seen) != 5 {
		t.Errorf("there are %d keys, want 5", len(seen))
	}
}

// A malformed Secret is left as it is, and nodes go on.
func TestSecretIsMalformed(t *testing.T) {
	c := newCluster(t)
	k := c.keeper()
	first := c.key(k)
	good := c.secret().Data[SecretKey]
	for _, bad := range []string{"", "hunter2hunter2hunter2!", string(good[:len(good)-9]), strings.Repeat("\xff", 32)} {
		c.change(func(s *corev1.Secret) { s.Data = map[string][]byte{SecretKey: []byte(bad)} })
		for _, k := range []*Keeper{k, c.keeper()} {
			err := c.keep(k, time.Minute)
			if err == nil {
				t.Fatalf("%q is taken", bad)
			}
			for _, want := range []string{"data.keys", "Secret blixt-system/blixt-announce-keys", "go on", "Delete the Secret"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if bad != "" && strings.Contains(err.Error(), bad) {
				t.Errorf("error %q names the contents", err)
			}
		}
		if got := string(c.secret().Data[SecretKey]); got != bad {
			t.Errorf("%q became %q", bad, got)
		}
		for i, a := range c.agents {
			if a.keys[a.sign] != first {
				t.Errorf("node %d has lost its key", i)
			}
		}
	}
	c.remove()
	if c.key(k) == first {
		t.Error("the key is the same after the Secret was deleted")
	}
}

// What is not stored is not given to agents, and what is not an answer is no reason to
// make another key.
func TestAPIServerFails(t *testing.T) {
	c := newCluster(t)
	k := c.keeper()
	first := c.key(k)
	down, verb := errors.New("no route to API server"), ""
	c.PrependReactor("*", "secrets", func(a ktesting.Action) (bool, runtime.Object, error) {
		return a.GetVerb() == verb, nil, down
	})
	verb = "get"
	if err := c.keep(k, time.Minute); !errors.Is(err, down) {
		t.Errorf("error %v", err)
	}
	verb = ""
	if c.key(k) != first {
		t.Error("the key has changed")
	}
	verb = "patch"
	c.change(func(s *corev1.Secret) { s.Annotations = map[string]string{v1alpha1.RotateAnnotation: "now"} })
	if err := c.keep(k, time.Minute); !errors.Is(err, down) {
		t.Errorf("error %v", err)
	}
	if len(c.ring.Keys) != 1 {
		t.Error("agents have a key that is not stored")
	}
	verb = ""
	if c.key(k) == first {
		t.Error("the request was forgotten")
	}
}

// Of two leaders, the one that has read the Secret before the other wrote it does not
// write over it.
func TestTwoLeaders(t *testing.T) {
	c := newCluster(t)
	k := c.keeper()
	c.key(k)
	const version = "7"
	read := c.secret()
	read.ResourceVersion = version
	c.PrependReactor("get", "secrets", func(ktesting.Action) (bool, runtime.Object, error) { return true, read, nil })
	applied := 0
	c.PrependReactor("patch", "secrets", func(a ktesting.Action) (bool, runtime.Object, error) {
		applied++
		if text := string(a.(ktesting.PatchAction).GetPatch()); !strings.Contains(text, `"resourceVersion":"`+version+`"`) {
			t.Errorf("the write does not say which Secret was read: %s", text)
		}
		return true, nil, apierrors.NewConflict(corev1.Resource("secrets"), v1alpha1.AnnounceSecret, errors.New("written meanwhile"))
	})
	c.now = c.now.Add(Interval)
	if err := k.Keep(t.Context()); !apierrors.IsConflict(err) || applied != 1 || len(c.ring.Keys) != 1 {
		t.Errorf("error %v, %d writes, agents have %d keys", err, applied, len(c.ring.Keys))
	}
}

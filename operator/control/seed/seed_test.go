// SPDX-License-Identifier: Apache-2.0

package seed

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

const namespace = "blixt-system"

type cluster struct {
	*testing.T
	*fake.Clientset
}

func newCluster(t *testing.T) cluster { return cluster{t, fake.NewClientset()} }

func (c cluster) keep(k *Keeper) uint64 {
	c.Helper()
	value, err := k.Keep(c.Context())
	if err != nil {
		c.Fatal(err)
	}
	return value
}

func (c cluster) secret() *corev1.Secret {
	c.Helper()
	s, err := c.CoreV1().Secrets(namespace).Get(context.Background(), v1alpha1.SeedSecret, metav1.GetOptions{})
	if err != nil {
		c.Fatal(err)
	}
	return s
}

func (c cluster) write(text string) {
	c.Helper()
	s := c.secret()
	s.Data = map[string][]byte{Key: []byte(text)}
	if _, err := c.CoreV1().Secrets(namespace).Update(c.Context(), s, metav1.UpdateOptions{}); err != nil {
		c.Fatal(err)
	}
}

func (c cluster) remove() {
	c.Helper()
	if err := c.CoreV1().Secrets(namespace).Delete(c.Context(), v1alpha1.SeedSecret, metav1.DeleteOptions{}); err != nil {
		c.Fatal(err)
	}
}

// The seed is made once: whoever leads later reads it. Each cluster has its own.
func TestSeedIsMadeOnce(t *testing.T) {
	c := newCluster(t)
	value := c.keep(NewKeeper(c, namespace))
	made := c.secret()
	if !v1alpha1.Managed(made) || value == 0 {
		t.Errorf("seed %d, Secret %+v", value, made.ObjectMeta)
	}
	for range 2 {
		if again := c.keep(NewKeeper(c, namespace)); again != value {
			t.Errorf("the next leader has seed %d, want %d", again, value)
		}
	}
	other := newCluster(t)
	if other.keep(NewKeeper(other, namespace)) == value {
		t.Error("two clusters have the same seed")
	}
}

// Two replicas that both find no Secret agree.
func TestSeedOfTwoReplicas(t *testing.T) {
	c := newCluster(t)
	first, second := NewKeeper(c, namespace), NewKeeper(c, namespace)
	value := c.keep(first)
	raced := false
	c.PrependReactor("get", "secrets", func(ktesting.Action) (bool, runtime.Object, error) {
		if raced {
			return false, nil, nil
		}
		raced = true // the second has looked before the first wrote
		return true, nil, apierrors.NewNotFound(corev1.Resource("secrets"), v1alpha1.SeedSecret)
	})
	if got := c.keep(second); got != value || value == 0 {
		t.Errorf("seeds %d and %d", value, got)
	}
	if got := c.keep(first); got != value {
		t.Errorf("the first one reads %d, want %d", got, value)
	}
}

// A Secret that is deleted is written again with the seed that nodes have.
func TestSeedIsDeleted(t *testing.T) {
	c := newCluster(t)
	k := NewKeeper(c, namespace)
	value, text := c.keep(k), string(c.secret().Data[Key])
	c.remove()
	if again := c.keep(k); again != value || string(c.secret().Data[Key]) != text {
		t.Errorf("seed %d, want %d", again, value)
	}
	const given = "MDEyMzQ1Njc4OWFiY2RlZg==\n"
	c.write(given)
	rotated := c.keep(k)
	if rotated == value {
		t.Error("another Secret gives the same seed")
	}
	c.remove()
	if again := c.keep(k); again != rotated || string(c.secret().Data[Key]) != given {
		t.Errorf("seed %d, want %d", again, rotated)
	}
}

// A malformed Secret is left as it is, and does not become the seed.
func TestSeedIsMalformed(t *testing.T) {
	c := newCluster(t)
	k := NewKeeper(c, namespace)
	value := c.keep(k)
	for _, bad := range []string{"", "c2hvcnQ=", "hunter2hunter2hunter2!", strings.Repeat("\xff", 32)} {
		c.write(bad)
		for _, k := range []*Keeper{k, NewKeeper(c, namespace)} {
			_, err := k.Keep(t.Context())
			if err == nil {
				t.Fatalf("%q is taken", bad)
			}
			for _, want := range []string{"data.seed", "Secret blixt-system/blixt-seed", "at least 16 bytes in base64", "delete the Secret"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if bad != "" && strings.Contains(err.Error(), bad) {
				t.Errorf("error %q names the contents", err)
			}
		}
		if got := string(c.secret().Data[Key]); got != bad {
			t.Errorf("%q became %q", bad, got)
		}
	}
	c.remove()
	if again := c.keep(k); again != value {
		t.Errorf("then seed %d, want %d", again, value)
	}
}

// What is not an answer is no reason to make another seed.
func TestSeedCannotBeRead(t *testing.T) {
	c := newCluster(t)
	down := errors.New("no route to API server")
	c.PrependReactor("get", "secrets", func(ktesting.Action) (bool, runtime.Object, error) { return true, nil, down })
	if _, err := NewKeeper(c, namespace).Keep(t.Context()); !errors.Is(err, down) {
		t.Errorf("error %v", err)
	}
	for _, a := range c.Actions() {
		if a.GetVerb() != "get" {
			t.Errorf("it does %s", a.GetVerb())
		}
	}
}

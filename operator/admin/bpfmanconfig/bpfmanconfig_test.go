// SPDX-License-Identifier: Apache-2.0

package bpfmanconfig_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/admin/bpfmanconfig"
)

var server *kube.Server

func TestMain(m *testing.M) { os.Exit(kube.Run(m, kube.Options{Bare: true}, &server)) }

const (
	text = `
apiVersion: bpfman.io/v1alpha1
kind: Config
metadata:
  name: bpfman-config
  labels: {app.kubernetes.io/managed-by: blixt-operator}
spec:
  agent: {image: quay.io/bpfman/bpfman-agent:v0.6.0}
  daemon: {image: quay.io/bpfman/bpfman:v0.6.0}
  configuration: "[signing]\nverify_enabled = false\n"
  overrides: [{apiVersion: apps/v1, kind: DaemonSet, namespace: bpfman, name: bpfman-daemon, unmanaged: true}]
`
	kinds     = "../../../charts/blixt/files/bpfman/configs.yaml"
	finalizer = "bpfman.io/config-finalizer"
)

// run runs Apply or Remove, and returns what it said.
func run(t *testing.T, f func(context.Context, bpfmanconfig.Options) error, timeout, patience time.Duration) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := f(t.Context(), bpfmanconfig.Options{Timeout: timeout, Patience: patience, Pause: 20 * time.Millisecond, Out: &out})
	return out.String(), err
}

func apply(ctx context.Context, o bpfmanconfig.Options) error {
	return bpfmanconfig.Apply(ctx, fresh(), []byte(text), o)
}

func remove(ctx context.Context, o bpfmanconfig.Options) error {
	return bpfmanconfig.Remove(ctx, fresh(), o)
}

// fresh returns the client of a command that has just started: it knows no kinds yet.
func fresh() client.Client {
	c, err := client.New(server.Config, client.Options{Scheme: kube.Scheme})
	if err != nil {
		panic(err)
	}
	return c
}

// stored returns the Config; nil: there is none.
func stored(t *testing.T) *bpfmanv1.Config {
	t.Helper()
	c := &bpfmanv1.Config{}
	err := fresh().Get(t.Context(), client.ObjectKey{Name: bpfmanconfig.Name}, c)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// change changes the Config as somebody else would.
func change(t *testing.T, f func(*bpfmanv1.Config)) {
	t.Helper()
	c := stored(t)
	f(c)
	if err := fresh().Update(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// The tests share one Config, from before there is its kind until it is gone.
func TestConfig(t *testing.T) {
	t.Run("without its kind it waits", func(t *testing.T) {
		out, err := run(t, apply, 200*time.Millisecond, 0)
		if err == nil || !strings.Contains(err.Error(), "not done within 200ms: the kind Config of bpfman is not defined yet") {
			t.Errorf("got %q, %v", out, err)
		}
		if out, err = run(t, remove, time.Second, 0); err != nil || !strings.Contains(out, "there is no Config") {
			t.Errorf("remove: got %q, %v", out, err)
		}
	})
	t.Run("its kind comes late", func(t *testing.T) {
		done := make(chan error, 1)
		go func() {
			_, err := run(t, apply, 20*time.Second, 0)
			done <- err
		}()
		time.Sleep(300 * time.Millisecond)
		if err := server.Apply(t.Context(), kinds); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if c := stored(t); c == nil || len(c.Spec.Overrides) != 1 {
			t.Fatalf("got %+v, want the Config", c)
		}
	})
	t.Run("what others add stays, what they change does not", func(t *testing.T) {
		change(t, func(c *bpfmanv1.Config) {
			c.Finalizers = []string{finalizer}
			c.Annotations = map[string]string{"theirs": "true"}
			c.Spec.Overrides[0].Unmanaged = false
			c.Spec.Configuration = "[signing]\n"
		})
		if out, err := run(t, apply, 10*time.Second, 0); err != nil {
			t.Fatal(out, err)
		}
		c := stored(t)
		if len(c.Finalizers) != 1 || c.Annotations["theirs"] != "true" || !c.Spec.Overrides[0].Unmanaged || !strings.Contains(c.Spec.Configuration, "verify_enabled = false") {
			t.Errorf("got %+v", c)
		}
	})
	t.Run("one being deleted is waited for", func(t *testing.T) {
		if err := fresh().Delete(t.Context(), stored(t)); err != nil {
			t.Fatal(err)
		}
		if _, err := run(t, apply, 200*time.Millisecond, 0); err == nil || !strings.Contains(err.Error(), "is still being deleted") || !strings.Contains(err.Error(), finalizer) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("bpfman's operator fails, so its finalizer is removed for it", func(t *testing.T) {
		start := time.Now()
		out, err := run(t, remove, 10*time.Second, 300*time.Millisecond)
		if err != nil || stored(t) != nil || !strings.Contains(out, "removed finalizer "+finalizer) {
			t.Errorf("got %q, %v, %+v", out, err, stored(t))
		}
		if time.Since(start) < 300*time.Millisecond {
			t.Error("it had no patience")
		}
		if out, err := run(t, remove, 10*time.Second, 0); err != nil || !strings.Contains(out, "there is no Config") {
			t.Errorf("again: got %q, %v", out, err)
		}
	})
	t.Run("bpfman's operator removes its finalizer", func(t *testing.T) {
		if out, err := run(t, apply, 10*time.Second, 0); err != nil {
			t.Fatal(out, err)
		}
		change(t, func(c *bpfmanv1.Config) { c.Finalizers = []string{finalizer} })
		played := make(chan struct{})
		go func() {
			defer close(played)
			as, c := fresh(), &bpfmanv1.Config{}
			for as.Get(context.Background(), client.ObjectKey{Name: bpfmanconfig.Name}, c) == nil {
				if c.DeletionTimestamp != nil {
					c.Finalizers = nil
					_ = as.Update(context.Background(), c)
				}
				time.Sleep(20 * time.Millisecond)
			}
		}()
		out, err := run(t, remove, 20*time.Second, time.Minute)
		<-played
		if err != nil || strings.Contains(out, "removed finalizer") || stored(t) != nil {
			t.Errorf("got %q, %v", out, err)
		}
	})
	t.Run("somebody else's finalizer is named", func(t *testing.T) {
		if out, err := run(t, apply, 10*time.Second, 0); err != nil {
			t.Fatal(out, err)
		}
		change(t, func(c *bpfmanv1.Config) { c.Finalizers = []string{finalizer, "example.com/backup"} })
		_, err := run(t, remove, 500*time.Millisecond, 100*time.Millisecond)
		if err == nil || !strings.Contains(err.Error(), "finalizer example.com/backup.") || !strings.Contains(err.Error(), `kubectl patch configs.bpfman.io bpfman-config --type=merge -p '{"metadata":{"finalizers":null}}'`) {
			t.Errorf("got %v", err)
		}
		change(t, func(c *bpfmanv1.Config) { c.Finalizers = nil })
	})
	t.Run("a foreign one stays", func(t *testing.T) {
		foreign := &bpfmanv1.Config{ObjectMeta: metav1.ObjectMeta{Name: bpfmanconfig.Name}}
		foreign.Spec.Configuration, foreign.Spec.Agent.Image, foreign.Spec.Daemon.Image = "[signing]\n", "a", "d"
		foreign.Spec.Agent.HealthProbePort = 8175
		if err := fresh().Create(t.Context(), foreign); err != nil {
			t.Fatal(err)
		}
		_, err := run(t, apply, 10*time.Second, 0)
		if err == nil || !strings.Contains(err.Error(), "was not made by Blixt's chart") || !strings.Contains(err.Error(), "kubectl delete configs.bpfman.io bpfman-config") {
			t.Errorf("apply: got %v", err)
		}
		out, err := run(t, remove, 10*time.Second, 0)
		if err != nil || !strings.Contains(out, "left Config bpfman-config") {
			t.Errorf("remove: got %q, %v", out, err)
		}
		if c := stored(t); c == nil || c.Spec.Agent.Image != "a" || c.DeletionTimestamp != nil {
			t.Errorf("got %+v, want it as it was", c)
		}
		if err := fresh().Delete(t.Context(), foreign); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("an invalid one ends the command at once", func(t *testing.T) {
		for replace, says := range map[string]string{
			"verify_enabled = false\\n|": "", "[signing]\\nverify_enabled = false\\n|": "configuration", "configuration:|configurations:": "configurations",
			"name: bpfman-config|name: other": "want a bpfman.io/v1alpha1 Config bpfman-config", "blixt-operator|somebody": "with label app.kubernetes.io/managed-by=blixt-operator",
		} {
			from, to, _ := strings.Cut(replace, "|")
			broken := strings.Replace(text, from, to, 1)
			err := bpfmanconfig.Apply(t.Context(), fresh(), []byte(broken), bpfmanconfig.Options{Timeout: 10 * time.Second, Out: &bytes.Buffer{}})
			if says == "" && err != nil || says != "" && (err == nil || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), says)) {
				t.Errorf("%s: got %v, want %q", replace, err, says)
			}
		}
		if _, err := run(t, remove, 10*time.Second, 0); err != nil {
			t.Error(err)
		}
	})
}

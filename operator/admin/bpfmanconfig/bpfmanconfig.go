// SPDX-License-Identifier: Apache-2.0

// Package bpfmanconfig applies and removes the Config of the bpfman that Blixt's chart
// installs. Helm cannot: it installs no object of a kind that it has only just defined.
// The Config is applied before bpfman's operator starts, which would make one of its own,
// and removed before that operator goes, which has to remove the Config's finalizer.
// A Config that somebody else has made is left alone.
package bpfmanconfig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// Name is that of the only Config that bpfman's operator reads.
const Name = "bpfman-config"

// Patience is how long bpfman's operator usually has to remove its finalizer.
const Patience = 15 * time.Second

// finalizer is that of bpfman's operator. When a Config is deleted, the operator does
// nothing but remove it.
const finalizer = "bpfman.io/config-finalizer"

// Options of both.
type Options struct {
	// Timeout of the whole command.
	Timeout time.Duration
	// Patience with bpfman's operator, after which Remove removes its finalizer itself.
	Patience time.Duration
	// Pause between looks, 0: a second.
	Pause time.Duration
	// Out gets a line for each step.
	Out io.Writer
}

// errForeign is a Config without Blixt's label.
var errForeign = errors.New("the Config " + Name + " was not made by Blixt's chart, so it stays as it is: but with it bpfman's operator may undo what the chart has mended")

// Apply applies the Config, with a client of kube.Scheme, as soon as the API server knows
// the kind. Returns an error if text is no such Config, if there is a foreign Config, if
// the API server refuses this one, or at the timeout.
func Apply(ctx context.Context, c client.Client, text []byte, o Options) error {
	var typed bpfmanv1.Config
	written := &unstructured.Unstructured{}
	if err := errors.Join(yaml.UnmarshalStrict(text, &typed), yaml.Unmarshal(text, &written.Object)); err != nil {
		return fmt.Errorf("read Config: %w", err)
	}
	if typed.Kind != "Config" || typed.APIVersion != bpfmanv1.SchemeGroupVersion.String() || typed.Name != Name || !v1alpha1.Managed(&typed) {
		return fmt.Errorf("read Config: want a %s Config %s with label %s=%s", bpfmanv1.SchemeGroupVersion, Name, v1alpha1.ManagedByLabel, v1alpha1.Manager)
	}
	return o.until(ctx, func(ctx context.Context) (string, error) {
		stored, err := get(ctx, c)
		switch {
		case meta.IsNoMatchError(err):
			return "the kind Config of bpfman is not defined yet", nil
		case err != nil:
			return err.Error(), nil
		case stored == nil:
			// Not over one that somebody makes just now.
			err = c.Create(ctx, written.DeepCopy(), client.FieldOwner(v1alpha1.Manager))
		case stored.DeletionTimestamp != nil:
			return "the previous one is still being deleted: is its finalizer " + strings.Join(stored.Finalizers, ", ") + "?", nil
		case !v1alpha1.Managed(stored):
			return "", fmt.Errorf("%w. Compare it with what Blixt needs (kubectl -n bpfman get configmap blixt-bpfman -o yaml), then remove it: kubectl delete configs.bpfman.io %s", errForeign, Name)
		default:
			apply := written.DeepCopy()
			apply.SetUID(stored.UID) // not over one that replaces it just now
			err = c.Apply(ctx, client.ApplyConfigurationFromUnstructured(apply), client.FieldOwner(v1alpha1.Manager), client.ForceOwnership)
		}
		switch {
		case err == nil:
			o.say("applied Config %s", Name)
			return "", nil
		case apierrors.IsInvalid(err), apierrors.IsForbidden(err), apierrors.IsBadRequest(err):
			return "", fmt.Errorf("apply Config %s: %w", Name, err)
		}
		return err.Error(), nil
	})
}

// Remove deletes the Config, with a client of kube.Scheme, and waits until it is gone.
// What bpfman's operator, which may be ending or failing, does not do in Options.Patience
// is done for it. Returns an error that names what is left at the timeout.
func Remove(ctx context.Context, c client.Client, o Options) error {
	var deleted time.Time
	return o.until(ctx, func(ctx context.Context) (string, error) {
		stored, err := get(ctx, c)
		switch {
		case meta.IsNoMatchError(err) || err == nil && stored == nil:
			o.say("there is no Config %s", Name)
			return "", nil
		case err != nil:
			return err.Error(), nil
		case !v1alpha1.Managed(stored):
			o.say("left Config %s, which Blixt's chart has not made", Name)
			return "", nil
		case stored.DeletionTimestamp == nil:
			if err := c.Delete(ctx, stored, client.Preconditions{UID: &stored.UID}); err != nil {
				return err.Error(), nil
			}
			o.say("deleted Config %s", Name)
			deleted = time.Now()
			return "it is being deleted", nil
		case deleted.IsZero():
			deleted = time.Now() // by somebody, or by a run that was killed
		}
		if i := slices.Index(stored.Finalizers, finalizer); i >= 0 && time.Since(deleted) > o.Patience {
			before := stored.DeepCopy()
			stored.Finalizers = slices.Delete(stored.Finalizers, i, i+1)
			if err := c.Patch(ctx, stored, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
				return err.Error(), nil
			}
			o.say("removed finalizer %s: bpfman's operator has not within %s", finalizer, o.Patience)
		}
		return fmt.Sprintf("it is being deleted, and waits for whoever has its finalizer %s. If nobody has: kubectl patch configs.bpfman.io %s --type=merge -p '{\"metadata\":{\"finalizers\":null}}'", strings.Join(stored.Finalizers, ", "), Name), nil
	})
}

// get returns the Config; nil: there is none. Its error is a meta.NoKindMatchError if the
// API server does not know the kind.
func get(ctx context.Context, c client.Client) (*bpfmanv1.Config, error) {
	stored := &bpfmanv1.Config{}
	err := c.Get(ctx, client.ObjectKey{Name: Name}, stored)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return stored, err
}

// until calls try until it returns no reason to wait.
func (o *Options) until(ctx context.Context, try func(context.Context) (string, error)) error {
	pause := o.Pause
	if pause == 0 {
		pause = time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	for last := ""; ; {
		why, err := try(ctx)
		if err != nil || why == "" {
			return err
		}
		if ctx.Err() == nil {
			if why != last {
				o.say("waiting for Config %s: %s", Name, why)
			}
			last = why
		}
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return context.Canceled
			}
			return fmt.Errorf("wait for Config %s: not done within %s: %s", Name, o.Timeout, last)
		case <-time.After(pause):
		}
	}
}

func (o *Options) say(format string, args ...any) { fmt.Fprintf(o.Out, format+"\n", args...) }

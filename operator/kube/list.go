// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// List fills a list with the objects of its kind, with none if the cluster does
// not have the kind.
func List(ctx context.Context, c client.Reader, list client.ObjectList, o ...client.ListOption) error {
	if err := c.List(ctx, list, o...); err != nil && !isMissing(err) {
		return fmt.Errorf("list %s: %w", KindOf(list), err)
	}
	return nil
}

func isMissing(err error) bool { return meta.IsNoMatchError(err) || apierrors.IsNotFound(err) }

// Reader reads many kinds, of which some may be forbidden or missing.
type Reader struct {
	Client client.Reader
	// Missing is what Unread says of kinds that the cluster does not have; "":
	// nothing.
	Missing string
	// Unread says, by kind, why its objects could not be read.
	Unread map[string]string
	// Err is why the API server does not answer. Nothing is read after it.
	Err error
}

// Read returns the objects of a kind, none if they cannot be read.
func Read[L any, P interface {
	*L
	client.ObjectList
}](ctx context.Context, r *Reader, o ...client.ListOption) *L {
	list := new(L)
	if r.Err != nil {
		return list
	}
	err := r.Client.List(ctx, P(list), o...)
	switch kind := KindOf(P(list)); {
	case err == nil:
	case isMissing(err):
		if r.Missing != "" {
			r.Unread[kind] = r.Missing
		}
	case apierrors.IsForbidden(err):
		r.Unread[kind] = err.Error()
	default:
		r.Err = fmt.Errorf("list %s: %w", kind, err)
	}
	return list
}

// SPDX-License-Identifier: Apache-2.0

// Package kube reads what the commands for administrators look at. In come
// kinds; out come their objects, and why those of a kind could not be read.
package kube

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// List adds the objects of list's kind to into. Where they may not be read,
// unread says why, by kind; where the cluster does not have the kind, it says
// missing, unless that is "". Returns an error if the API server does not answer.
func List[T any](ctx context.Context, c client.Client, unread map[string]string, missing string, into *[]T, list client.ObjectList, o ...client.ListOption) error {
	err := c.List(ctx, list, o...)
	kind := strings.TrimSuffix(reflect.TypeOf(list).Elem().Name(), "List")
	switch {
	case meta.IsNoMatchError(err), apierrors.IsNotFound(err):
		if missing != "" {
			unread[kind] = missing
		}
		return nil
	case apierrors.IsForbidden(err):
		unread[kind] = err.Error()
		return nil
	case err != nil:
		return fmt.Errorf("list %s: %w", kind, err)
	}
	*into = append(*into, reflect.ValueOf(list).Elem().FieldByName("Items").Interface().([]T)...)
	return nil
}

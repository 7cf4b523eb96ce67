// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"context"

	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// Answer returns what observe.Answers.Trace of a node is. find returns where the maps of
// its data plane are pinned now, and what else is known.
func Answer(find func() (dir string, o Options, err error)) func(context.Context, observe.TraceQuery, func(any) error) error {
	return func(_ context.Context, q observe.TraceQuery, send func(any) error) error {
		dir, o, err := find()
		if err != nil {
			return err
		}
		r, err := Run(dir, q, o)
		if err != nil {
			return err
		}
		return send(r)
	}
}

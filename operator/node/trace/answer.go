// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"context"

	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// Answer returns what observe.Answers.Trace of a node is: queries about the data plane
// whose maps are pinned in dir() are answered with one Result. options are asked for each
// query, as names change.
func Answer(dir func() (string, error), options func() Options) func(context.Context, observe.TraceQuery, func(any) error) error {
	return func(_ context.Context, q observe.TraceQuery, send func(any) error) error {
		at, err := dir()
		if err != nil {
			return err
		}
		r, err := Run(at, q, options())
		if err != nil {
			return err
		}
		return send(r)
	}
}

// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/kubernetes-sigs/blixt/operator/observe/transport"
)

// SocketFile returns the socket at which the load balancer of a name is asked.
func SocketFile(runDir, name string) string { return filepath.Join(runDir, name+".sock") }

// answer answers questions of commands until the context ends, and returns a function
// that waits for the end. Serving does not depend on it.
func (r *runner) answer(ctx context.Context) (wait func()) {
	if r.answerer == nil {
		return func() {}
	}
	socket, err := transport.Listen(SocketFile(r.RunDir, r.Name))
	if err != nil {
		r.log.warning("commands", fmt.Errorf("commands such as blixt flows cannot ask this process: %w", err))
		return func() {}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := transport.Serve(ctx, transport.NewServer(transport.Local(r.answerer), transport.Options{}), socket); err != nil {
			r.log.warning("commands", fmt.Errorf("commands such as blixt flows cannot ask this process any more: %w", err))
		}
	}()
	return func() { <-ended }
}

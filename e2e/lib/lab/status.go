// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"fmt"

	"github.com/kubernetes-sigs/blixt/operator/node/announce"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// Status is the output of `blixt status -o json`, as far as tests read it.
type Status struct {
	Program loader.Info `json:"program"`
	writer.Status
	Announcing *announce.Status `json:"announcing"`
}

// Status runs blixt status, which reads the maps.
func (b *Blixt) Status() (Status, error) {
	var s Status
	out, err := b.Run("status", "-o", "json")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return s, fmt.Errorf("read status: %w\n%s", err, out)
	}
	return s, nil
}

// Frontend returns the frontend at address:port/protocol.
func (s Status) Frontend(key string) (writer.FrontendStatus, error) {
	for _, f := range s.Frontends {
		if f.Frontend == key {
			return f, nil
		}
	}
	return writer.FrontendStatus{}, fmt.Errorf("status shows no frontend %s", key)
}

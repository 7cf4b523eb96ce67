// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// memoryVersion changes with the format.
const memoryVersion = 1

// storedMemory is a Memory in a file.
type storedMemory struct {
	Version    int                 `json:"version"`
	Incumbents *gateway.Incumbents `json:"incumbents,omitempty"`
	Good       []storedGood        `json:"good"`
}

type storedGood struct {
	Key    string          `json:"key"`
	Kind   string          `json:"kind"`
	At     string          `json:"at,omitempty"`
	Known  []string        `json:"known,omitempty"`
	Object json.RawMessage `json:"object"`
}

// MarshalJSON returns the same bytes for the same memory.
func (m *Memory) MarshalJSON() ([]byte, error) {
	stored := storedMemory{Version: memoryVersion, Incumbents: m.Incumbents}
	for _, key := range slices.Sorted(maps.Keys(m.good)) {
		g := m.good[key]
		text, err := json.Marshal(g.Object)
		if err != nil {
			return nil, err
		}
		stored.Good = append(stored.Good, storedGood{key, g.kind, g.at, g.known, text})
	}
	return json.Marshal(stored)
}

// UnmarshalJSON reads what MarshalJSON has written. It returns an error, and leaves the
// memory as it is, if a part of it is not what was written.
func (m *Memory) UnmarshalJSON(text []byte) error {
	var stored storedMemory
	if err := json.Unmarshal(text, &stored); err != nil {
		return err
	}
	if stored.Version != memoryVersion {
		return fmt.Errorf("version %d is not %d", stored.Version, memoryVersion)
	}
	all := make(map[string]good, len(stored.Good))
	for _, s := range stored.Good {
		k, known := kinds[s.Kind]
		if !known {
			return fmt.Errorf("kind %q is unknown", s.Kind)
		}
		object := k.new()
		if err := json.Unmarshal(s.Object, object); err != nil {
			return fmt.Errorf("%s: %w", s.Key, err)
		}
		g := good{named: named{s.Kind, object}, at: s.At, known: s.Known}
		if object.GetName() == "" || s.Key != g.name() && s.Kind != "EndpointSlice" {
			return fmt.Errorf("%q is not the name of its object", s.Key)
		}
		all[s.Key] = g
	}
	m.good, m.Incumbents = all, stored.Incumbents
	return nil
}
